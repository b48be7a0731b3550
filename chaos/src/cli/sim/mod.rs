//! `flotilla-chaos sim`: whole clusters in one process.

mod many;
mod text;

use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use flotilla_chaos::history::History;
use flotilla_chaos::sim::{self, Given, Outcome, Plan, Planted, Ran, Scenario};

use super::{CliError, code, print};
#[cfg(feature = "planted")]
pub(super) use many::apart;

/// Arguments of `flotilla-chaos sim`.
#[derive(Debug, clap::Args)]
pub(super) struct SimArgs {
    /// Makes the same run again; the first of several
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// How many seeds to run, each in a process of its own
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..), value_name = "N")]
    seeds: u64,
    /// How many of them at the same time
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=64), value_name = "N")]
    jobs: u64,
    /// Which faults
    #[arg(long, value_enum, default_value = "all", value_name = "SCENARIO")]
    scenario: Scenario,
    /// Nodes [default: 3 to 5, by the seed; in scenarios of one kind 5 where replicas move, 4 where data is damaged, else 3]
    #[arg(long, value_parser = clap::value_parser!(u64).range(2..=9), value_name = "N")]
    nodes: Option<u64>,
    /// Partitions of the replicated topic [default: by the seed; 3 in the scenarios of one kind]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100), value_name = "N")]
    partitions: Option<u32>,
    /// How long there are faults, in simulated time [default: by the seed; 30 in the scenarios of one kind]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=3_600), value_name = "N")]
    seconds: Option<u64>,
    /// Run this plan, and not what follows from a seed
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seed", "seeds", "scenario", "nodes", "partitions", "seconds"])]
    plan: Option<PathBuf>,
    /// Write the plan
    #[arg(long, value_name = "FILE", conflicts_with = "seeds")]
    save_plan: Option<PathBuf>,
    /// Cut the plan down to what still breaks a promise, and write it to seed-N.plan.json
    #[arg(long, conflicts_with_all = ["seeds", "trace"])]
    shrink: bool,
    /// Where to write everything that happened: the same bytes for the same seed
    #[arg(long, value_name = "FILE", conflicts_with = "seeds")]
    trace: Option<PathBuf>,
    /// Where to write what clients were told: see README.md
    #[arg(long, value_name = "FILE", conflicts_with = "seeds")]
    history: Option<PathBuf>,
    /// Print the outcome as JSON
    #[arg(long)]
    json: bool,
    /// A bug to plant, which the simulation must find
    #[arg(long, value_enum, value_name = "BUG", hide = true)]
    plant: Option<Planted>,
}

impl SimArgs {
    fn plan(&self, seed: u64) -> Result<Plan, CliError> {
        match &self.plan {
            Some(path) => {
                let text = std::fs::read(path).map_err(|error| CliError::Io(format!("{}: {error}", path.display())))?;
                serde_json::from_slice(&text).map_err(|error| CliError::Usage(format!("{} is no plan: {error}", path.display())))
            }
            None => {
                let duration = self.seconds.map(Duration::from_secs);
                Ok(Plan::of(seed, self.scenario, &Given { nodes: self.nodes, partitions: self.partitions, duration }))
            }
        }
    }
}

/// Runs, prints what came of it, and says which code to end with.
pub(super) fn run(args: &SimArgs) -> Result<u8, CliError> {
    let plan = args.plan(args.seed)?;
    if let Some(path) = &args.save_plan {
        save(&plan, path)?;
    }
    match args {
        SimArgs { shrink: true, .. } => many::shrink(args, &plan),
        SimArgs { seeds: 2.., .. } => many::seeds(args),
        _ => one(args, plan),
    }
}

/// One simulation. On a thread of its own, so that nothing was done there before.
fn one(args: &SimArgs, plan: Plan) -> Result<u8, CliError> {
    let dir = tempfile::Builder::new().prefix("flotilla-sim-").tempdir();
    let dir = dir.map_err(|error| CliError::Io(format!("no temporary directory: {error}")))?;
    let (began, path, planted) = (Instant::now(), dir.path().to_owned(), args.plant);
    let ran = thread::spawn(move || sim::run(&plan, planted, &path)).join();
    let ran = ran.map_err(|_| CliError::Simulation("it panicked".to_owned()))?;
    let Ran { outcome, trace, history } = ran.map_err(CliError::Simulation)?;
    if let Some(path) = &args.trace {
        std::fs::write(path, &trace).map_err(|error| CliError::Io(format!("{}: {error}", path.display())))?;
    }
    if let Some(path) = &args.history {
        write_history(&history, path).map_err(|error| CliError::Io(format!("{}: {error}", path.display())))?;
    }
    print(&if args.json { json(&outcome)? } else { text::outcome(&outcome, began.elapsed()) })?;
    Ok(code(outcome.verdict))
}

fn write_history(history: &History, path: &Path) -> std::io::Result<()> {
    history.write_json(BufWriter::new(std::fs::File::create(path)?))
}

fn save(plan: &Plan, path: &Path) -> Result<(), CliError> {
    let text = serde_json::to_string_pretty(plan).map_err(|error| CliError::Io(error.to_string()))?;
    std::fs::write(path, text).map_err(|error| CliError::Io(format!("{}: {error}", path.display())))
}

/// A choice as it is written on the command line.
pub(super) fn value(choice: impl clap::ValueEnum) -> String {
    choice.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

fn json(outcome: &Outcome) -> Result<String, CliError> {
    let json = serde_json::to_string(outcome).map_err(|error| CliError::Io(error.to_string()))?;
    Ok(format!("{json}\n"))
}
