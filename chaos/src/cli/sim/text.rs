//! Outcomes and plans for people.

use std::time::Duration;

use flotilla_chaos::sim::{Outcome, Plan};

use super::value;

pub(super) fn outcome(outcome: &Outcome, took: Duration) -> String {
    let Outcome { seed, scenario, nodes, verdict, records, faults, disk_errors, leader_changes, .. } = outcome;
    let verdict = format!("{verdict:?}").to_lowercase();
    let mut text = format!(
        "seed {seed}, {} on {nodes} nodes: {verdict}; {} acknowledged, {} unknown, {} failed; {faults} faults, {disk_errors} disk errors, \
         {leader_changes} leader changes, {} reconfigurations, {} snapshots, {} entries committed; trace {:08x}; {:.1} s simulated in \
         {:.1} s\n",
        value(*scenario),
        records.ok,
        records.info,
        records.fail,
        outcome.reconfigurations,
        outcome.snapshots,
        outcome.committed,
        outcome.trace_checksum,
        outcome.simulated_ms as f64 / 1_000.0,
        took.as_secs_f64(),
    );
    broken(outcome).chain(outcome.void_because.iter().cloned()).for_each(|line| text.push_str(&format!("  {line}\n")));
    text
}

/// What was found, in words.
pub(super) fn broken(outcome: &Outcome) -> impl Iterator<Item = String> + '_ {
    let found = outcome.findings.iter().flat_map(|finding| {
        finding.examples.iter().map(move |example| format!("{} ({} times): {example}", finding.checker, finding.violations))
    });
    outcome.violations.iter().cloned().chain(found)
}

pub(super) fn plan(plan: &Plan) -> String {
    let mut text = String::new();
    for planned in &plan.faults {
        let (at, lasts) = (planned.at_ms as f64 / 1_000.0, planned.lasts_ms as f64 / 1_000.0);
        text.push_str(&format!("{at:>8.3} s, {lasts:.3} s long: {:?}\n", planned.fault));
    }
    if plan.power_fails_at_end {
        text.push_str("  at the end: the power of all nodes fails\n");
    }
    text
}
