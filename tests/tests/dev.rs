//! `flotilla dev`: a local cluster in one command, which ends with it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use flotilla_tests::cli::Cli;
use flotilla_tests::{ports, server};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const TIMEOUT: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Dropping it kills it.
struct Dev(Child);

impl Dev {
    fn start(dir: Option<&Path>, base_port: u16, args: &[&str]) -> Self {
        let mut command = Command::new(server::binary());
        command.args(["dev", "--base-port", &base_port.to_string()]).args(args).env_clear();
        if let Some(dir) = dir {
            command.arg("--dir").arg(dir);
        }
        Self(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    /// What it prints up to the end of its JSON document.
    fn ready(&mut self) -> Value {
        let mut text = String::new();
        for line in BufReader::new(self.0.stdout.as_mut().unwrap()).lines() {
            let line = line.unwrap();
            text.push_str(&line);
            if line == "}" {
                return serde_json::from_str(&text).unwrap();
            }
        }
        let mut stderr = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        panic!("it never became ready:\n{stderr}");
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    fn wait(mut self) -> (Option<i32>, String) {
        let mut stderr = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        let status = server::wait(&mut self.0, TIMEOUT).expect("it does not end");
        (status.code(), stderr)
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port from which on those of all nodes are free; no other test of this process gets one of them.
fn base_port(nodes: u16) -> u16 {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _drawing = ONE_AT_A_TIME.lock().unwrap();
    loop {
        let drawn: Vec<u16> = (0..10 * nodes).map(|_| ports::free().port()).collect();
        // Without a gap in between, so none of them was taken.
        if drawn.iter().zip(drawn[0]..).all(|(port, expected)| *port == expected) {
            return drawn[0];
        }
    }
}

fn pids(ready: &Value) -> Vec<i32> {
    ready["nodes"].as_array().unwrap().iter().map(|node| i32::try_from(node["process_id"].as_u64().unwrap()).unwrap()).collect()
}

/// Zombies count as gone: whoever inherits them reaps them at some time.
fn is_alive(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(POLL_INTERVAL);
    }
}

#[test]
fn it_serves_keeps_its_data_and_stops_with_ctrl_c() {
    let dir = tempfile::tempdir().unwrap();
    let base = base_port(NODES);
    let cluster = ["--nodes", &NODES.to_string(), "-o", "json"];
    let mut dev = Dev::start(Some(dir.path()), base, &cluster);
    let ready = dev.ready();
    let nodes = ready["nodes"].as_array().unwrap();
    assert_eq!(nodes.len(), usize::from(NODES));
    for (node, port) in nodes.iter().zip((base..).step_by(10)) {
        assert_eq!(node["address"], format!("127.0.0.1:{port}"));
        let cli = Cli::new(node["address"].as_str().unwrap());
        cli.run(&format!("topic create through-{port} --partitions 2")).ok();
        cli.input(&format!("produce through-{port}"), b"one\ntwo\n").ok();
    }
    dev.signal(Signal::INT);
    let (code, stderr) = dev.wait();
    assert_eq!(code, Some(0), "{stderr}");
    assert!(pids(&ready).into_iter().all(|pid| !is_alive(pid)));
    for node in nodes {
        let log = std::fs::read_to_string(node["log"].as_str().unwrap()).unwrap();
        assert!(log.contains("stopped") && !log.contains("ending at once"), "each node stopped in its own time:\n{log}");
    }

    let mut dev = Dev::start(Some(dir.path()), base, &cluster);
    let ready = dev.ready();
    let lines = Cli::new(ready["nodes"][0]["address"].as_str().unwrap())
        .run(&format!("consume through-{base} --from earliest --until-end --format %v\\n"))
        .ok();
    let mut lines: Vec<&str> = lines.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["one", "two"]);
}

#[test]
fn a_node_that_ends_is_reported_and_stays_down() {
    let mut dev = Dev::start(None, base_port(1), &["--nodes", "1", "-o", "json"]);
    let ready = dev.ready();
    let dir = Path::new(ready["dir"].as_str().unwrap()).to_owned();
    assert!(dir.is_dir());
    let pid = pids(&ready)[0];
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    let (code, stderr) = dev.wait();
    assert_eq!(code, Some(1), "with the last node it ends");
    assert!(stderr.contains(&format!("node 1 (process {pid}) has ended: signal: 9")), "{stderr}");
    assert!(stderr.contains("ready"), "the end of its log is shown: {stderr}");
    assert!(!dir.exists(), "the temporary directory is removed");
}

#[test]
fn its_nodes_do_not_outlive_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut dev = Dev::start(Some(dir.path()), base_port(1), &["--nodes", "1", "-o", "json"]);
    let pids = pids(&dev.ready());
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    dev.signal(Signal::KILL);
    wait_until("its nodes are still there", || pids.iter().all(|pid| !is_alive(*pid)));
}

#[test]
fn a_port_that_is_taken_is_named() {
    let base = base_port(1);
    let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, base)).unwrap();
    let (code, stderr) = Dev::start(None, base, &["--nodes", "1"]).wait();
    assert_eq!(code, Some(1));
    assert!(stderr.contains(&format!("cannot listen on 127.0.0.1:{base}")), "{stderr}");
}

/// Nodes of the larger cluster.
const NODES: u16 = 3;
