//! `flotilla-chaos sweep`: one error at each system call of a node.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::time::Duration;

use flotilla_chaos::sweep::phase::Phase;
use flotilla_chaos::sweep::point::Point;
use flotilla_chaos::sweep::{self, Choice, SweepOptions, Verdict};

use super::place::Place;
use super::{CliError, beside, seconds};

/// Of the points that were tried, at most one in so many may be void.
const VOID_SHARE_MAX: usize = 10;

/// Arguments of `flotilla-chaos sweep`.
#[derive(Debug, clap::Args)]
pub(super) struct SweepArgs {
    /// The flotilla binary [default: the one beside this program]
    #[arg(long, value_name = "PATH")]
    flotilla: Option<PathBuf>,
    /// When the harm is done; several [default: all]
    #[arg(long, value_delimiter = ',', value_name = "PHASE")]
    phase: Vec<Phase>,
    /// Try so many points, drawn by the seed [default: all]
    #[arg(long, value_name = "N")]
    points: Option<usize>,
    /// Draws the same points again
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Try this point: PHASE:CALL:FILE:NTH:HARM, as results name it; may be given more than once
    #[arg(long, conflicts_with_all = ["phase", "points"], value_name = "ID")]
    point: Vec<Point>,
    /// Only name the points, one a line; nothing is tried
    #[arg(long)]
    list: bool,
    /// How long a node on a good disk may take to be well again
    #[arg(long, default_value = "30s", value_parser = seconds, value_name = "DURATION")]
    patience: Duration,
    /// Trials at a time
    #[arg(long, default_value_t = 2, value_name = "N")]
    jobs: usize,
    /// Where to put data, logs and results; they stay [default: a temporary directory, which stays only if something is wrong]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Sweeps, prints the summary, and says which code to end with.
pub(super) async fn run(args: SweepArgs) -> Result<u8, CliError> {
    let place = Place::new(args.dir.as_deref())?;
    let io = |error: std::io::Error| CliError::Io(format!("{}: {error}", place.path().display()));
    let dir = place.path().canonicalize().map_err(io)?;
    let results = dir.join("sweep.ndjson");
    let mut to = BufWriter::new(File::create(&results).map_err(io)?);
    let phases = if args.phase.is_empty() { Phase::ALL.iter().map(|(phase, _)| *phase).collect() } else { args.phase };
    let choice = match args.point {
        points if points.is_empty() => Choice::Phases { phases, count: args.points, seed: args.seed },
        points => Choice::Points(points),
    };
    let options = SweepOptions {
        binary: args.flotilla.map_or_else(beside, Ok)?,
        watcher: std::env::current_exe().map_err(|error| CliError::Io(format!("this program's path: {error}")))?,
        dir,
        choice,
        patience: args.patience,
        jobs: args.jobs,
        list: args.list,
    };
    eprintln!("seed {}, directory {}", args.seed, place.path().display());
    let interrupted = async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let mut say = |line: String| eprintln!("{line}");
    let mut stdout = std::io::stdout();
    let to: &mut dyn Write = if args.list { &mut stdout } else { &mut to };
    let summary = tokio::select! {
        summary = sweep::run(options, to, &mut say) => summary?,
        () = interrupted => return Err(CliError::Io("interrupted".to_owned())),
    };
    if args.list {
        return Ok(0);
    }
    print!("{}", summary.text());
    let [failed, void] = [Verdict::Fail, Verdict::Void].map(|verdict| summary.count(verdict));
    if failed > 0 || void > 0 || args.dir.is_some() {
        println!("results: {}", place.keep().join("sweep.ndjson").display());
    }
    std::io::stdout().flush().map_err(|error| CliError::Io(format!("stdout: {error}")))?;
    let too_few = summary.tried.is_empty() || void * VOID_SHARE_MAX > summary.tried.len();
    Ok(if failed > 0 {
        1
    } else if too_few {
        3
    } else {
        0
    })
}
