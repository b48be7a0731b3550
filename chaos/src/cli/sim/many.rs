//! Several simulations, each in a process of its own: whatever one leaves behind, the next one does not find it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use flotilla_chaos::report::Verdict;
use flotilla_chaos::sim::{self, Outcome, Plan};

use super::{SimArgs, save, text, value};
use crate::cli::{CliError, code, print};

/// Runs all the seeds that were asked for.
pub(super) fn seeds(args: &SimArgs) -> Result<u8, CliError> {
    let (next, end) = (AtomicU64::new(args.seed), args.seed.saturating_add(args.seeds));
    let (tell, told) = mpsc::sync_channel(1);
    let mut total = Total::default();
    let began = Instant::now();
    thread::scope(|scope| {
        for _ in 0..args.jobs.min(args.seeds) {
            let (tell, next) = (tell.clone(), &next);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let began = Instant::now();
                    if seed >= end || tell.send((seed, apart(&of_seed(args, seed), &[]), began.elapsed())).is_err() {
                        return;
                    }
                }
            });
        }
        drop(tell);
        told.iter().try_for_each(|(seed, ran, took)| total.take(args, seed, ran, took))
    })?;
    print(&total.text(began.elapsed()))?;
    Ok(code(if total.failed.is_empty() { Verdict::Pass } else { Verdict::Fail }))
}

/// What came of all of them.
#[derive(Default)]
struct Total {
    passed: u64,
    failed: BTreeSet<u64>,
    acked: u64,
    faults: u64,
    reconfigurations: usize,
    snapshots: u64,
    simulated_ms: u64,
}

impl Total {
    fn take(&mut self, args: &SimArgs, seed: u64, ran: Result<Outcome, CliError>, took: Duration) -> Result<(), CliError> {
        match ran {
            Ok(outcome) => {
                self.acked += outcome.records.ok;
                self.faults += outcome.faults;
                self.reconfigurations += outcome.reconfigurations;
                self.snapshots += outcome.snapshots;
                self.simulated_ms += outcome.simulated_ms;
                // A run in which too little happened says nothing, and is no failure of what was run.
                match outcome.verdict {
                    Verdict::Pass => self.passed += 1,
                    Verdict::Fail => drop(self.failed.insert(seed)),
                    Verdict::Void => {}
                }
                print(&if args.json { super::json(&outcome)? } else { text::outcome(&outcome, took) })
            }
            Err(error) => {
                self.failed.insert(seed);
                print(&format!("seed {seed}: {error}\n"))
            }
        }
    }

    fn text(&self, took: Duration) -> String {
        let Self { passed, failed, acked, faults, reconfigurations, snapshots, .. } = self;
        let simulated = self.simulated_ms as f64 / 1_000.0;
        let sum = format!(
            "{acked} records acknowledged, {faults} faults, {reconfigurations} reconfigurations, {snapshots} snapshots; {simulated:.0} s \
             simulated in {:.0} s\n",
            took.as_secs_f64()
        );
        match failed.is_empty() {
            true => format!("{passed} seeds passed; {sum}"),
            false => format!("{passed} seeds passed, these did not: {failed:?}; each is run again with --seed\n{sum}"),
        }
    }
}

/// Cuts a plan down, prints and saves what is left.
pub(super) fn shrink(args: &SimArgs, plan: &Plan) -> Result<u8, CliError> {
    let dir = tempfile::Builder::new().prefix("flotilla-shrink-").tempdir();
    let dir = dir.map_err(|error| CliError::Io(format!("no temporary directory: {error}")))?;
    let outcome = of_plan(args, plan, &dir.path().join("0"))?;
    let signs = signs(&outcome);
    if outcome.verdict != Verdict::Fail {
        print(&format!("seed {} breaks no promise: there is nothing to shrink\n", plan.seed))?;
        return Ok(code(outcome.verdict));
    }
    print(&text::outcome(&outcome, Duration::ZERO))?;
    let jobs = usize::try_from(args.jobs).unwrap_or(1);
    let mut broken = |plans: &[Plan]| {
        eprintln!("{} faults, {} plans to try", plans.first().map_or(0, |plan| plan.faults.len()), plans.len());
        plans.chunks(jobs).enumerate().find_map(|(round, together)| {
            let tried = thread::scope(|scope| {
                let spawned: Vec<_> = (0..)
                    .zip(together)
                    .map(|(number, plan)| {
                        let path = dir.path().join(format!("{number}"));
                        scope.spawn(move || of_plan(args, plan, &path))
                    })
                    .collect();
                spawned.into_iter().map(|run| run.join().ok()).collect::<Vec<_>>()
            });
            let same = |ran: Option<Result<Outcome, CliError>>| {
                ran.and_then(Result::ok).is_some_and(|outcome| !self::signs(&outcome).is_disjoint(&signs))
            };
            let found = tried.into_iter().position(same)?;
            Some(round * jobs + found)
        })
    };
    let small = sim::shrink::shrink(plan, &mut broken);
    let path = PathBuf::from(format!("seed-{}.plan.json", plan.seed));
    save(&small, &path)?;
    let outcome = of_plan(args, &small, &dir.path().join("0"))?;
    print(&text::outcome(&outcome, Duration::ZERO))?;
    print(&format!("{}run it again with: flotilla-chaos sim --plan {}\n", text::plan(&small), path.display()))?;
    Ok(code(Verdict::Fail))
}

/// What was broken, without numbers: two runs with a sign in common broke the same promise.
fn signs(outcome: &Outcome) -> BTreeSet<String> {
    let words = |text: &String| text.chars().filter(|letter| !letter.is_ascii_digit()).take(60).collect();
    let found = outcome.findings.iter().map(|finding| finding.checker.clone());
    outcome.violations.iter().map(words).chain(found).collect()
}

fn of_seed(args: &SimArgs, seed: u64) -> Vec<String> {
    let mut line = vec!["--seed".to_owned(), seed.to_string(), "--scenario".to_owned(), value(args.scenario)];
    let given = [
        ("--nodes", args.nodes.map(|nodes| nodes.to_string())),
        ("--partitions", args.partitions.map(|partitions| partitions.to_string())),
        ("--seconds", args.seconds.map(|seconds| seconds.to_string())),
        ("--plant", args.plant.map(value)),
    ];
    line.extend(given.into_iter().filter_map(|(name, value)| Some([name.to_owned(), value?])).flatten());
    line
}

fn of_plan(args: &SimArgs, plan: &Plan, path: &Path) -> Result<Outcome, CliError> {
    save(plan, path)?;
    let mut line = vec!["--plan".to_owned(), path.display().to_string()];
    line.extend(args.plant.map(|planted| [String::from("--plant"), value(planted)]).into_iter().flatten());
    apart(&line, &[])
}

/// Runs a simulation in a process of its own, which has these variables in addition.
pub(in crate::cli) fn apart(line: &[String], variables: &[(&str, &str)]) -> Result<Outcome, CliError> {
    let program = std::env::current_exe().map_err(|error| CliError::Io(format!("this program's path: {error}")))?;
    let mut command = Command::new(&program);
    command.args(["sim", "--json"]).args(line).envs(variables.iter().copied());
    let ended = command.stdin(Stdio::null()).output();
    let ended = ended.map_err(|error| CliError::Io(format!("{}: {error}", program.display())))?;
    serde_json::from_slice(&ended.stdout).map_err(|_| {
        let said = String::from_utf8_lossy(&ended.stderr);
        let last: Vec<&str> = said.lines().rev().take(3).collect();
        CliError::Simulation(last.join("; "))
    })
}
