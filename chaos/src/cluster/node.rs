//! One node: a process that is started, killed, stopped, let go on, and started again on the same directory and ports.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::power::PowerDisk;
use crate::trap::Trap;
use crate::trap::order::Step;

const READY_POLL_INTERVAL: Duration = Duration::from_millis(20);
/// An answer of the HTTP port that takes longer counts as none.
const READY_ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// A node that was asked to stop and still runs then is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// Lines of the log that an incident shows.
const LOG_LINES_SHOWN: usize = 15;

/// How a node is started.
#[derive(Debug, Clone)]
pub(super) struct NodeOptions {
    pub id: u64,
    pub binary: PathBuf,
    /// What stands before the binary on its command line.
    pub prefix: Vec<OsString>,
    pub data_dir: PathBuf,
    pub log: PathBuf,
    pub listen: SocketAddr,
    pub http: SocketAddr,
    /// Behind what follows from the fields above.
    pub args: Vec<String>,
    /// Whether the prefix puts it under watch.
    pub is_watched: bool,
}

/// A node. Dropping it kills its process.
#[derive(Debug)]
pub struct Node {
    options: NodeOptions,
    /// None while it is meant to be down.
    child: Option<Child>,
    /// How its last process ended by itself.
    ended: Option<ExitStatus>,
    /// Watches the process that was started last.
    trap: Option<Trap>,
    /// Its disk, if that can lose its power.
    disk: Option<PowerDisk>,
}

impl Node {
    pub(super) fn new(options: NodeOptions, disk: Option<PowerDisk>) -> Self {
        Self { options, child: None, ended: None, trap: None, disk }
    }

    /// Its number in the cluster.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.options.id
    }

    /// Where its gRPC API is, as host:port.
    #[must_use]
    pub fn address(&self) -> String {
        self.options.listen.to_string()
    }

    /// Where its data lies.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.options.data_dir
    }

    pub(super) fn disk(&self) -> Option<&PowerDisk> {
        self.disk.as_ref()
    }

    pub(super) fn disk_mut(&mut self) -> Option<&mut PowerDisk> {
        self.disk.as_mut()
    }

    /// What watches its calls, if anything does.
    #[must_use]
    pub fn trap(&self) -> Option<&Trap> {
        self.trap.as_ref()
    }

    /// Starts its process.
    ///
    /// # Errors
    /// If the binary cannot be run, or the log not written.
    pub fn start(&mut self) -> io::Result<()> {
        self.start_armed(Vec::new())
    }

    /// Starts its process, and has `steps` carried out from its first call on.
    ///
    /// # Errors
    /// If the binary cannot be run or watched, or the log not written.
    pub fn start_armed(&mut self, steps: Vec<Step>) -> io::Result<()> {
        let log = OpenOptions::new().create(true).append(true).open(&self.options.log)?;
        let mut line = self.options.prefix.iter().map(OsString::as_os_str).chain([self.options.binary.as_os_str()]);
        let mut command = Command::new(line.next().unwrap_or_default());
        command.args(line).arg("server").arg("--data-dir").arg(&self.options.data_dir);
        command.args(["--node-id", &self.options.id.to_string()]);
        command.args(["--listen", &self.options.listen.to_string(), "--http", &self.options.http.to_string()]);
        // However this process ends, its nodes do not stay behind.
        command.args(["--exit-with", &std::process::id().to_string()]);
        command.args(&self.options.args);
        // Settings of whoever runs this must not reach the node.
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        // Ctrl-C is for this process: a node must not end before it is told to.
        command.process_group(0).kill_on_drop(true);
        // Its former process is gone, and so is what it watched.
        self.trap = None;
        self.ended = None;
        let child = self.child.insert(command.spawn()?);
        if let Some(pid) = child.id().filter(|_| self.options.is_watched) {
            self.trap = Some(Trap::attach(pid, &self.options.data_dir, steps)?);
        }
        Ok(())
    }

    /// Ends its process at once (`SIGKILL`); [`reap`](Node::reap) waits until it is gone.
    ///
    /// # Errors
    /// If it does not run.
    pub fn kill(&mut self) -> io::Result<()> {
        self.child.as_mut().ok_or_else(not_running)?.start_kill()
    }

    /// Waits until a process that was killed is gone, and its ports with it.
    ///
    /// # Errors
    /// If it does not run.
    pub async fn reap(&mut self) -> io::Result<()> {
        self.child.take().ok_or_else(not_running)?.wait().await.map(drop)
    }

    /// Stops its process where it stands (`SIGSTOP`): it keeps its connections and answers nothing.
    ///
    /// # Errors
    /// If it does not run.
    pub fn pause(&self) -> io::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets a stopped process go on (`SIGCONT`).
    ///
    /// # Errors
    /// If it does not run.
    pub fn resume(&self) -> io::Result<()> {
        self.signal(Signal::CONT)
    }

    /// Asks it to end, and waits until it has. What is wrong if that was not clean.
    pub async fn stop(&mut self) -> Option<String> {
        let asked = self.signal(Signal::TERM);
        let mut child = self.child.take()?;
        let ended = match asked {
            Ok(()) => tokio::time::timeout(STOP_TIMEOUT, child.wait()).await,
            Err(_) => Ok(child.wait().await),
        };
        let how = match ended {
            Ok(Ok(status)) if status.success() => return None,
            Ok(Ok(status)) => status.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("still running {STOP_TIMEOUT:?} later"),
        };
        Some(format!("node {} was asked to stop: {how}; its log ends so:\n{}", self.id(), self.log_tail()))
    }

    /// What happened, if its process has ended although nobody ended it.
    pub fn crashed(&mut self) -> Option<String> {
        self.child.as_ref()?;
        let status = self.ended()?;
        Some(format!("node {} ended by itself ({status}); its log ends so:\n{}", self.id(), self.log_tail()))
    }

    /// Waits until it says that it is ready. Whether it did.
    pub async fn wait_ready(&self, timeout: Duration) -> bool {
        let ready = async {
            while !self.is_ready().await {
                tokio::time::sleep(READY_POLL_INTERVAL).await;
            }
        };
        tokio::time::timeout(timeout, ready).await.is_ok()
    }

    async fn is_ready(&self) -> bool {
        let ask = async {
            let mut stream = TcpStream::connect(self.options.http).await.ok()?;
            stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.ok()?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.ok()?;
            Some(answer.starts_with(b"HTTP/1.1 200"))
        };
        tokio::time::timeout(READY_ANSWER_TIMEOUT, ask).await.ok().flatten().unwrap_or(false)
    }

    /// Waits until it is ready or its process has ended by itself. Whether it is ready.
    ///
    /// # Errors
    /// If neither comes within `timeout`.
    pub async fn wait_ready_or_ended(&mut self, timeout: Duration) -> io::Result<bool> {
        let began = tokio::time::Instant::now();
        while self.ended().is_none() {
            if self.is_ready().await {
                return Ok(true);
            }
            if began.elapsed() > timeout {
                return Err(io::ErrorKind::TimedOut.into());
            }
            tokio::time::sleep(READY_POLL_INTERVAL).await;
        }
        Ok(false)
    }

    /// Asks it to end. How it did; none if it still runs after `timeout`.
    ///
    /// # Errors
    /// If it does not run.
    pub async fn end(&mut self, timeout: Duration) -> io::Result<Option<ExitStatus>> {
        self.signal(Signal::TERM)?;
        let child = self.child.as_mut().ok_or_else(not_running)?;
        let Ok(status) = tokio::time::timeout(timeout, child.wait()).await else { return Ok(None) };
        self.ended = Some(status?);
        self.child = None;
        Ok(self.ended)
    }

    /// How its process ended, if it was not this one that ended it and waited.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().ok()?) {
            self.ended = Some(status);
            self.child = None;
        }
        self.ended
    }

    /// Whether its process runs, as far as is known.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// All that it logged.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.options.log).unwrap_or_default()).into_owned()
    }

    /// The end of what it logged.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let skipped = log.lines().count().saturating_sub(LOG_LINES_SHOWN);
        log.lines().skip(skipped).map(|line| format!("  {line}\n")).collect()
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = self.child.as_ref().and_then(Child::id).and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        Ok(kill_process(pid.ok_or_else(not_running)?, signal)?)
    }
}

fn not_running() -> io::Error {
    io::Error::other("the process does not run")
}
