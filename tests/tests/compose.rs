//! Three nodes in containers, as deploy/compose.yaml starts them: killed and stopped under load, nothing is lost.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::io::Write;
use std::process::ChildStdin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use flotilla_tests::cli::Cli;
use flotilla_tests::compose::{Compose, NODES};

const PARTITIONS: usize = 3;
/// Lines between two faults, at least.
const LINES_BETWEEN: u64 = 5_000;
/// Lines written at once, and then a breath: this is about surviving, not about speed.
const LINES_AT_ONCE: u64 = 50;
const BREATH: std::time::Duration = std::time::Duration::from_millis(5);

#[test]
fn containers_are_killed_and_stopped_under_load_and_nothing_is_lost() {
    let compose = match Compose::start() {
        Ok(compose) => compose,
        Err(missing) => {
            eprintln!("SKIPPED: {missing}");
            return;
        }
    };
    (1..=NODES).for_each(|node| compose.wait_healthy(node));
    let cli = Cli::new(compose.addresses());
    cli.run(&format!("topic create lines --partitions {PARTITIONS} --replication-factor 3")).ok();

    let mut producing = cli.spawn(&["produce", "lines", "--linger", "1ms", "-o", "json"]);
    let (written, enough) = (AtomicU64::new(0), AtomicBool::new(false));
    let stdin = producing.child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| write_lines(stdin, &written, &enough));
        let more_lines = || {
            let from = written.load(Ordering::Relaxed);
            while written.load(Ordering::Relaxed) < from + LINES_BETWEEN {
                std::thread::sleep(BREATH);
            }
        };
        for node in 1..=NODES {
            more_lines();
            compose.kill(node);
            more_lines();
            compose.restart(node);
            compose.wait_healthy(node);
        }
        more_lines();
        assert_eq!(compose.stop(1), 0, "the stop signal ends it cleanly");
        more_lines();
        compose.restart(1);
        compose.wait_healthy(1);
        enough.store(true, Ordering::Relaxed);
    });
    let report: serde_json::Value = serde_json::from_str(&producing.finish().ok()).unwrap();
    let written = written.into_inner();
    assert_eq!(report["acked_records"], written, "every line is acknowledged");
    println!("{written} lines, longest pause {} ms", report["longest_pause_ms"]);

    let read = cli.args(&["consume", "lines", "--from", "earliest", "--until-end", "--format", "%p %v\\n"], b"").ok();
    let mut partitions = vec![Vec::new(); PARTITIONS];
    for line in read.lines() {
        let (partition, number) = line.split_once(' ').unwrap();
        partitions[partition.parse::<usize>().unwrap()].push(number.parse::<u64>().unwrap());
    }
    for (partition, numbers) in partitions.iter().enumerate() {
        assert!(numbers.is_sorted_by(|a, b| a < b), "partition {partition} is out of order");
    }
    let mut all = partitions.concat();
    all.sort_unstable();
    assert!(all.iter().copied().eq(0..written), "{} of {written} lines are there, each once", all.len());
}

/// Numbers, one a line, until it is enough.
fn write_lines(mut stdin: ChildStdin, written: &AtomicU64, enough: &AtomicBool) {
    while !enough.load(Ordering::Relaxed) {
        let from = written.load(Ordering::Relaxed);
        let lines: String = (from..from + LINES_AT_ONCE).map(|number| format!("{number}\n")).collect();
        stdin.write_all(lines.as_bytes()).unwrap();
        written.store(from + LINES_AT_ONCE, Ordering::Relaxed);
        std::thread::sleep(BREATH);
    }
}
