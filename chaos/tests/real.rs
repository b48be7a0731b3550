//! The program itself, on real processes: small runs that show that it does harm, reads everything, and says what it saw.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// The workspace's build puts the binary beside the folder of the test binaries.
fn chaos(args: &[&str]) -> Output {
    let flotilla = Path::new(env!("CARGO_BIN_EXE_flotilla-chaos")).with_file_name("flotilla");
    assert!(flotilla.is_file(), "{} is missing: build it with `cargo build --release --workspace`", flotilla.display());
    Command::new(env!("CARGO_BIN_EXE_flotilla-chaos")).arg("run").args(args).output().unwrap()
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn a_single_node_survives_what_a_single_node_can() {
    let dir = tempfile::tempdir().unwrap();
    let kept = dir.path().join("run");
    let args = "--nodes 1 --partitions 3 --seconds 8 --every 2s --down 500ms --fault kill,stop,all-kill --seed 7 -o json --dir";
    let mut args: Vec<&str> = args.split(' ').collect();
    args.push(kept.to_str().unwrap());
    let output = chaos(&args);
    let report = report(&output);
    assert_eq!(output.status.code(), Some(0), "{report:#}");
    assert_eq!(report["verdict"], "pass");
    let faults: Vec<&str> =
        report["strikes"].as_array().unwrap().iter().map(|struck| struck["fault"].as_str().unwrap()).collect();
    assert_eq!(faults, ["kill", "stop", "all-kill"]);
    for struck in report["strikes"].as_array().unwrap() {
        assert!(struck["pause_ms"].as_f64().unwrap() >= 500.0, "the only node was away: {struck}");
    }
    assert_eq!(report["pauses"]["count"], 3);
    assert!(report["records"]["ok"].as_u64().unwrap() > 1_000);
    assert_eq!(report["records"]["info"], 0, "with retries everything is known in the end");
    let history = std::fs::read_to_string(kept.join("history.jsonl")).unwrap();
    let acknowledged = history.lines().filter(|line| line.contains(r#""outcome":{"ok":"#)).count() as u64;
    assert_eq!(Some(acknowledged), report["records"]["ok"].as_u64());
    assert!(kept.join("node-1.log").is_file());
}

/// `FLOTILLA_CHAOS_SECONDS` (60): three nodes, whatever this machine can do to them, in an order that is another each time.
#[test]
fn three_nodes_survive_a_mix_of_everything() {
    let seconds = std::env::var("FLOTILLA_CHAOS_SECONDS").unwrap_or_else(|_| "60".to_owned());
    let output = chaos(&["--fault", "mix", "--seconds", &seconds, "--every", "8s", "--down", "3s", "-o", "json"]);
    let report = report(&output);
    assert_eq!(output.status.code(), Some(0), "{report:#}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(!report["strikes"].as_array().unwrap().is_empty());
}

#[test]
fn what_makes_no_sense_is_refused() {
    for args in [&["--nodes", "2", "--replication-factor", "3"][..], &["--every", "1s", "--down", "2s"], &["--fault", "rain"]] {
        let output = chaos(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty());
    }
    let output = chaos(&["--flotilla", "/nowhere/flotilla", "--nodes", "1"]);
    assert_eq!(output.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nowhere/flotilla"));
}
