//! One simulation from its beginning to its verdict.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::clients::Clients;
use super::faults::{self, Scenario};
use super::finish::{self, Waiting};
use super::isolation;
use super::node::Node;
use super::trace::Trace;
use super::world::{LATENCY, TICK, World};
use crate::checkers::{Finding, check_all};
use crate::history::{Counts, History};
use crate::random::Random;
use crate::report::{Report, Verdict};

/// What a simulation consists of.
#[derive(Debug, Clone)]
pub struct Options {
    /// Everything random follows from it.
    pub seed: u64,
    /// Which faults.
    pub scenario: Scenario,
    /// Nodes.
    pub nodes: u64,
    /// Partitions of the topic.
    pub partitions: u32,
    /// How long there are faults, in simulated time.
    pub duration: Duration,
    /// A bug that the simulation must find.
    pub planted: Option<Planted>,
}

/// A bug that is planted, to see that it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Planted {
    /// Disks say that they have synced, and have not
    LyingSync,
    /// A node that starts anew has forgotten what it stored, its votes too
    ForgetfulNode,
}

/// What came of a simulation.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// Makes the same run again.
    pub seed: u64,
    /// Which faults.
    pub scenario: Scenario,
    /// What it comes to.
    pub verdict: Verdict,
    /// What was violated at some moment, did not heal, or could not be read.
    pub violations: Vec<String>,
    /// What checkers found in what clients were told.
    pub findings: Vec<Finding>,
    /// Why it says nothing, if so.
    pub void_because: Vec<String>,
    /// How the writes ended.
    pub records: Counts,
    /// Faults that happened.
    pub faults: u64,
    /// How often a group had another leader than before.
    pub leader_changes: usize,
    /// Snapshots that were received and installed.
    pub snapshots: u64,
    /// Entries of all logs that are known to be committed.
    pub committed: usize,
    /// How long it took, in simulated time.
    pub simulated_ms: u128,
    /// crc32c of the trace.
    pub trace_checksum: u32,
}

/// Until the cluster has formed and the topic is there; and until everything is well after healing.
const BEGIN_PATIENCE: Duration = Duration::from_secs(60);
const HEAL_PATIENCE: Duration = Duration::from_secs(120);
/// How long is written where nothing fails any more.
const WRITE_A_WHILE: Duration = Duration::from_secs(3);
/// Producers of each partition, and readers of all.
const PRODUCERS: u32 = 2;
const READERS: u32 = 1;
/// Less than that says nothing.
const ACKED_MIN: u64 = 50;

/// Where the clients are. Shared with them.
#[derive(Clone, Default)]
struct Stage {
    begun: Arc<AtomicBool>,
    done: Arc<AtomicBool>,
    waiting: Waiting,
    /// What could not be read at the end.
    failed: Arc<Mutex<Vec<String>>>,
}

/// Runs a simulation on this thread, which must have done nothing before; nodes keep their identities in `dir`. Returns what
/// came of it, and its trace.
///
/// # Errors
/// In words, if the simulation itself failed.
pub fn run(options: &Options, dir: &Path) -> Result<(Outcome, Vec<u8>), String> {
    isolation::begin(options.seed);
    let trace = Trace::default();
    let (outcome, text) = tracing::dispatcher::with_default(&trace.dispatch(), || simulate(options, dir, &trace))?;
    // Where the directory lies is the only thing that is not simulated.
    let text = String::from_utf8_lossy(&text).replace(&dir.display().to_string(), "").into_bytes();
    Ok((Outcome { trace_checksum: crc32c::crc32c(&text), ..outcome }, text))
}

fn simulate(options: &Options, dir: &Path, trace: &Trace) -> Result<(Outcome, Vec<u8>), String> {
    let mut random = Random::new(options.seed);
    let node = |id| Node::new(id, options.nodes, dir.join(super::node::name(id)), options.seed);
    let nodes: Arc<[Node]> = (1..=options.nodes).map(node).collect();
    if options.planted == Some(Planted::LyingSync) {
        nodes.iter().for_each(|node| node.disk().faults(|faults| faults.lying_sync = true));
    }
    let mut world = World::new(network(options.seed), nodes.clone(), trace.clone());
    world.forgetful = options.planted == Some(Planted::ForgetfulNode);
    let (history, stage) = (Arc::new(Mutex::new(History::default())), Stage::default());
    let (stop, stopped) = watch::channel(false);
    let software = {
        let (nodes, history, stage, options) = (nodes.clone(), history.clone(), stage.clone(), options.clone());
        move || clients(nodes.clone(), history.clone(), stage.clone(), stopped.clone(), options.clone())
    };
    world.host("clients", software);

    let mut violations = Vec::new();
    let planned = faults::plan(options.scenario, options.nodes, options.duration, &mut random);
    if options.scenario == Scenario::Founding {
        world.plan(&planned);
        until(&mut world, options.duration, || false)?;
        world.heal();
    }
    if until(&mut world, BEGIN_PATIENCE, || stage.begun.load(Ordering::Relaxed))? {
        if options.scenario == Scenario::Founding {
            until(&mut world, WRITE_A_WHILE, || false)?;
        } else {
            world.plan(&planned);
            until(&mut world, options.duration, || false)?;
        }
        if random.below(2) == 0 {
            tracing::info!("the power of all nodes fails at the end");
            world.power_cycle();
        }
        world.heal();
        let _ = stop.send(true);
        if !until(&mut world, HEAL_PATIENCE, || stage.done.load(Ordering::Relaxed))? {
            violations.push(format!("{HEAL_PATIENCE:?} after everything was healed, it still waited for {}", waiting(&stage)));
        }
    } else {
        violations.push(format!("{BEGIN_PATIENCE:?} after nothing stood in the way, it still waited for {}", waiting(&stage)));
    }
    violations.extend(world.invariants.violations().iter().cloned());
    violations.extend(stage.failed.lock().unwrap_or_else(PoisonError::into_inner).drain(..));
    let history = history.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(judge(options, &mut world, violations, &history, trace))
}

fn network(seed: u64) -> turmoil::Sim<'static> {
    turmoil::Builder::new()
        .rng_seed(seed)
        .tick_duration(TICK)
        .epoch(std::time::UNIX_EPOCH + isolation::EPOCH)
        .min_message_latency(LATENCY.0)
        .max_message_latency(LATENCY.1)
        .simulation_duration(Duration::MAX)
        .tcp_capacity(4_096)
        .build()
}

/// Goes on until it is `done`, or for so long. Whether it is done.
fn until(world: &mut World, patience: Duration, done: impl Fn() -> bool) -> Result<bool, String> {
    let deadline = world.now() + patience;
    while world.now() < deadline {
        if done() {
            return Ok(true);
        }
        world.step()?;
    }
    Ok(done())
}

fn waiting(stage: &Stage) -> String {
    stage.waiting.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// What all clients do, from the first to the last.
async fn clients(nodes: Arc<[Node]>, history: Arc<Mutex<History>>, stage: Stage, stop: watch::Receiver<bool>, options: Options) {
    let partitions = options.partitions;
    let all = Clients::new(nodes.clone(), history.clone(), partitions, stop);
    let mut first = all.client(0, options.seed);
    finish::wait_for(&stage.waiting, "the cluster to form and the topic to be created".to_owned());
    first.create_topics().await;
    let (writing, reading) = (TaskTracker::new(), TaskTracker::new());
    let (ends, until) = watch::channel(None);
    for number in 0..PRODUCERS * partitions {
        writing.spawn(all.client(number, options.seed).produce());
    }
    for (reader, partition) in (0..READERS).flat_map(|reader| (0..partitions).map(move |partition| (reader, partition))) {
        let seed = options.seed ^ u64::from(partition).wrapping_mul(0xd6e8_feb8_6659_fd93);
        reading.spawn(all.client(1_000 + reader, seed).read(partition, until.clone()));
    }
    writing.spawn(all.client(2_000, options.seed).observe());
    writing.spawn(all.client(3_000, options.seed).churn());
    if matches!(options.scenario, Scenario::All | Scenario::Moves) {
        writing.spawn(all.client(4_000, options.seed).operate());
    }
    finish::wait_for(&stage.waiting, "the first acknowledgements".to_owned());
    while all.acked() < u64::from(partitions) {
        tokio::time::sleep(TICK * 10).await;
    }
    stage.begun.store(true, Ordering::Relaxed);
    finish::wait_for(&stage.waiting, "the producers".to_owned());
    writing.close();
    writing.wait().await;
    finish::settled(&nodes, &stage.waiting).await;
    let found = finish::ends(&nodes, &mut first, partitions, &stage.waiting).await;
    finish::wait_for(&stage.waiting, "the readers".to_owned());
    let _ = ends.send(Some(found));
    reading.close();
    reading.wait().await;
    finish::wait_for(&stage.waiting, "the final reads".to_owned());
    let failed = finish::read_everything(&nodes, partitions, &history).await;
    stage.failed.lock().unwrap_or_else(PoisonError::into_inner).extend(failed);
    stage.done.store(true, Ordering::Relaxed);
}

fn judge(options: &Options, world: &mut World, violations: Vec<String>, history: &History, trace: &Trace) -> (Outcome, Vec<u8>) {
    let findings: Vec<Finding> = check_all(history).into_iter().filter(|finding| finding.violations > 0).collect();
    let records = history.counts();
    let mut void_because = Vec::new();
    if records.ok < ACKED_MIN {
        void_because.push(format!("only {} records were acknowledged", records.ok));
    }
    if world.faults == 0 {
        void_because.push("no fault happened".to_owned());
    }
    let verdict = Report::judge(&findings, &violations, &void_because);
    tracing::info!(?verdict, ?records, faults = world.faults, "ends");
    let text = trace.text();
    let outcome = Outcome {
        seed: options.seed,
        scenario: options.scenario,
        verdict,
        violations,
        findings,
        void_because,
        records,
        faults: world.faults,
        leader_changes: world.invariants.leader_changes(),
        snapshots: world.snapshots(),
        committed: world.invariants.committed(),
        simulated_ms: world.now().as_millis(),
        trace_checksum: 0,
    };
    (outcome, text)
}
