//! A report for people.

use std::fmt::Write as _;

use super::{Pauses, Report, Verdict, ms};

pub(super) fn render(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = figures(report, &mut text);
    let _ = findings(report, &mut text);
    text
}

fn figures(report: &Report, to: &mut String) -> std::fmt::Result {
    let (plan, records) = (&report.plan, &report.records);
    writeln!(
        to,
        "{} nodes, {} partitions, replication {}, {} records/s for {} s, seed {}",
        plan.nodes, plan.partitions, plan.replication_factor, plan.rate, plan.seconds, plan.seed
    )?;
    writeln!(
        to,
        "records          {} acknowledged ({:.0}/s), {} failed, {} unknown; {} read",
        records.ok, report.acked_per_second, records.fail, records.info, report.records_read
    )?;
    writeln!(to, "leader changes   {}", report.leader_changes)?;
    for struck in &report.strikes {
        let strike = &struck.strike;
        let ready = strike
            .ready_at
            .map_or_else(|| "never ready again".to_owned(), |at| format!("ready {:.1} s later", seconds(at - strike.at)));
        writeln!(
            to,
            "{:>7.1} s  {:?} of {:?}, {ready}: nothing acknowledged for {:.0} ms, by one partition for {:.0} ms",
            seconds(strike.at),
            strike.fault,
            strike.nodes,
            struck.pause_ms,
            struck.partition_pause_ms
        )?;
    }
    writeln!(to, "pause            {} (calm: {:.0} ms)", pauses(&report.pauses), report.calm_ms[0])?;
    writeln!(to, "partition pause  {} (calm: {:.0} ms)", pauses(&report.partition_pauses), report.calm_ms[1])
}

fn findings(report: &Report, to: &mut String) -> std::fmt::Result {
    for finding in report.findings.iter().filter(|finding| finding.violations > 0) {
        writeln!(to, "VIOLATED {}: {} times", finding.checker, finding.violations)?;
        for example in &finding.examples {
            writeln!(to, "  {example}")?;
        }
    }
    for incident in &report.incidents {
        writeln!(to, "INCIDENT {incident}")?;
    }
    for reason in &report.void_because {
        writeln!(to, "VOID {reason}")?;
    }
    if report.client_errors > 0 {
        writeln!(to, "{} errors reached the clients' application, such as:", report.client_errors)?;
        for example in report.client_error_examples.iter().take(5) {
            writeln!(to, "  {example}")?;
        }
    }
    if let Some(kept) = &report.kept {
        writeln!(to, "kept: {kept}")?;
    }
    let verdict = match report.verdict {
        Verdict::Pass => "pass: every promise held",
        Verdict::Fail => "FAIL",
        Verdict::Void => "VOID: too little happened to say anything",
    };
    writeln!(to, "{verdict}")
}

fn pauses(pauses: &Pauses) -> String {
    format!("median {:.0} ms, longest {:.0} ms of {}", pauses.median_ms, pauses.max_ms, pauses.count)
}

fn seconds(micros: u64) -> f64 {
    ms(micros) / 1_000.0
}
