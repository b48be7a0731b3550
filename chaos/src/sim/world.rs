//! The simulated world: nodes on turmoil's hosts, faults at their times (`acts.rs`), and a look at all invariants every few
//! milliseconds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use turmoil::Sim;

use super::acts::Action;
use super::health::Truth;
use super::invariants::Invariants;
use super::isolation;
use super::node::Node;
use super::plan::{Fault, Planned};
use super::trace::Trace;
use crate::history::Done;

/// How long one step of the simulation is.
pub const TICK: Duration = Duration::from_millis(1);
/// Invariants are looked at once in so many steps.
const LOOK_STEPS: u64 = 5;
/// What nodes say of their cluster's health is held against the truth once in so many steps.
const HEALTH_STEPS: u64 = 100;
/// How the nodes are is said once in so many steps.
const SAY_STEPS: u64 = 1_000;
/// Messages usually take from the first to the second.
pub const LATENCY: (Duration, Duration) = (Duration::from_micros(100), Duration::from_millis(3));
/// Between the end of a process by itself, as when its storage failed, and its next start.
pub(super) const RESTART_AFTER: Duration = Duration::from_millis(500);

/// See the module.
pub struct World {
    pub(super) sim: Sim<'static>,
    pub(super) nodes: Arc<[Node]>,
    trace: Trace,
    steps: u64,
    /// What is to happen, by time and in turn.
    pub(super) due: BTreeMap<(Duration, u64), Action>,
    /// How much was ever put there.
    turns: u64,
    /// How many faults cut a direction.
    pub(super) cuts: BTreeMap<(u64, u64), u32>,
    /// Nodes without a process.
    pub(super) down: BTreeSet<u64>,
    /// Nodes whose power fails during a write to come.
    pub(super) torn: BTreeMap<u64, Duration>,
    /// Where whoever runs the cluster gets orders.
    pub(super) orders: mpsc::Sender<Fault>,
    /// What holds at every moment.
    pub invariants: Invariants,
    /// What nodes say of their health.
    pub truth: Truth,
    /// Faults that happened, orders not among them.
    pub faults: u64,
    /// All that was done.
    pub done: Vec<Done>,
    /// Operations of disks that met a rule which is not there any more.
    pub(super) disk_errors: u64,
    /// Snapshots that processes which have ended had received, and those that run, by node.
    snapshots: (u64, BTreeMap<u64, u64>),
    /// Whether a node that starts anew finds its disk empty: a bug that is planted.
    pub forgetful: bool,
}

impl World {
    /// A world whose nodes are about to start; and whoever runs the cluster is given `orders`.
    #[must_use]
    pub fn new(mut sim: Sim<'static>, nodes: Arc<[Node]>, trace: Trace, orders: mpsc::Sender<Fault>) -> Self {
        for node in nodes.iter() {
            let node = node.clone();
            sim.host(node.name(), move || {
                let node = node.clone();
                async move {
                    node.live().await;
                    Ok(())
                }
            });
        }
        Self {
            sim,
            nodes,
            trace,
            steps: 0,
            due: BTreeMap::new(),
            turns: 0,
            cuts: BTreeMap::new(),
            down: BTreeSet::new(),
            torn: BTreeMap::new(),
            orders,
            invariants: Invariants::default(),
            truth: Truth::default(),
            faults: 0,
            done: Vec::new(),
            disk_errors: 0,
            snapshots: (0, BTreeMap::new()),
            forgetful: false,
        }
    }

    /// Adds a host that is no node.
    pub fn host<F: Future<Output = ()> + 'static>(&mut self, name: &str, software: impl Fn() -> F + 'static) {
        self.sim.host(name, move || {
            let running = software();
            async move {
                running.await;
                Ok(())
            }
        });
    }

    /// Simulated time since the beginning.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.sim.elapsed()
    }

    /// Faults to come; their times count from now on.
    pub fn plan(&mut self, planned: &[Planned]) {
        let now = self.now();
        for Planned { at_ms, lasts_ms, fault } in planned {
            let lasts = Duration::from_millis(*lasts_ms);
            self.at(now + Duration::from_millis(*at_ms), Action::Begin(fault.clone(), lasts));
        }
    }

    /// One step.
    ///
    /// # Errors
    /// In words, if the simulation itself fails.
    pub fn step(&mut self) -> Result<(), String> {
        let now = self.now();
        isolation::set(now);
        self.trace.set(now);
        self.sim.step().map_err(|error| error.to_string())?;
        self.steps += 1;
        self.act();
        self.notice_ends();
        if self.steps.is_multiple_of(LOOK_STEPS) {
            for node in self.nodes.iter() {
                if let Some((broker, _)) = node.broker() {
                    self.invariants.look(&broker);
                }
            }
        }
        if self.steps.is_multiple_of(HEALTH_STEPS) {
            self.truth.look(self.now(), &self.nodes, &self.cuts);
        }
        if self.steps.is_multiple_of(SAY_STEPS) {
            self.say();
        }
        Ok(())
    }

    /// Undoes everything: no fault begins any more, links are mended, nodes start.
    pub fn heal(&mut self) {
        tracing::info!("heals everything");
        for action in std::mem::take(&mut self.due).into_values() {
            self.forget(&action);
        }
        for (from, to) in std::mem::take(&mut self.cuts).into_keys() {
            self.sim.repair_oneway(super::node::name(from), super::node::name(to));
        }
        self.torn.clear();
        self.network_as_usual();
        for node in self.nodes.clone().iter() {
            node.slow_down(Duration::ZERO);
            node.set_clock_off(0);
            node.disk().heal();
            node.rows().heal();
        }
        for node in self.down.clone() {
            self.start(node);
        }
    }

    /// The power of all nodes fails and comes back.
    pub fn power_cycle(&mut self) {
        for node in self.nodes.clone().iter() {
            self.stop(node, Node::power_cut);
        }
        for node in self.down.clone() {
            self.start(node);
        }
    }

    pub(super) fn at(&mut self, time: Duration, action: Action) {
        self.turns += 1;
        self.due.insert((time, self.turns), action);
    }

    /// Ends a process; `leave` says what the machine keeps of it.
    pub(super) fn stop(&mut self, node: &Node, leave: fn(&Node)) {
        if !self.down.insert(node.id()) {
            return;
        }
        self.torn.remove(&node.id());
        self.count_snapshots(node);
        self.snapshots.0 += self.snapshots.1.remove(&node.id()).unwrap_or_default();
        node.bury();
        self.sim.crash(node.name());
        leave(node);
    }

    pub(super) fn start(&mut self, node: u64) {
        if self.down.remove(&node) {
            tracing::info!(node, "starts");
            if self.forgetful {
                self.with(node, Node::forget);
            }
            self.invariants.restarted(node);
            self.sim.bounce(super::node::name(node));
        }
    }

    pub(super) fn with(&self, node: u64, act: impl FnOnce(&Node)) {
        if let Some(node) = self.nodes.iter().find(|other| other.id() == node) {
            act(node);
        }
    }

    /// Snapshots that were received and installed.
    #[must_use]
    pub fn snapshots(&mut self) -> u64 {
        for node in self.nodes.clone().iter() {
            self.count_snapshots(node);
        }
        self.snapshots.0 + self.snapshots.1.values().sum::<u64>()
    }

    /// Operations of disks that failed.
    #[must_use]
    pub fn disk_errors(&self) -> u64 {
        self.disk_errors
    }

    fn count_snapshots(&mut self, node: &Node) {
        if let Some((broker, _)) = node.broker() {
            self.snapshots.1.insert(node.id(), broker.stats().transfers.received);
        }
    }

    fn say(&self) {
        for node in self.nodes.iter() {
            let operations = node.disk().operations();
            let (ready, groups) = (node.is_ready(), node.broker().map_or_else(Vec::new, |(broker, _)| broker.groups()));
            let last: Vec<String> =
                groups.iter().map(|group| group.extent().last.map_or_else(String::new, |last| last.to_string())).collect();
            tracing::info!(node = node.id(), ready, operations, last = last.join(" "), "stands");
        }
    }
}
