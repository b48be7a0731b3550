//! `flotilla` as a user runs it: arguments, input, and what came of it.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::server;

/// A command that has not ended by then hangs.
const TIMEOUT: Duration = Duration::from_secs(60);

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: Vec<u8>,
    /// What it said besides.
    pub stderr: String,
}

impl Output {
    /// What it printed, if it succeeded.
    ///
    /// # Panics
    /// If it failed.
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        String::from_utf8(self.stdout).unwrap()
    }

    /// What it said, if it failed with `code` and printed nothing.
    ///
    /// # Panics
    /// If it ended in another way.
    pub fn fails(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{}", self.stderr);
        assert!(self.stdout.is_empty(), "failures are said on stderr");
        assert!(!self.stderr.is_empty(), "a failure says what is wrong");
        self.stderr
    }
}

/// The command line against one server.
#[derive(Debug, Clone)]
pub struct Cli {
    addr: String,
}

impl Cli {
    /// Against the server at `addr`, host:port.
    pub fn new(addr: impl Into<String>) -> Self {
        Self { addr: addr.into() }
    }

    /// Runs a command line, cut at its spaces, with nothing on stdin.
    pub fn run(&self, line: &str) -> Output {
        self.input(line, b"")
    }

    /// Runs a command line, cut at its spaces, with `input` on stdin.
    ///
    /// # Panics
    /// If it does not end.
    pub fn input(&self, line: &str, input: &[u8]) -> Output {
        self.args(&line.split_whitespace().collect::<Vec<_>>(), input)
    }

    /// As [`input`](Cli::input), for arguments with spaces.
    ///
    /// # Panics
    /// If it does not end.
    pub fn args(&self, args: &[&str], input: &[u8]) -> Output {
        let mut running = self.spawn(args);
        let (mut stdin, input) = (running.child.stdin.take().unwrap(), input.to_vec());
        // Whoever ends without reading its input breaks this pipe, which is its right.
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let output = running.finish();
        writer.join().unwrap();
        output
    }

    /// Starts a command with stdin, stdout and stderr at hand.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn spawn(&self, args: &[&str]) -> Running {
        let mut command = Command::new(server::binary());
        command.args(args).env_clear().env("FLOTILLA_ADDR", &self.addr);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let said = Arc::new(Said::default());
        let reader = listen(child.stderr.take().unwrap(), Arc::clone(&said));
        Running { child, said, reader: Some(reader) }
    }
}

/// A command that runs. Dropping it kills it.
#[derive(Debug)]
pub struct Running {
    /// The process; its stdin and stdout are there until somebody takes them.
    pub child: Child,
    said: Arc<Said>,
    reader: Option<JoinHandle<()>>,
}

/// What a command has said so far on stderr.
#[derive(Debug, Default)]
struct Said {
    text: Mutex<String>,
    more: Condvar,
}

impl Running {
    /// Waits until it has said `words`.
    ///
    /// # Panics
    /// If it does not.
    pub fn says(&self, words: &str) {
        let text = self.said.text.lock().unwrap();
        let silent = |text: &mut String| !text.contains(words);
        let (text, waited) = self.said.more.wait_timeout_while(text, TIMEOUT, silent).unwrap();
        assert!(!waited.timed_out(), "it did not say {words:?} within {TIMEOUT:?}, but: {text}");
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// If it is gone.
    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until it has ended.
    ///
    /// # Panics
    /// If it does not end.
    pub fn finish(mut self) -> Output {
        let stdout = self.child.stdout.take().map(read_all);
        let status = server::wait(&mut self.child, TIMEOUT).unwrap_or_else(|| panic!("it did not end within {TIMEOUT:?}"));
        let stdout = stdout.map(|reader| reader.join().unwrap()).unwrap_or_default();
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        let stderr = self.said.text.lock().unwrap().clone();
        Output { code: status.code(), stdout, stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended long ago.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_all(mut from: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What came before a failure is what there is.
        let _ = from.read_to_end(&mut bytes);
        bytes
    })
}

fn listen(mut from: impl Read + Send + 'static, said: Arc<Said>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(read @ 1..) = from.read(&mut bytes) {
            said.text.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..read]));
            said.more.notify_all();
        }
    })
}
