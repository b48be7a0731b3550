//! `flotilla-chaos sim`: whole clusters in one process.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use flotilla_chaos::report::Verdict;
use flotilla_chaos::sim::{self, Options, Outcome, Planted, Scenario};

use super::CliError;

/// Arguments of `flotilla-chaos sim`.
#[derive(Debug, clap::Args)]
pub(super) struct SimArgs {
    /// Makes the same run again; the first of several
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// How many seeds to run, one after the other, each in a process of its own
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..), value_name = "N")]
    seeds: u64,
    /// Which faults
    #[arg(long, value_enum, default_value = "all", value_name = "SCENARIO")]
    scenario: Scenario,
    /// Nodes [default: 3; 5 where replicas move]
    #[arg(long, value_parser = clap::value_parser!(u64).range(2..=9), value_name = "N")]
    nodes: Option<u64>,
    /// Partitions of the topic
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100), value_name = "N")]
    partitions: u32,
    /// How long there are faults, in simulated time
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3_600), value_name = "N")]
    seconds: u64,
    /// Where to write everything that happened: the same bytes for the same seed
    #[arg(long, value_name = "FILE", conflicts_with = "seeds")]
    trace: Option<PathBuf>,
    /// Print the outcome as JSON
    #[arg(long)]
    json: bool,
    /// A bug to plant, which the simulation must find
    #[arg(long, value_enum, value_name = "BUG", hide = true)]
    plant: Option<Planted>,
}

impl SimArgs {
    fn nodes(&self) -> u64 {
        self.nodes.unwrap_or(if self.scenario == Scenario::Moves { 5 } else { 3 })
    }
}

/// Runs, prints what came of it, and says which code to end with.
pub(super) fn run(args: SimArgs) -> Result<u8, CliError> {
    if args.seeds > 1 { several(&args) } else { one(&args) }
}

/// One simulation. On a thread of its own, so that nothing was done there before.
fn one(args: &SimArgs) -> Result<u8, CliError> {
    let options = Options {
        seed: args.seed,
        scenario: args.scenario,
        nodes: args.nodes(),
        partitions: args.partitions,
        duration: Duration::from_secs(args.seconds),
        planted: args.plant,
    };
    let dir = tempfile::Builder::new().prefix("flotilla-sim-").tempdir();
    let dir = dir.map_err(|error| CliError::Io(format!("no temporary directory: {error}")))?;
    let (began, path) = (Instant::now(), dir.path().to_owned());
    let ran = thread::spawn(move || sim::run(&options, &path)).join();
    let ran = ran.map_err(|_| CliError::Simulation("it panicked".to_owned()))?;
    let (outcome, trace) = ran.map_err(CliError::Simulation)?;
    if let Some(path) = &args.trace {
        std::fs::write(path, &trace).map_err(|error| CliError::Io(format!("{}: {error}", path.display())))?;
    }
    print(&if args.json { json(&outcome)? } else { text(&outcome, trace.len(), began.elapsed()) })?;
    Ok(code(outcome.verdict))
}

/// Several: whatever one leaves behind in its process, the next one does not find it.
fn several(args: &SimArgs) -> Result<u8, CliError> {
    let program = std::env::current_exe().map_err(|error| CliError::Io(format!("this program's path: {error}")))?;
    let mut failed = Vec::new();
    for seed in args.seed..args.seed.saturating_add(args.seeds) {
        if run_apart(&program, args, seed)? != 0 {
            failed.push(seed);
        }
    }
    let passed = args.seeds - failed.len() as u64;
    print(&if failed.is_empty() {
        format!("{passed} seeds passed\n")
    } else {
        format!("{passed} seeds passed, these did not: {failed:?}; each is run again with --seed\n")
    })?;
    Ok(code(if failed.is_empty() { Verdict::Pass } else { Verdict::Fail }))
}

fn run_apart(program: &Path, args: &SimArgs, seed: u64) -> Result<i32, CliError> {
    let mut command = Command::new(program);
    command.args(["sim", "--seed", &seed.to_string()]);
    command.args(["--scenario", &value(args.scenario)]);
    command.args(["--nodes", &args.nodes().to_string(), "--partitions", &args.partitions.to_string()]);
    command.args(["--seconds", &args.seconds.to_string()]);
    command.args(args.json.then_some("--json"));
    if let Some(planted) = args.plant {
        command.args(["--plant", &value(planted)]);
    }
    let ended = command.stdin(Stdio::null()).status();
    let ended = ended.map_err(|error| CliError::Io(format!("{}: {error}", program.display())))?;
    Ok(ended.code().unwrap_or(-1))
}

/// A choice as it is written on the command line.
fn value(choice: impl clap::ValueEnum) -> String {
    choice.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

fn code(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Pass => 0,
        Verdict::Fail => 1,
        Verdict::Void => 3,
    }
}

fn json(outcome: &Outcome) -> Result<String, CliError> {
    let json = serde_json::to_string(outcome).map_err(|error| CliError::Io(error.to_string()))?;
    Ok(format!("{json}\n"))
}

fn text(outcome: &Outcome, trace_bytes: usize, took: Duration) -> String {
    let Outcome { seed, scenario, verdict, records, faults, leader_changes, snapshots, .. } = outcome;
    let verdict = format!("{verdict:?}").to_lowercase();
    let mut text = format!(
        "seed {seed}, {}: {verdict}; {} acknowledged, {} unknown, {} failed; {faults} faults, {leader_changes} leader changes, {snapshots} \
         snapshots, {} entries committed; trace {:08x}, {trace_bytes} bytes; {:.1} s simulated in {:.1} s\n",
        value(*scenario),
        records.ok,
        records.info,
        records.fail,
        outcome.committed,
        outcome.trace_checksum,
        outcome.simulated_ms as f64 / 1_000.0,
        took.as_secs_f64(),
    );
    let found = outcome.findings.iter().flat_map(|finding| {
        finding.examples.iter().map(move |example| format!("{} ({} times): {example}", finding.checker, finding.violations))
    });
    let lines = outcome.violations.iter().cloned().chain(found).chain(outcome.void_because.iter().cloned());
    lines.for_each(|line| text.push_str(&format!("  {line}\n")));
    text
}

fn print(text: &str) -> Result<(), CliError> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CliError::Io(format!("stdout: {error}"))),
        _ => Ok(()),
    }
}
