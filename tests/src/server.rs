//! A server process: started, waited for, killed, stopped and started again on the same directory and ports.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use flotilla_client::{Client, ClientOptions};
use rustix::process::{Pid, Signal, kill_process};

use crate::ports;

/// A server that is not ready by then hangs.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// A server that has not ended by then hangs.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// Lines of a server's log that a failed test shows.
const LOG_LINES_SHOWN: usize = 60;

/// The binary that the workspace built: it lies beside the folder of the test binaries.
///
/// # Panics
/// If it is not there.
#[must_use]
pub fn binary() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(Path::parent).unwrap().join("flotilla");
    assert!(path.is_file(), "{} is missing: build it with `cargo build --release --workspace`", path.display());
    path
}

/// A server that ended before it was ready.
#[derive(Debug)]
pub struct NotStarted {
    /// How it ended.
    pub status: ExitStatus,
    /// All it said.
    pub log: String,
}

/// A server process. Dropping it kills it; a failing test shows the end of its log.
#[derive(Debug)]
pub struct Server {
    child: Option<Child>,
    data_dir: PathBuf,
    listen: SocketAddr,
    http: SocketAddr,
    args: Vec<String>,
    wrapper: Vec<String>,
    log: Arc<Mutex<String>>,
    log_reader: Option<JoinHandle<()>>,
}

impl Server {
    /// A server on `data_dir` that does not run yet, with `args` besides directory and addresses.
    pub fn new(data_dir: &Path, args: &[&str]) -> Self {
        Self {
            child: None,
            data_dir: data_dir.to_owned(),
            listen: ports::free(),
            http: ports::free(),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            wrapper: Vec::new(),
            log: Arc::default(),
            log_reader: None,
        }
    }

    /// Gives it more arguments, for its next start.
    pub fn add_args(&mut self, args: &[&str]) {
        self.args.extend(args.iter().map(|&arg| arg.to_owned()));
    }

    /// Its next starts go through this command, which becomes the server; an empty one: none.
    pub fn run_under(&mut self, command: &[String]) {
        self.wrapper = command.to_vec();
    }

    /// A server on `data_dir`, ready.
    ///
    /// # Panics
    /// If it does not become ready.
    pub fn started(data_dir: &Path, args: &[&str]) -> Self {
        let mut server = Self::new(data_dir, args);
        server.start();
        server
    }

    /// Starts it and waits until it is ready. How long that took.
    ///
    /// # Panics
    /// If it does not become ready.
    pub fn start(&mut self) -> Duration {
        match self.try_start() {
            Ok(took) => took,
            Err(failed) => panic!("the server did not start ({}):\n{}", failed.status, failed.log),
        }
    }

    /// Starts it and waits until it is ready or ends.
    ///
    /// # Errors
    /// If it ended.
    ///
    /// # Panics
    /// If it runs already, or neither is ready nor ends.
    pub fn try_start(&mut self) -> Result<Duration, NotStarted> {
        let started = Instant::now();
        self.launch();
        self.ready().map(|()| started.elapsed())
    }

    /// Waits until it is ready or ends.
    ///
    /// # Errors
    /// If it ended.
    ///
    /// # Panics
    /// If it does not run, or neither is ready nor ends.
    pub fn ready(&mut self) -> Result<(), NotStarted> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().unwrap()) {
                self.reaped();
                return Err(NotStarted { status, log: self.log() });
            }
            if self.get("/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200")) {
                return Ok(());
            }
            assert!(started.elapsed() < READY_TIMEOUT, "not ready within {READY_TIMEOUT:?}");
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// Starts it and does not wait.
    ///
    /// # Panics
    /// If it runs already, or cannot be started.
    pub fn launch(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let mut line = self.wrapper.iter().map(PathBuf::from).chain([binary()]);
        let mut command = Command::new(line.next().unwrap());
        command.args(line).arg("server").arg("--data-dir").arg(&self.data_dir).args(&self.args);
        command.args(["--listen", &self.listen.to_string(), "--http", &self.http.to_string()]);
        // Settings of whoever runs the tests must not reach the server.
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        self.log.lock().unwrap().clear();
        self.log_reader = Some(collect(child.stderr.take().unwrap(), Arc::clone(&self.log)));
        self.child = Some(child);
    }

    /// Ends it at once, as `kill -9` does.
    ///
    /// # Panics
    /// If it does not run.
    pub fn kill(&mut self) {
        let child = self.child.as_mut().expect("it does not run");
        child.kill().unwrap();
        child.wait().unwrap();
        self.reaped();
    }

    /// Asks it to stop, as Ctrl-C does, and waits until it has ended.
    ///
    /// # Panics
    /// If it does not run, or does not end.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    /// If it does not run, or does not end.
    pub fn wait(&mut self) -> ExitStatus {
        let child = self.child.as_mut().expect("it does not run");
        let status = wait(child, STOP_TIMEOUT).unwrap_or_else(|| panic!("it did not end within {STOP_TIMEOUT:?}"));
        self.reaped();
        status
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// If it does not run.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Whether it still runs.
    ///
    /// # Panics
    /// If it was not started.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().expect("it was not started").try_wait().unwrap().is_none()
    }

    /// A client of this server.
    ///
    /// # Panics
    /// If it cannot be reached.
    pub async fn client(&self) -> Client {
        Client::connect([self.address()], ClientOptions::default()).await.unwrap()
    }

    /// Where its gRPC API is, as host:port.
    #[must_use]
    pub fn address(&self) -> String {
        self.listen.to_string()
    }

    /// Where its HTTP port is, as host:port.
    #[must_use]
    pub fn http_address(&self) -> String {
        self.http.to_string()
    }

    /// Its data directory.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// What it has logged since its last start.
    ///
    /// # Panics
    /// If the thread that collects it panicked.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Its resident memory in bytes.
    ///
    /// # Panics
    /// If it does not run.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        self.status_field("VmRSS:")
    }

    /// The largest its resident memory has been, in bytes.
    ///
    /// # Panics
    /// If it does not run.
    #[must_use]
    pub fn resident_bytes_peak(&self) -> u64 {
        self.status_field("VmHWM:")
    }

    /// How many files and connections it has open.
    ///
    /// # Panics
    /// If it does not run.
    #[must_use]
    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid().as_raw_nonzero())).unwrap().count()
    }

    fn status_field(&self, name: &str) -> u64 {
        let path = format!("/proc/{}/status", self.pid().as_raw_nonzero());
        let status = std::fs::read_to_string(path).unwrap();
        let kib = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        kib.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// The answer of its HTTP port; none while it does not listen.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.http).ok()?;
        stream.set_read_timeout(Some(READY_TIMEOUT)).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    fn pid(&self) -> Pid {
        Pid::from_child(self.child.as_ref().expect("it does not run"))
    }

    fn reaped(&mut self) {
        self.child = None;
        if let Some(reader) = self.log_reader.take() {
            reader.join().unwrap();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Nothing can be done about failures here, and the process may be gone.
            let _ = child.kill();
            let _ = child.wait();
        }
        if let Some(reader) = self.log_reader.take() {
            let _ = reader.join();
        }
        if std::thread::panicking() {
            let log = self.log.lock().map(|log| log.clone()).unwrap_or_default();
            let skipped = log.lines().count().saturating_sub(LOG_LINES_SHOWN);
            let shown = log.lines().skip(skipped).fold(String::new(), |mut shown, line| {
                let _ = writeln!(shown, "  {line}");
                shown
            });
            eprintln!("the end of the server's log ({}):\n{shown}", self.data_dir.display());
        }
    }
}

/// Waits until `child` ends; none if it does not within `timeout`.
///
/// # Panics
/// If it cannot be waited for.
pub fn wait(child: &mut Child, timeout: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

fn collect(from: impl Read + Send + 'static, into: Arc<Mutex<String>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines() {
            let Ok(line) = line else { return };
            let mut log = into.lock().unwrap();
            log.push_str(&line);
            log.push('\n');
        }
    })
}
