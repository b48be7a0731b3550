//! The simulation itself: a seed makes the same run again, planted bugs are found, and a number of seeds pass.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::process::{Command, Output};

use serde_json::Value;

/// How many seeds of what, unless FLOTILLA_SIM_SEEDS and FLOTILLA_SIM_SCENARIO say otherwise.
const SEEDS: u64 = 100;
const SCENARIO: &str = "all";

fn sim(args: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_flotilla-chaos")).arg("sim").args(args.split_whitespace()).output().unwrap()
}

fn outcome(output: &Output) -> Value {
    let (said, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}{wrong}"))
}

/// The trace of a seed.
fn trace(seed: u64) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("trace");
    // Whatever it finds.
    sim(&format!("--seed {seed} --seconds 10 --trace {}", path.display()));
    std::fs::read(path).unwrap()
}

#[test]
fn a_seed_makes_the_same_run_byte_for_byte() {
    let (first, again, other) = (trace(7), trace(7), trace(8));
    assert!(first.len() > 30_000, "only {} bytes", first.len());
    let differs = first.split(|byte| *byte == b'\n').zip(again.split(|byte| *byte == b'\n')).find(|(one, two)| one != two);
    let differs = differs.map(|(one, two)| format!("{}\n{}", String::from_utf8_lossy(one), String::from_utf8_lossy(two)));
    assert!(first == again, "{}", differs.unwrap_or_default());
    assert_ne!(first, other);
}

fn pass(seeds: u64, args: &str) {
    let output = sim(&format!("--seed 1 --seeds {seeds} --jobs 2 {args}"));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn seeds_pass() {
    let seeds = std::env::var("FLOTILLA_SIM_SEEDS").map_or(SEEDS, |seeds| seeds.parse().unwrap());
    let scenario = std::env::var("FLOTILLA_SIM_SCENARIO").unwrap_or_else(|_| SCENARIO.to_owned());
    pass(seeds, &format!("--seconds 6 --scenario {scenario}"));
}

#[test]
fn a_plan_is_run_again_from_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("plan.json");
    let args = format!("--seed 3 --scenario kill --seconds 5 --json --save-plan {}", path.display());
    let (first, again) = (sim(&args), sim(&format!("--plan {} --json", path.display())));
    assert_eq!(outcome(&first), outcome(&again));
}

#[test]
fn a_cluster_forms_whatever_happens_meanwhile() {
    pass(8, "--scenario founding --seconds 8");
    pass(4, "--scenario founding --seconds 10");
}

#[test]
fn replicas_move_while_nodes_and_links_fail() {
    pass(4, "--scenario moves --seconds 15");
}

/// Whether one of the first seeds finds a bug that is planted; and what it says.
fn finds(planted: &str, scenario: &str) -> String {
    for seed in 1..=5 {
        let output = sim(&format!("--seed {seed} --scenario {scenario} --plant {planted} --json"));
        let outcome = outcome(&output);
        if outcome["verdict"] == "fail" {
            assert_eq!(output.status.code(), Some(1));
            return format!("{}{}", outcome["violations"], outcome["findings"]);
        }
    }
    panic!("nothing was found in five seeds");
}

/// Nodes notice most of it themselves, and do not serve: then it does not heal.
#[test]
fn disks_that_lie_about_syncs_are_found() {
    let found = finds("lying-sync", "power");
    assert!(["lost", "unseen", "committed", "still waited"].iter().any(|word| found.contains(word)), "{found}");
}

#[test]
fn nodes_that_forget_are_found() {
    let found = finds("forgetful-node", "power");
    assert!(["lost", "unseen", "committed", "still waited"].iter().any(|word| found.contains(word)), "{found}");
}
