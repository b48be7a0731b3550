//! One node: a process that is started, killed, stopped, let go on, and started again on the same directory and ports.

use std::fs::OpenOptions;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

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
    /// Holds the node's data and its log.
    pub dir: PathBuf,
    pub listen: SocketAddr,
    pub http: SocketAddr,
    /// Behind what follows from the fields above.
    pub args: Vec<String>,
}

/// A node. Dropping it kills its process.
#[derive(Debug)]
pub struct Node {
    options: NodeOptions,
    /// None while it is meant to be down.
    child: Option<Child>,
}

impl Node {
    pub(super) fn new(options: NodeOptions) -> Self {
        Self { options, child: None }
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

    /// Starts its process.
    ///
    /// # Errors
    /// If the binary cannot be run, or the log not written.
    pub fn start(&mut self) -> io::Result<()> {
        let log = OpenOptions::new().create(true).append(true).open(self.log_path())?;
        let mut command = Command::new(&self.options.binary);
        command.arg("server").arg("--data-dir").arg(self.options.dir.join(format!("node-{}", self.options.id)));
        command.args(["--node-id", &self.options.id.to_string()]);
        command.args(["--listen", &self.options.listen.to_string(), "--http", &self.options.http.to_string()]);
        // However this process ends, its nodes do not stay behind.
        command.args(["--exit-with", &std::process::id().to_string()]);
        command.args(&self.options.args);
        // Settings of whoever runs this must not reach the node.
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        // Ctrl-C is for this process: a node must not end before it is told to.
        command.process_group(0).kill_on_drop(true);
        self.child = Some(command.spawn()?);
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
        let status = self.child.as_mut()?.try_wait().ok()??;
        self.child = None;
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

    /// The end of what it logged.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let log = std::fs::read(self.log_path()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let skipped = log.lines().count().saturating_sub(LOG_LINES_SHOWN);
        log.lines().skip(skipped).map(|line| format!("  {line}\n")).collect()
    }

    fn log_path(&self) -> PathBuf {
        log_path(&self.options.dir, self.options.id)
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = self.child.as_ref().and_then(Child::id).and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        Ok(kill_process(pid.ok_or_else(not_running)?, signal)?)
    }
}

fn log_path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("node-{id}.log"))
}

fn not_running() -> io::Error {
    io::Error::other("the process does not run")
}
