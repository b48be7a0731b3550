//! A node of `flotilla dev`: its process and its log.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;

use super::view::NodeView;
use crate::cli::exit::CliError;

/// Enough for a few thousand records on their way: these clusters are for trying things out.
const JOURNAL_BYTES: &str = "128MiB";
/// Lines of its log that are shown when a node has ended.
const LOG_LINES_SHOWN: usize = 10;

/// How a node is started.
pub(super) struct ChildOptions<'a> {
    pub binary: &'a Path,
    /// Holds its data and its log.
    pub dir: &'a Path,
    pub node_id: u64,
    /// Of gRPC; HTTP is one above.
    pub port: u16,
    /// Of all nodes.
    pub seeds: &'a [String],
}

/// A node. Dropping it kills it.
pub(super) struct Child {
    view: NodeView,
    /// None when it has ended.
    process: Option<tokio::process::Child>,
}

impl Child {
    pub fn start(options: &ChildOptions<'_>) -> Result<Self, CliError> {
        let ChildOptions { binary, dir, node_id, port, seeds } = *options;
        let log = dir.join(format!("node-{node_id}.log"));
        let log_file =
            OpenOptions::new().create(true).append(true).open(&log).map_err(CliError::io(log.display().to_string()))?;
        let data_dir: PathBuf = dir.join(format!("node-{node_id}"));
        let (address, http) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{}", port + 1));
        let mut command = Command::new(binary);
        command.arg("server").arg("--data-dir").arg(&data_dir).args(["--node-id", &node_id.to_string()]);
        command.args(["--listen", &address, "--http", &http, "--advertise", "listen", "--journal-bytes", JOURNAL_BYTES]);
        command.args(["--exit-with", &std::process::id().to_string()]);
        if seeds.len() > 1 {
            command.args(["--seeds", &seeds.join(",")]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log_file);
        // Ctrl-C is for `flotilla dev`, which stops its nodes itself: a second signal would cut that short.
        command.process_group(0).kill_on_drop(true);
        let process = command.spawn().map_err(CliError::io(binary.display().to_string()))?;
        let process_id = process.id().unwrap_or_default();
        Ok(Self { view: NodeView { node_id, process_id, address, http, data_dir, log }, process: Some(process) })
    }

    pub fn view(&self) -> &NodeView {
        &self.view
    }

    /// Whether it was not seen to have ended.
    pub fn is_alive(&self) -> bool {
        self.process.is_some()
    }

    /// Asks it to stop.
    pub fn terminate(&self) {
        let id = self.process.as_ref().and_then(tokio::process::Child::id);
        if let Some(pid) = id.and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)) {
            // It may have ended by itself. One that somebody stopped (SIGSTOP) has to go on to end.
            let _ = kill_process(pid, Signal::TERM);
            let _ = kill_process(pid, Signal::CONT);
        }
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        if let Some(process) = &mut self.process {
            // It may have ended by itself.
            let _ = process.start_kill();
        }
    }

    /// Waits until it has ended; what there is to say about it.
    pub async fn ended(&mut self) -> String {
        let status = match &mut self.process {
            Some(process) => process.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string()),
            None => return std::future::pending().await,
        };
        self.process = None;
        let NodeView { node_id, process_id, .. } = &self.view;
        format!("node {node_id} (process {process_id}) has ended: {status}\n{}", self.log_tail())
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        let NodeView { node_id, log, .. } = &self.view;
        format!("the end of the log of node {node_id}, {}:\n{}", log.display(), tail(log))
    }
}

fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let skipped = text.lines().count().saturating_sub(LOG_LINES_SHOWN);
    text.lines().skip(skipped).map(|line| format!("  {line}\n")).collect()
}
