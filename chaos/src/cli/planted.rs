//! `flotilla-chaos planted`: plants one bug after the other and shows that the simulation finds each.

use std::time::{Duration, Instant};

use flotilla_chaos::report::Verdict;
use flotilla_chaos::sim::{Outcome, Scenario};
use flotilla_raft::planted::{Bug, VARIABLE};

use super::sim::{apart, value};
use super::{CliError, code, print};

/// What is tried for each bug, in turn, with one seed after the other.
const SCENARIOS: [Scenario; 5] = [Scenario::All, Scenario::Power, Scenario::Moves, Scenario::Kill, Scenario::Partition];

/// Arguments of `flotilla-chaos planted`.
#[derive(Debug, clap::Args)]
pub(super) struct PlantedArgs {
    /// Only this one
    #[arg(long, value_name = "NAME")]
    bug: Option<String>,
    /// How long to look for each
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    patience: u64,
}

/// How a bug was found.
struct Found {
    scenario: Scenario,
    seed: u64,
    runs: u64,
    sign: String,
}

/// Plants, looks, and says which code to end with.
pub(super) fn run(args: &PlantedArgs) -> Result<u8, CliError> {
    let wanted = |name: &str| args.bug.as_ref().is_none_or(|bug| bug == name);
    let bugs: Vec<&str> = Bug::ALL.into_iter().map(|(_, name)| name).filter(|name| wanted(name)).collect();
    if bugs.is_empty() {
        return Err(CliError::Usage("there is no such bug".to_owned()));
    }
    let mut missed = 0;
    for name in bugs {
        let began = Instant::now();
        let found = look(name, Duration::from_secs(args.patience))?;
        let took = began.elapsed().as_secs();
        missed += u32::from(found.is_none());
        print(&match found {
            Some(Found { scenario, seed, runs, sign }) => {
                format!("| {name} | sim --seed {seed} --scenario {} | {runs} | {took} s | {sign} |\n", value(scenario))
            }
            None => format!("| {name} | not found | | {took} s | |\n"),
        })?;
    }
    Ok(code(if missed == 0 { Verdict::Pass } else { Verdict::Fail }))
}

fn look(name: &str, patience: Duration) -> Result<Option<Found>, CliError> {
    let began = Instant::now();
    for (runs, (seed, scenario)) in (1..).zip((1..).flat_map(|seed| SCENARIOS.map(|scenario| (seed, scenario)))) {
        if began.elapsed() > patience {
            break;
        }
        let line = ["--seed".to_owned(), seed.to_string(), "--scenario".to_owned(), value(scenario)];
        let sick = apart(&line, &[(VARIABLE, name)])?;
        // What breaks without the bug, too, does not show it.
        if sick.verdict == Verdict::Fail && apart(&line, &[])?.verdict != Verdict::Fail {
            return Ok(Some(Found { scenario, seed, runs, sign: sign(&sick) }));
        }
    }
    Ok(None)
}

/// What was found first.
fn sign(outcome: &Outcome) -> String {
    let checkers = outcome.findings.iter().map(|finding| finding.checker.clone());
    outcome.violations.iter().cloned().chain(checkers).next().unwrap_or_default()
}
