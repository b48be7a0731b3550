//! `flotilla-chaos run`: real processes on this machine.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::ValueEnum;
use flotilla_chaos::cluster::{ClusterOptions, Lan, can_cut_power};
use flotilla_chaos::fault::Fault;
use flotilla_chaos::history::History;
use flotilla_chaos::report::{Report, Verdict};
use flotilla_chaos::run::{self, RunOptions};
use flotilla_chaos::workload::WorkloadOptions;

use super::place::Place;
use super::{CliError, beside, seconds};

const TOPIC: &str = "chaos";
/// The smallest journal, and segments that are closed often.
const SERVER_ARGS: [&str; 4] = ["--journal-bytes", "128MiB", "--segment-bytes", "4MiB"];

/// How a report is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people
    Text,
    /// JSON
    Json,
}

/// Arguments of `flotilla-chaos run`.
#[derive(Debug, clap::Args)]
pub(super) struct RunArgs {
    /// The flotilla binary [default: the one beside this program]
    #[arg(long, value_name = "PATH")]
    flotilla: Option<PathBuf>,
    /// Nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=9), value_name = "N")]
    nodes: u64,
    /// Partitions of the topic
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=10_000), value_name = "N")]
    partitions: u32,
    /// Replicas of each partition [default: 3, or as many as there are nodes]
    #[arg(long, value_name = "N")]
    replication_factor: Option<u32>,
    /// How long to write
    #[arg(long, default_value_t = 60, value_name = "N")]
    seconds: u64,
    /// What to do to nodes; several take turns
    #[arg(long, value_enum, value_delimiter = ',', default_value = "kill", value_name = "FAULT")]
    fault: Vec<Fault>,
    /// From one fault to the next
    #[arg(long, default_value = "10s", value_parser = seconds, value_name = "DURATION")]
    every: Duration,
    /// From a fault to its undoing
    #[arg(long, default_value = "5s", value_parser = seconds, value_name = "DURATION")]
    down: Duration,
    /// Records a second, all producers together
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    rate: u32,
    /// Bytes of a record's value
    #[arg(long, default_value_t = 100, value_name = "N")]
    record_bytes: u32,
    /// Producers
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000), value_name = "N")]
    producers: u32,
    /// Readers
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=1_000), value_name = "N")]
    readers: u32,
    /// How long a producer tries before it gives a record up
    #[arg(long, default_value = "60s", value_parser = seconds, value_name = "DURATION")]
    delivery_timeout: Duration,
    /// Makes the same decisions again [default: another one each time]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Where to put data and logs; they stay [default: a temporary directory, which stays only if something is wrong]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// How the report is printed
    #[arg(short, long, value_enum, default_value = "text", value_name = "FORMAT")]
    output: Output,
    /// Further arguments of each `flotilla server`, behind --
    #[arg(last = true, value_name = "ARG")]
    server_args: Vec<String>,
}

/// Runs, prints the report, and says which code to end with.
pub(super) async fn run(args: RunArgs) -> Result<u8, CliError> {
    let output = args.output;
    let place = Place::new(args.dir.as_deref())?;
    let given = args.dir.is_some();
    let mut options = args.options(place.path())?;
    possible(&mut options)?;
    eprintln!("seed {}, directory {}", options.seed, place.path().display());
    let interrupted = async {
        // Without a handler there is no Ctrl-C to wait for; the default one ends the process.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let mut say = |line: String| eprintln!("{line}");
    let (mut report, history) = tokio::select! {
        report = run::run(options, &mut say) => report?,
        () = interrupted => return Err(CliError::Io("interrupted".to_owned())),
    };
    if report.verdict != Verdict::Pass || given {
        write_history(place.path(), &history)?;
        report.kept = Some(place.keep().display().to_string());
    }
    print(output, &report)?;
    Ok(match report.verdict {
        Verdict::Pass => 0,
        Verdict::Fail => 1,
        Verdict::Void => 3,
    })
}

/// Makes what the faults need, and leaves out those for which this machine lacks something, with words.
fn possible(options: &mut RunOptions) -> Result<(), CliError> {
    let wants = |needs: fn(Fault) -> bool| options.faults.iter().any(|fault| *fault == Fault::Mix || needs(*fault));
    let skipped = |what: &str, why: String| eprintln!("skipped: {what}: {why}");
    if wants(Fault::cuts) {
        match Lan::make() {
            Ok(lan) => options.cluster.network = Some(Arc::new(lan)),
            Err(why) => skipped("faults of the network, which need root and the command ip", why),
        }
    }
    if wants(Fault::cuts_power) {
        match can_cut_power(&options.cluster.dir) {
            Ok(()) => options.cluster.own_disks = true,
            Err(why) => skipped("power cuts, which need root and loop devices", why),
        }
    }
    let (cuts, power) = (options.cluster.network.is_some(), options.cluster.own_disks);
    options.faults.retain(|fault| (cuts || !fault.cuts()) && (power || !fault.cuts_power()));
    if options.faults.is_empty() {
        return Err(CliError::Io("none of these faults can be done on this machine".to_owned()));
    }
    Ok(())
}

impl RunArgs {
    fn options(self, dir: &Path) -> Result<RunOptions, CliError> {
        let replication_factor = self.replication_factor.unwrap_or_else(|| u32::try_from(self.nodes.min(3)).unwrap_or(3));
        if replication_factor == 0 || u64::from(replication_factor) > self.nodes {
            return Err(CliError::Usage(format!(
                "--replication-factor {replication_factor}: use 1 to {}, the number of nodes",
                self.nodes
            )));
        }
        if self.down >= self.every {
            return Err(CliError::Usage("--down must be shorter than --every: one fault at a time".to_owned()));
        }
        let mut server_args = SERVER_ARGS.map(str::to_owned).to_vec();
        server_args.extend(self.server_args);
        let binary = match self.flotilla {
            Some(path) => path,
            None => beside()?,
        };
        Ok(RunOptions {
            cluster: ClusterOptions { binary, dir: dir.to_owned(), nodes: self.nodes, server_args, ..ClusterOptions::default() },
            workload: WorkloadOptions {
                topic: TOPIC.to_owned(),
                partitions: self.partitions,
                producers: self.producers,
                readers: self.readers,
                rate: self.rate,
                record_bytes: self.record_bytes as usize,
                delivery_timeout: self.delivery_timeout,
            },
            replication_factor,
            faults: self.fault,
            duration: Duration::from_secs(self.seconds),
            every: self.every,
            down: self.down,
            seed: self.seed.unwrap_or_else(fresh_seed),
        })
    }
}

fn fresh_seed() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

fn write_history(dir: &Path, history: &History) -> Result<(), CliError> {
    let path = dir.join("history.jsonl");
    let written = File::create(&path).and_then(|file| history.write_json(BufWriter::new(file)));
    written.map_err(|error| CliError::Io(format!("{}: {error}", path.display())))
}

fn print(output: Output, report: &Report) -> Result<(), CliError> {
    let text = match output {
        Output::Text => report.text(),
        Output::Json => {
            let json = serde_json::to_string_pretty(report).map_err(|error| CliError::Io(error.to_string()))?;
            format!("{json}\n")
        }
    };
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CliError::Io(format!("stdout: {error}"))),
        _ => Ok(()),
    }
}
