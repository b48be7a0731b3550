//! The watcher of system calls, on small programs of the system: exactly one call of many fails, is halved, or is the last.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use flotilla_chaos::trap::order::{Harm, Step};
use flotilla_chaos::trap::{Trap, calls};

fn step(call: &str, kind: &str, nth: u64, harm: &str) -> Step {
    Step { call: call.to_owned(), kind: kind.to_owned(), nth, harm: harm.parse::<Harm>().unwrap() }
}

/// A directory without links in its path, as a watcher wants it, with a file `in` of 8 KiB.
fn directory() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().canonicalize().unwrap();
    fs::write(path.join("in"), [[b'a'; 4096], [b'b'; 4096]].concat()).unwrap();
    (dir, path)
}

/// Runs `script` in `root` under `steps`.
fn run(root: &Path, script: &str, steps: Vec<Step>) -> (Output, Trap) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flotilla-chaos"));
    command.args(["trapped", "--", "/bin/sh", "-c", script]).current_dir(root);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let trap = Trap::attach(child.id(), root, steps).unwrap();
    (child.wait_with_output().unwrap(), trap)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn one_of_many_processes_cannot_open_its_file() {
    let (_dir, root) = directory();
    let script = "for i in 1 2 3 4 5 6 7 8; do cat in > /dev/null || echo no >&2 & done; wait";
    let (output, trap) = run(&root, script, vec![step("openat", "in", 5, "EMFILE")]);
    assert_eq!(said(&output).matches("no\n").count(), 1, "{}", said(&output));
    assert!(said(&output).contains("Too many open files"), "{}", said(&output));
    assert_eq!(trap.fired().len(), 1);
    assert_eq!(trap.fired()[0].path, Path::new("in"));
    assert_eq!(trap.census().get(&("openat", "in".to_owned())), Some(&3), "counted from the step on");
}

#[test]
fn a_write_that_fails_writes_nothing_and_what_is_elsewhere_is_not_counted() {
    let (_dir, root) = directory();
    let elsewhere = tempfile::tempdir().unwrap();
    let script =
        format!("dd if=in of={}/out bs=1024 status=none && dd if=in of=out bs=1024 status=none", elsewhere.path().display());
    let (output, _trap) = run(&root, &script, vec![step("write", "out", 3, "ENOSPC")]);
    assert!(!output.status.success());
    assert!(said(&output).contains("No space left"), "{}", said(&output));
    assert_eq!(fs::metadata(root.join("out")).unwrap().len(), 2048);
    assert_eq!(fs::metadata(elsewhere.path().join("out")).unwrap().len(), 8192);
}

#[test]
fn half_of_a_read_and_half_of_a_write_are_what_the_caller_is_told() {
    let (_dir, root) = directory();
    let steps = vec![step("read", "in", 1, "short"), step("write", "out", 1, "short")];
    let (output, trap) = run(&root, "dd if=in of=out bs=4096 2>&1", steps);
    assert!(output.status.success());
    assert_eq!(trap.fired().len(), 2);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told.contains("1+2 records in"), "a short read is a record of its own, and so is the rest: {told}");
    assert_eq!(fs::read(root.join("out")).unwrap(), fs::read(root.join("in")).unwrap(), "nothing is lost by it");
}

#[test]
fn a_process_is_killed_before_the_call_and_not_behind_it() {
    let (_dir, root) = directory();
    let (output, trap) = run(&root, "exec dd if=in of=out bs=2048 status=none", vec![step("write", "out", 4, "kill")]);
    assert_eq!(output.status.signal(), Some(9));
    assert_eq!(fs::metadata(root.join("out")).unwrap().len(), 6144);
    assert_eq!(trap.fired().len(), 1);
}

#[test]
fn a_file_that_is_unreadable_stays_it() {
    let (_dir, root) = directory();
    fs::copy(root.join("in"), root.join("in2")).unwrap();
    let script = "cat in || cat in || cat in2 > /dev/null";
    let (output, _trap) = run(&root, script, vec![step("read", "in", 1, "EIO-for-good")]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(said(&output).matches("Input/output error").count(), 2);
}

#[test]
fn what_is_watched_has_a_class_by_its_name() {
    for name in ["openat", "openat(O_CREAT)", "pread64", "fdatasync", "getdents64"] {
        assert!(calls::class_of(name).is_some(), "{name}");
    }
    assert!(calls::class_of("socket").is_none());
}
