//! A topic that is deleted and created again while a client is cut off: the client ends, and says why, instead of going on
//! in a topic that it has never seen.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::io::{BufRead, BufReader, Write};
use std::time::{Duration, Instant};

use flotilla_tests::cli::Cli;
use flotilla_tests::proxy::Proxy;
use flotilla_tests::server::Server;
use serde_json::Value;

const SAID: &str = "deleted and created again";
/// What has not happened by then does not happen.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

struct Setting {
    _dir: tempfile::TempDir,
    _server: Server,
    line: Proxy,
    direct: Cli,
    /// Through the line.
    cut_off: Cli,
}

impl Setting {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut server = Server::new(dir.path(), &[]);
        let line = Proxy::start(server.address().parse().unwrap());
        server.add_args(&["--advertise", &line.address().to_string()]);
        server.start();
        let direct = Cli::new(server.address());
        direct.run("topic create t --partitions 1").ok();
        let cut_off = Cli::new(line.address().to_string());
        Self { _dir: dir, _server: server, line, direct, cut_off }
    }

    fn recreate(&self) {
        self.direct.run("topic delete t").ok();
        self.direct.run("topic create t --partitions 1").ok();
    }

    fn end(&self) -> u64 {
        let described: Value = serde_json::from_str(&self.direct.run("topic describe t -o json").ok()).unwrap();
        described["partitions"][0]["high_watermark"].as_u64().unwrap()
    }
}

#[test]
fn a_consumer_ends_with_what_has_happened() {
    let setting = Setting::new();
    setting.direct.input("produce t", b"1\n2\n3\n").ok();
    let mut consuming = setting.cut_off.spawn(&["consume", "t", "--from", "earliest"]);
    let mut read = BufReader::new(consuming.child.stdout.take().unwrap()).lines();
    let old: Vec<String> = read.by_ref().take(3).map(Result::unwrap).collect();
    assert_eq!(old, ["1", "2", "3"]);
    setting.line.break_off();
    setting.recreate();
    // Enough that its old position exists.
    setting.direct.input("produce t", b"a\nb\nc\nd\ne\n").ok();
    setting.line.mend();
    let ended = consuming.finish();
    assert_eq!(ended.code, Some(4), "{}", ended.stderr);
    assert!(ended.stderr.contains(SAID), "{}", ended.stderr);
    assert_eq!(read.map(Result::unwrap).collect::<Vec<_>>(), Vec::<String>::new());
}

/// Whoever is connected meanwhile is told as well.
#[test]
fn a_consumer_that_was_not_cut_off_ends_too() {
    let setting = Setting::new();
    setting.direct.input("produce t", b"1\n").ok();
    let mut consuming = setting.cut_off.spawn(&["consume", "t", "--from", "earliest"]);
    let mut read = BufReader::new(consuming.child.stdout.take().unwrap()).lines();
    assert_eq!(read.next().unwrap().unwrap(), "1");
    setting.recreate();
    let ended = consuming.finish();
    assert!(matches!(ended.code, Some(3 | 4)) && ended.stderr.contains("was deleted"), "{:?} {}", ended.code, ended.stderr);
}

#[test]
fn what_a_producer_has_not_sent_yet_does_not_land_in_the_new_topic() {
    let setting = Setting::new();
    let mut producing = setting.cut_off.spawn(&["produce", "t", "--linger", "0s"]);
    let mut stdin = producing.child.stdin.take().unwrap();
    stdin.write_all(b"1\n2\n3\n").unwrap();
    let began = Instant::now();
    while setting.end() < 3 {
        assert!(began.elapsed() < PATIENCE, "nothing is written");
        std::thread::sleep(POLL_INTERVAL);
    }
    setting.line.break_off();
    // What it takes before it knows might be on its way.
    producing.says("retrying");
    stdin.write_all(b"4\n5\n").unwrap();
    drop(stdin);
    setting.recreate();
    setting.line.mend();
    let ended = producing.finish();
    assert_eq!(ended.code, Some(4), "{}", ended.stderr);
    assert!(ended.stderr.contains(SAID) && ended.stderr.contains("3 records acknowledged"), "{}", ended.stderr);
    assert!(ended.stderr.contains("2 records not written, 0 with unknown outcome"), "{}", ended.stderr);
    assert_eq!(setting.end(), 0);
    // Whoever means the new one can write to it.
    setting.direct.input("produce t", b"new\n").ok();
    assert_eq!(setting.direct.run("consume t --until-end").ok(), "new\n");
}
