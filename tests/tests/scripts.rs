//! The scripts behind the Makefile, as a user runs and stops them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use flotilla_tests::server;
use rustix::process::{Pid, Signal, kill_process_group};

/// A script that has not ended by then hangs.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Ctrl-C in a terminal reaches every process of the foreground, wherever the demo is; and settings meant for another node
/// do not reach the demo's.
#[test]
fn ctrl_c_leaves_nothing_of_the_demo() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/demo.sh");
    for steps in 1..=4 {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(&script);
        command.arg(server::binary()).env("TMPDIR", dir.path()).process_group(0);
        command.env("FLOTILLA_CONFIG", "/no/such/file").env("FLOTILLA_JOURNAL_BYTES", "1");
        let mut demo = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(demo.stdout.take().unwrap()).lines().map(Result::unwrap);
        let begun: Vec<String> = lines.filter(|line| line.starts_with("== ")).take(steps).collect();
        assert_eq!(begun.len(), steps, "the demo ended before step {steps}");
        kill_process_group(Pid::from_child(&demo), Signal::INT).unwrap();
        let status = server::wait(&mut demo, TIMEOUT).expect("the demo does not end");
        assert!(!status.success(), "step {steps}: an interrupted demo is no success");
        let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(left.is_empty(), "step {steps} left {left:?}");
    }
}

/// The whole of it: a leader is killed half way, and nothing is lost.
#[test]
fn the_demo_shows_what_it_promises() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/demo.sh");
    let dir = tempfile::tempdir().unwrap();
    let shown = Command::new(script).arg(server::binary()).env("TMPDIR", dir.path()).stdin(Stdio::null()).output().unwrap();
    let (text, errors) = (String::from_utf8_lossy(&shown.stdout), String::from_utf8_lossy(&shown.stderr));
    assert!(shown.status.success(), "{text}{errors}");
    assert!(errors.contains("was killed (kill -9)"), "{errors}");
    for said in ["lines are acknowledged", "Longest time without an acknowledgement:", "Byte for byte the same", "Done."] {
        assert!(text.contains(said), "{said}: {text}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "it leaves nothing");
}
