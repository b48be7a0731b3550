//! What a person at a prompt sees while something is wrong: a server that is gone, a line that is no record, Ctrl-C.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::io::{Read, Write};
use std::time::Duration;

use flotilla_tests::cli::{Cli, Output};
use flotilla_tests::server::{self, Server};
use rustix::process::Signal;
use serde_json::Value;

fn started() -> (tempfile::TempDir, Server, Cli) {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::started(&dir.path().join("data"), &["--journal-bytes", "128MiB"]);
    let cli = Cli::new(server.address());
    cli.run("topic create t").ok();
    (dir, server, cli)
}

fn numbers(range: std::ops::Range<u32>) -> Vec<u8> {
    range.map(|number| format!("{number}\n")).collect::<String>().into_bytes()
}

fn report(stdout: &[u8]) -> Value {
    serde_json::from_slice(stdout).unwrap()
}

/// Its input stays open, and would give it lines for ever: it must end by itself, and nothing may be written behind the
/// first lost record, although the server comes back.
#[test]
fn produce_stops_at_the_first_lost_record() {
    let (_dir, mut server, cli) = started();
    let mut producing = cli.spawn(&["produce", "t", "--delivery-timeout", "1s", "-o", "json"]);
    let mut stdin = producing.child.stdin.take().unwrap();
    stdin.write_all(&numbers(0..1_000)).unwrap();
    cli.run("consume t --from earliest --count 1000").ok();
    server.kill();
    stdin.write_all(&numbers(1_000..20_000)).unwrap();
    let Output { code, stdout, stderr } = producing.finish();
    server.start();
    drop(stdin);
    assert_eq!(code, Some(5), "{stderr}");
    assert!(stderr.contains("error: not every record was acknowledged: no success within 1s"), "{stderr}");
    let report = report(&stdout);
    let count = |field: &str| report[field].as_u64().unwrap();
    assert_eq!(count("acked_records"), 1_000, "{stderr}");
    assert!(count("failed_records") > 0);
    assert_eq!(count("records"), count("acked_records") + count("failed_records") + count("unknown_records"));
    assert_eq!(count("bytes"), numbers(0..1_000).len() as u64 - 1_000, "only what was acknowledged counts");
    let stored = cli.run("consume t --until-end").ok().into_bytes();
    let lines = stored.iter().filter(|byte| **byte == b'\n').count() as u32;
    assert_eq!(stored, numbers(0..lines), "there is a hole");
}

#[test]
fn an_outage_is_told_once_and_so_is_its_end() {
    let (_dir, mut server, cli) = started();
    let mut producing = cli.spawn(&["produce", "t"]);
    let mut consuming = cli.spawn(&["consume", "t", "--from", "earliest"]);
    let mut stdin = producing.child.stdin.take().unwrap();
    stdin.write_all(b"first\n").unwrap();
    // Both are connected.
    let mut read = [0; 6];
    consuming.child.stdout.as_mut().unwrap().read_exact(&mut read).unwrap();
    assert_eq!(&read, b"first\n");
    server.kill();
    stdin.write_all(b"second\n").unwrap();
    let unreachable = format!("cannot reach {} (", server.address());
    producing.says(&unreachable);
    consuming.says(&unreachable);
    server.start();
    producing.says("answers again");
    consuming.says("answers again");
    drop(stdin);
    let Output { code, stderr, .. } = producing.finish();
    assert_eq!((code, stderr.matches("cannot reach").count()), (Some(0), 1), "{stderr}");
    consuming.child.stdin.take();
    consuming.signal(Signal::INT);
    let Output { code, stdout, stderr } = consuming.finish();
    assert_eq!((code, stderr.matches("cannot reach").count()), (Some(0), 1), "{stderr}");
    assert_eq!(stdout, b"second\n");
}

#[test]
fn the_first_ctrl_c_says_what_is_waited_for_and_the_second_gives_up() {
    let (_dir, server, cli) = started();
    let mut producing = cli.spawn(&["produce", "t", "-o", "json"]);
    let mut stdin = producing.child.stdin.take().unwrap();
    stdin.write_all(b"first\n").unwrap();
    cli.run("consume t --from earliest --count 1").ok();
    server.signal(Signal::STOP);
    // More than fits into the pipe and the buffers behind it, so that some of it was handed over when this returns.
    stdin.write_all(&"a line of some length, many times over\n".repeat(100_000).into_bytes()).unwrap();
    producing.signal(Signal::INT);
    producing.says("to be acknowledged, 2m at most; Ctrl-C again gives up");
    while server::wait(&mut producing.child, Duration::from_millis(100)).is_none() {
        producing.signal(Signal::INT);
    }
    let Output { code, stdout, stderr } = producing.finish();
    server.signal(Signal::CONT);
    assert_eq!(code, Some(130), "{stderr}");
    assert!(report(&stdout)["unknown_records"].as_u64() > Some(0), "{stderr}");
}

#[test]
fn a_line_that_is_too_large_is_named() {
    let (dir, _server, cli) = started();
    let file = dir.path().join("input");
    let large = [b"1\n2\n".as_slice(), &vec![b'x'; 5 << 20], b"\n4\n"].concat();
    std::fs::write(&file, large).unwrap();
    let path = file.to_string_lossy();
    let Output { code, stdout, stderr } = cli.args(&["produce", "t", "--file", &path, "-o", "json"], b"");
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains(&format!("error: {path}, line 3: the record takes")), "{stderr}");
    assert!(stderr.contains("every line before line 3 is acknowledged: go on there"), "{stderr}");
    let report = report(&stdout);
    let counts = ["records", "acked_records", "failed_records", "unknown_records", "resume_at_line"].map(|field| &report[field]);
    assert_eq!(counts, [3, 2, 1, 0, 3]);
    assert_eq!(cli.run("consume t --until-end").ok(), "1\n2\n");
    let folder = dir.path().to_string_lossy().into_owned();
    let unreadable = cli.args(&["produce", "t", "--file", &folder], b"").fails(1);
    assert!(unreadable.contains(&folder), "{unreadable}");
}

/// As timeout(1) and terminals do: the same request comes twice.
#[test]
fn two_signals_at_once_are_one_request() {
    let (_dir, mut server, _cli) = started();
    server.signal(Signal::INT);
    server.signal(Signal::TERM);
    assert!(server.wait().success(), "{}", server.log());
}
