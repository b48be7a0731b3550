//! A sweep over what a disk can do to a node: one error, half a read or write, or a kill, at the first, a middle, a late
//! and the last one of each system call on each kind of file, in each phase of a node's life.
//!
//! Each trial has a node (or two) of its own, with records of which it is known whether they were acknowledged. The calls of
//! a [`phase`] are counted once, undisturbed; from that follow the [`point`]s. Afterwards ([`aftermath`]) everything
//! acknowledged must be there once and in order, the node must be well again by itself, and `flotilla cluster health` must
//! never have called healthy what was not.

mod aftermath;
mod health;
mod ledger;
mod outcome;
pub mod phase;
pub mod point;
mod template;
mod trial;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt;
use tokio::time::Instant;

use crate::cluster::{ClusterError, ClusterOptions, Ports};
use crate::random::Random;
pub use outcome::{Summary, Tried, Verdict};
use phase::Phase;
use point::Point;
use template::Template;
use trial::Trial;

/// The smallest journal, segments that are closed often, and a tail in memory that soon has to give way to them.
const SERVER_ARGS: [&str; 8] =
    ["--journal-bytes", "128MiB", "--segment-bytes", "1MiB", "--tail-bytes-max", "1MiB", "--retention-interval", "500ms"];

/// What a sweep consists of.
#[derive(Debug, Clone)]
pub struct SweepOptions {
    /// The `flotilla` binary.
    pub binary: PathBuf,
    /// This program, which puts nodes under watch.
    pub watcher: PathBuf,
    /// Where everything lies: an empty directory, its path absolute and without links.
    pub dir: PathBuf,
    /// What is swept.
    pub choice: Choice,
    /// How long a node may take to be well again.
    pub patience: Duration,
    /// Trials at a time.
    pub jobs: usize,
    /// Only name the points.
    pub list: bool,
}

/// Which points are tried.
#[derive(Debug, Clone)]
pub enum Choice {
    /// These.
    Points(Vec<Point>),
    /// All of these phases, or as many as are said, drawn by the seed.
    Phases {
        /// Which.
        phases: Vec<Phase>,
        /// How many points; none: all.
        count: Option<usize>,
        /// Draws the same ones again.
        seed: u64,
    },
}

/// Why a sweep did not come about.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// This machine cannot do it.
    #[error("the calls of a process cannot be watched here: {0}")]
    Unsupported(String),
    /// Nodes did not come up before anything was done to them.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A cluster to which nothing was done refused something.
    #[error("nothing was done to it yet, and the cluster refuses: {0}")]
    Refused(#[from] flotilla_client::Error),
    /// Something else did not come about.
    #[error("{0}")]
    Prepare(String),
    /// Undisturbed, a phase does not go well: then what harm does to it shows nothing.
    #[error("phase {0}, undisturbed, does not go well: {1}")]
    Control(Phase, String),
    /// Results cannot be written.
    #[error("the results cannot be written: {0}")]
    Results(#[from] io::Error),
}

/// On what nodes are started.
#[derive(Debug)]
struct Stage {
    options: SweepOptions,
    ports: Ports,
}

/// What all trials share.
#[derive(Debug)]
struct Setup {
    stage: Stage,
    clean: Template,
    killed: Template,
    trials: AtomicUsize,
}

/// Sweeps. Each point's outcome is written to `results` as a line of JSON, and told to `say`.
///
/// # Errors
/// If there was nothing to judge. Broken promises are no error: the summary has them.
pub async fn run(options: SweepOptions, results: &mut dyn Write, say: &mut dyn FnMut(String)) -> Result<Summary, SweepError> {
    supported(&options.watcher).await?;
    let setup = Setup::new(options).await?;
    let mut summary = Summary::default();
    let points = match setup.stage.options.choice.clone() {
        Choice::Points(points) => points,
        Choice::Phases { phases, count, seed } => {
            let points = survey(&setup, &phases, say).await?;
            summary.points = points.len();
            match count {
                Some(count) => point::sample(points, count, &mut Random::new(seed)),
                None => points,
            }
        }
    };
    if setup.stage.options.list {
        for point in &points {
            writeln!(results, "{point}")?;
        }
        return Ok(summary);
    }
    let planned = points.len();
    let jobs = setup.stage.options.jobs.max(1);
    let mut tried = futures::stream::iter(points.iter().map(|point| setup.attempt(point))).buffer_unordered(jobs);
    while let Some(tried) = tried.next().await {
        serde_json::to_writer(&mut *results, &tried).map_err(io::Error::other)?;
        results.write_all(b"\n")?;
        results.flush()?;
        let number = summary.tried.len() + 1;
        say(format!("{number} of {planned}: {} {:?} in {:.1} s", tried.point, tried.verdict, tried.seconds));
        summary.tried.push(tried);
    }
    summary.points = summary.points.max(planned);
    Ok(summary)
}

/// Whether this machine lets a process be watched.
async fn supported(watcher: &Path) -> Result<(), SweepError> {
    let mut command = tokio::process::Command::new(watcher);
    command.args(["trapped", "--"]).arg(watcher).arg("--version").stdin(Stdio::null()).stdout(Stdio::null());
    let refused = |error: io::Error| SweepError::Unsupported(error.to_string());
    let mut child = command.stderr(Stdio::piped()).kill_on_drop(true).spawn().map_err(refused)?;
    let attached = crate::trap::Trap::attach(child.id().unwrap_or_default(), Path::new("/"), Vec::new());
    match (attached, child.wait().await) {
        (Ok(_), Ok(status)) if status.success() => Ok(()),
        (Ok(_), Ok(status)) => Err(SweepError::Unsupported(status.to_string())),
        (Err(error), _) | (_, Err(error)) => Err(refused(error)),
    }
}

/// Goes through each phase undisturbed; the points that follow from what was counted.
async fn survey(setup: &Setup, phases: &[Phase], say: &mut dyn FnMut(String)) -> Result<Vec<Point>, SweepError> {
    let mut all = Vec::new();
    for phase in phases {
        let dir = setup.next_dir();
        let mut trial = Trial::prepare(setup, *phase, &dir).await?;
        trial.go(Vec::new()).await?;
        let census = trial.census();
        let points = point::points(*phase, &census);
        let calls: u64 = census.values().sum();
        say(format!("{phase}: {calls} calls, {} of them with their files different, {} points", census.len(), points.len()));
        if let Some(wrong) = trial.aftermath(None).await?.into_iter().next() {
            return Err(SweepError::Control(*phase, wrong));
        }
        drop(trial);
        remove(&dir);
        all.extend(points);
    }
    Ok(all)
}

impl Stage {
    fn cluster_options(&self, dir: &Path, nodes: u64) -> ClusterOptions {
        ClusterOptions {
            binary: self.options.binary.clone(),
            dir: dir.to_owned(),
            nodes,
            server_args: SERVER_ARGS.map(str::to_owned).to_vec(),
            watcher: Some(self.options.watcher.clone()),
            ports: self.ports.clone(),
            ..ClusterOptions::default()
        }
    }
}

impl Setup {
    async fn new(options: SweepOptions) -> Result<Self, SweepError> {
        let stage = Stage { options, ports: Ports::default() };
        let (clean, killed) = template::make(&stage).await?;
        Ok(Self { stage, clean, killed, trials: AtomicUsize::default() })
    }

    fn next_dir(&self) -> PathBuf {
        self.stage.options.dir.join(format!("trial-{}", self.trials.fetch_add(1, Ordering::Relaxed)))
    }
    /// Tries one point.
    async fn attempt(&self, point: &Point) -> Tried {
        let (began, dir, mut tried) = (Instant::now(), self.next_dir(), Tried::new(point));
        if let Err(error) = self.harm(point, &dir, &mut tried).await {
            tried.words.push(error.to_string());
        }
        tried.seconds = began.elapsed().as_secs_f64();
        if tried.verdict != Verdict::Fail {
            remove(&dir);
        }
        tried
    }

    async fn harm(&self, point: &Point, dir: &Path, tried: &mut Tried) -> Result<(), SweepError> {
        let mut trial = Trial::prepare(self, point.phase, dir).await?;
        trial.go(vec![point.step.clone()]).await?;
        let Some(fired) = trial.fired() else {
            tried.words.push(format!("it did not happen: {} such calls", trial.count_of(&point.step)));
            return Ok(());
        };
        tried.file = Some(fired.path.display().to_string());
        tried.words = trial.aftermath(Some(&fired)).await?;
        tried.acked = trial.ledger.acked();
        tried.verdict = if tried.words.is_empty() { Verdict::Pass } else { Verdict::Fail };
        Ok(())
    }
}

/// What was tried and was well is of no use any more.
fn remove(dir: &Path) {
    let _ = std::fs::remove_dir_all(dir);
}
