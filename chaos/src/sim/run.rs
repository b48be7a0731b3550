//! One simulation from its beginning to its verdict.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio_util::task::TaskTracker;

use super::clients::Clients;
use super::finish::{self, Waiting};
use super::isolation;
use super::node::Node;
use super::plan::{Fault, Plan, Scenario};
use super::trace::Trace;
use super::world::{LATENCY, TICK, World};
use crate::checkers::{Finding, check_all};
use crate::history::{Counts, History};
use crate::report::{Report, Verdict};

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
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    /// Makes the same run again.
    pub seed: u64,
    /// What faults were chosen for.
    pub scenario: Scenario,
    /// Nodes.
    pub nodes: u64,
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
    /// Operations of disks that failed, or during which a process ended.
    pub disk_errors: u64,
    /// How often a group had another leader than before.
    pub leader_changes: usize,
    /// How often the replicas of a partition became others.
    pub reconfigurations: usize,
    /// Snapshots that were received and installed.
    pub snapshots: u64,
    /// Entries of all logs that are known to be committed.
    pub committed: usize,
    /// How long it took, in simulated time.
    pub simulated_ms: u64,
    /// crc32c of the trace.
    pub trace_checksum: u32,
}

/// Until the cluster has formed and the topic is there; and until everything is well after healing.
const BEGIN_PATIENCE: Duration = Duration::from_secs(60);
const HEAL_PATIENCE: Duration = Duration::from_secs(120);
/// How long is written where nothing fails any more.
const WRITE_A_WHILE: Duration = Duration::from_secs(3);
/// Readers of each partition.
const READERS: u32 = 1;
/// Orders that may wait.
const ORDERS_MAX: usize = 64;
/// Less than that says nothing.
const ACKED_MIN: u64 = 50;
const RECONFIGURATIONS_MIN: usize = 2;

/// Where the clients are. Shared with them.
#[derive(Clone, Default)]
struct Stage {
    begun: Arc<AtomicBool>,
    done: Arc<AtomicBool>,
    waiting: Waiting,
    /// What could not be read at the end.
    failed: Arc<Mutex<Vec<String>>>,
}

/// A simulation that ran.
pub struct Ran {
    /// What came of it.
    pub outcome: Outcome,
    /// Everything that happened.
    pub trace: Vec<u8>,
    /// What clients were told.
    pub history: History,
}

/// Runs a simulation on this thread, which must have done nothing before; nodes keep their identities in `dir`.
///
/// # Errors
/// In words, if the simulation itself failed.
pub fn run(plan: &Plan, planted: Option<Planted>, dir: &Path) -> Result<Ran, String> {
    isolation::begin(plan.seed);
    let trace = Trace::default();
    let mut ran = tracing::dispatcher::with_default(&trace.dispatch(), || simulate(plan, planted, dir, &trace))?;
    // Where the directory lies is the only thing that is not simulated.
    ran.trace = String::from_utf8_lossy(&ran.trace).replace(&dir.display().to_string(), "").into_bytes();
    ran.outcome.trace_checksum = crc32c::crc32c(&ran.trace);
    Ok(ran)
}

fn simulate(plan: &Plan, planted: Option<Planted>, dir: &Path, trace: &Trace) -> Result<Ran, String> {
    let node = |id| Node::new(id, &plan.shape, dir.join(super::node::name(id)), plan.seed);
    let nodes: Arc<[Node]> = (1..=plan.shape.nodes).map(node).collect();
    if planted == Some(Planted::LyingSync) {
        nodes.iter().for_each(|node| node.disk().faults(|faults| faults.lying_sync = true));
    }
    let (give, orders) = mpsc::channel(ORDERS_MAX);
    let mut world = World::new(network(plan.seed), nodes.clone(), trace.clone(), give);
    world.forgetful = planted == Some(Planted::ForgetfulNode);
    let (history, stage) = (Arc::new(Mutex::new(History::default())), Stage::default());
    let (stop, stopped) = watch::channel(false);
    let orders = Arc::new(Mutex::new(Some(orders)));
    let software = {
        let (nodes, history, stage, plan) = (nodes.clone(), history.clone(), stage.clone(), plan.clone());
        move || {
            // The host of the clients never starts again.
            let orders = orders.lock().unwrap_or_else(PoisonError::into_inner).take();
            let all = Clients::new(nodes.clone(), history.clone(), plan.shape.clone(), stopped.clone());
            clients(all, (nodes.clone(), history.clone()), stage.clone(), orders, plan.seed)
        }
    };
    world.host("clients", software);
    let mut violations = through(plan, &mut world, &stage, &stop)?;
    violations.extend(world.invariants.violations().iter().chain(world.truth.violations()).cloned());
    violations.extend(stage.failed.lock().unwrap_or_else(PoisonError::into_inner).drain(..));
    let mut history = std::mem::take(&mut *history.lock().unwrap_or_else(PoisonError::into_inner));
    history.done = std::mem::take(&mut world.done);
    let outcome = judge(plan, &mut world, violations, &history);
    Ok(Ran { outcome, trace: trace.text(), history })
}

/// From the first start to the last read; what did not come about.
fn through(plan: &Plan, world: &mut World, stage: &Stage, stop: &watch::Sender<bool>) -> Result<Vec<String>, String> {
    let founding = plan.scenario == Scenario::Founding;
    if founding {
        world.plan(&plan.faults);
        until(world, plan.duration(), || false)?;
        world.heal();
    }
    if !until(world, BEGIN_PATIENCE, || stage.begun.load(Ordering::Relaxed))? {
        return Ok(vec![format!("{BEGIN_PATIENCE:?} after nothing stood in the way, it still waited for {}", waiting(stage))]);
    }
    if founding {
        until(world, WRITE_A_WHILE, || false)?;
    } else {
        world.plan(&plan.faults);
        until(world, plan.duration(), || false)?;
    }
    if plan.power_fails_at_end {
        tracing::info!("the power of all nodes fails at the end");
        world.power_cycle();
    }
    world.heal();
    let _ = stop.send(true);
    let done = until(world, HEAL_PATIENCE, || stage.done.load(Ordering::Relaxed))?;
    Ok(if done {
        Vec::new()
    } else {
        vec![format!("{HEAL_PATIENCE:?} after everything was healed, it still waited for {}", waiting(stage))]
    })
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
async fn clients(
    all: Clients,
    (nodes, history): (Arc<[Node]>, Arc<Mutex<History>>),
    stage: Stage,
    orders: Option<mpsc::Receiver<Fault>>,
    seed: u64,
) {
    let shape = all.shape().clone();
    let partitions = shape.partitions + shape.singles;
    let mut first = all.client(0, seed);
    finish::wait_for(&stage.waiting, "the cluster to form and the topic to be created".to_owned());
    first.create_topics().await;
    let (writing, reading) = (TaskTracker::new(), TaskTracker::new());
    let (ends, until) = watch::channel(None);
    for number in 0..shape.producers * partitions {
        writing.spawn(all.client(number, seed).produce());
    }
    for (reader, partition) in (0..READERS).flat_map(|reader| (0..partitions).map(move |partition| (reader, partition))) {
        let seed = seed ^ u64::from(partition).wrapping_mul(0xd6e8_feb8_6659_fd93);
        reading.spawn(all.client(1_000 + reader, seed).read(partition, until.clone()));
    }
    writing.spawn(all.client(2_000, seed).observe());
    writing.spawn(all.client(3_000, seed).churn());
    if let Some(orders) = orders {
        // Orders may come until the end.
        drop(tokio::spawn(all.clone().operate(orders, seed)));
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
    let found = finish::ends(&nodes, &mut first, &shape, &stage.waiting).await;
    finish::wait_for(&stage.waiting, "the readers".to_owned());
    let _ = ends.send(Some(found));
    reading.close();
    reading.wait().await;
    finish::wait_for(&stage.waiting, "the final reads".to_owned());
    let failed = finish::read_everything(&nodes, &shape, &history).await;
    stage.failed.lock().unwrap_or_else(PoisonError::into_inner).extend(failed);
    finish::well(&nodes, &stage.waiting).await;
    stage.done.store(true, Ordering::Relaxed);
}

fn judge(plan: &Plan, world: &mut World, violations: Vec<String>, history: &History) -> Outcome {
    let findings: Vec<Finding> = check_all(history).into_iter().filter(|finding| finding.violations > 0).collect();
    let records = history.counts();
    let mut void_because = Vec::new();
    if records.ok < ACKED_MIN {
        void_because.push(format!("only {} records were acknowledged", records.ok));
    }
    if world.faults == 0 {
        void_because.push("no fault happened".to_owned());
    }
    if plan.scenario == Scenario::All && world.invariants.reconfigurations() < RECONFIGURATIONS_MIN {
        void_because.push(format!("replicas became others only {} times", world.invariants.reconfigurations()));
    }
    let verdict = Report::judge(&findings, &violations, &void_because);
    tracing::info!(?verdict, ?records, faults = world.faults, "ends");
    Outcome {
        seed: plan.seed,
        scenario: plan.scenario,
        nodes: plan.shape.nodes,
        verdict,
        violations,
        findings,
        void_because,
        records,
        faults: world.faults,
        disk_errors: world.disk_errors(),
        reconfigurations: world.invariants.reconfigurations(),
        leader_changes: world.invariants.leader_changes(),
        snapshots: world.snapshots(),
        committed: world.invariants.committed(),
        simulated_ms: u64::try_from(world.now().as_millis()).unwrap_or(u64::MAX),
        trace_checksum: 0,
    }
}
