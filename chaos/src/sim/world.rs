//! The simulated world: nodes on turmoil's hosts, faults at their times, and a look at all invariants every few milliseconds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use flotilla_raft::disk::sim::Faults;
use turmoil::Sim;

use super::faults::{Fault, Planned};
use super::invariants::Invariants;
use super::isolation;
use super::node::{Node, name};
use super::trace::Trace;

/// How long one step of the simulation is.
pub const TICK: Duration = Duration::from_millis(1);
/// Invariants are looked at once in so many steps.
const LOOK_STEPS: u64 = 5;
/// How the nodes are is said once in so many steps.
const SAY_STEPS: u64 = 1_000;
/// Messages usually take from the first to the second.
pub const LATENCY: (Duration, Duration) = (Duration::from_micros(100), Duration::from_millis(3));
/// Between the end of a process by itself, as when its storage failed, and its next start.
const RESTART_AFTER: Duration = Duration::from_millis(500);

/// See the module.
pub struct World {
    sim: Sim<'static>,
    nodes: Arc<[Node]>,
    trace: Trace,
    steps: u64,
    /// What is to happen, by time and in turn.
    due: BTreeMap<(Duration, u64), Action>,
    /// How much was ever put there.
    turns: u64,
    /// How many faults cut a direction.
    cuts: BTreeMap<(u64, u64), u32>,
    /// Nodes without a process.
    down: BTreeSet<u64>,
    /// Nodes whose power fails during a write to come.
    torn: BTreeMap<u64, Duration>,
    /// What is seen while nothing fails is of no interest to a fault's effect.
    pub invariants: Invariants,
    /// Faults that happened.
    pub faults: u64,
    /// Snapshots that processes which have ended had received, and those that run, by node.
    snapshots: (u64, BTreeMap<u64, u64>),
    /// Whether a node that starts anew finds its disk empty: a bug that is planted.
    pub forgetful: bool,
}

#[derive(Debug, Clone, Copy)]
enum Action {
    Begin(Fault, Duration),
    Start(u64),
    Mend(u64, u64),
    NetworkAsUsual,
    DiskAsUsual(u64),
    DiskHasRoom(u64),
    ClockAsUsual(u64),
}

impl World {
    /// A world whose nodes are about to start.
    #[must_use]
    pub fn new(mut sim: Sim<'static>, nodes: Arc<[Node]>, trace: Trace) -> Self {
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
            invariants: Invariants::default(),
            faults: 0,
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
        for Planned { at, fault, lasts } in planned {
            self.at(now + *at, Action::Begin(*fault, *lasts));
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
        if self.steps.is_multiple_of(SAY_STEPS) {
            self.say();
        }
        Ok(())
    }

    /// Undoes everything: no fault begins any more, links are mended, nodes start.
    pub fn heal(&mut self) {
        tracing::info!("heals everything");
        self.due.clear();
        for (from, to) in std::mem::take(&mut self.cuts).into_keys() {
            self.sim.repair_oneway(name(from), name(to));
        }
        self.torn.clear();
        self.network_as_usual();
        for node in self.nodes.clone().iter() {
            node.slow_down(Duration::ZERO);
            node.set_clock_off(0);
            node.disk().faults(|faults| {
                (faults.power_fails_in, faults.sync_fails_in, faults.write_fails_in) = (None, None, None);
                faults.capacity_bytes = u64::MAX;
            });
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

    fn at(&mut self, time: Duration, action: Action) {
        self.turns += 1;
        self.due.insert((time, self.turns), action);
    }

    fn act(&mut self) {
        let now = self.now();
        while let Some(first) = self.due.first_entry().filter(|first| first.key().0 <= now) {
            let action = first.remove();
            match action {
                Action::Begin(fault, lasts) => self.begin(fault, now + lasts),
                Action::Start(node) => self.start(node),
                Action::Mend(from, to) => self.mend(from, to),
                Action::NetworkAsUsual => self.network_as_usual(),
                Action::DiskAsUsual(node) => self.with(node, |node| node.slow_down(Duration::ZERO)),
                Action::DiskHasRoom(node) => self.disk(node, |faults| faults.capacity_bytes = u64::MAX),
                Action::ClockAsUsual(node) => self.with(node, |node| node.set_clock_off(0)),
            }
        }
    }

    fn begin(&mut self, fault: Fault, until: Duration) {
        tracing::info!(?fault, ?until, "fault");
        self.faults += 1;
        match fault {
            Fault::Kill(node) => self.end(node, until, Node::killed),
            Fault::PowerCut(node) => self.lose_power(node, until),
            Fault::PowerCutAll => self.ids().into_iter().for_each(|node| self.lose_power(node, until)),
            Fault::TornWrite(node, after) => {
                self.torn.insert(node, until);
                self.disk(node, |faults| faults.power_fails_in = Some(after));
            }
            Fault::Isolate(node) => self.isolate(node, until),
            Fault::Cut(one, other) => {
                self.cut(one, other, until);
                self.cut(other, one, until);
            }
            Fault::CutOneWay(from, to) => self.cut(from, to, until),
            Fault::SlowNetwork(latency) => {
                self.sim.set_max_message_latency(latency);
                self.at(until, Action::NetworkAsUsual);
            }
            Fault::SlowDisk(node, by) => {
                self.with(node, |node| node.slow_down(by));
                self.at(until, Action::DiskAsUsual(node));
            }
            Fault::SyncFails(node, after) => self.disk(node, |faults| faults.sync_fails_in = Some(after)),
            Fault::WriteFails(node, after) => self.disk(node, |faults| faults.write_fails_in = Some(after)),
            Fault::DiskFull(node) => {
                self.disk(node, |faults| faults.capacity_bytes = 0);
                self.at(until, Action::DiskHasRoom(node));
            }
            Fault::ClockJump(node, off_ms) => {
                self.with(node, |node| node.set_clock_off(off_ms));
                self.at(until, Action::ClockAsUsual(node));
            }
        }
    }

    fn disk(&self, node: u64, change: impl FnOnce(&mut Faults)) {
        self.with(node, |node| node.disk().faults(change));
    }

    fn with(&self, node: u64, act: impl FnOnce(&Node)) {
        if let Some(node) = self.nodes.iter().find(|other| other.id() == node) {
            act(node);
        }
    }

    fn ids(&self) -> Vec<u64> {
        self.nodes.iter().map(Node::id).collect()
    }

    /// Nobody hears a machine that lost its power, not even that its connections have ended.
    fn lose_power(&mut self, node: u64, until: Duration) {
        self.isolate(node, until);
        self.end(node, until, Node::power_cut);
    }

    fn end(&mut self, node: u64, until: Duration, leave: fn(&Node)) {
        let node = self.nodes.iter().find(|other| other.id() == node).cloned();
        if let Some(node) = node.filter(|node| !self.down.contains(&node.id())) {
            self.stop(&node, leave);
            self.at(until, Action::Start(node.id()));
        }
    }

    /// Ends a process; `leave` says what the machine keeps of it.
    fn stop(&mut self, node: &Node, leave: fn(&Node)) {
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

    fn start(&mut self, node: u64) {
        if self.down.remove(&node) {
            tracing::info!(node, "starts");
            if self.forgetful {
                self.with(node, Node::forget);
            }
            self.invariants.restarted(node);
            self.sim.bounce(name(node));
        }
    }

    /// Processes that ended by themselves start again; and the power is off where it failed during a write.
    fn notice_ends(&mut self) {
        let now = self.now();
        for node in self.nodes.clone().iter() {
            if node.disk().faults(|faults| faults.power_is_off()) {
                let until = self.torn.remove(&node.id()).unwrap_or(now + RESTART_AFTER).max(now + RESTART_AFTER);
                tracing::info!(node = node.id(), "the power failed during a write");
                self.lose_power(node.id(), until);
            }
            if let Some(reason) = node.take_ended() {
                tracing::info!(node = node.id(), reason, "ended by itself");
                self.end(node.id(), now + RESTART_AFTER, Node::killed);
            }
        }
    }

    fn isolate(&mut self, node: u64, until: Duration) {
        for other in self.ids().into_iter().filter(|other| *other != node) {
            self.cut(node, other, until);
            self.cut(other, node, until);
        }
    }

    fn cut(&mut self, from: u64, to: u64, until: Duration) {
        let count = self.cuts.entry((from, to)).or_default();
        *count += 1;
        if *count == 1 {
            self.sim.partition_oneway(name(from), name(to));
        }
        self.at(until, Action::Mend(from, to));
    }

    fn mend(&mut self, from: u64, to: u64) {
        let Some(count) = self.cuts.get_mut(&(from, to)) else { return };
        *count -= 1;
        if *count == 0 {
            self.cuts.remove(&(from, to));
            self.sim.repair_oneway(name(from), name(to));
        }
    }

    fn network_as_usual(&self) {
        self.sim.set_max_message_latency(LATENCY.1);
    }

    /// Snapshots that were received and installed.
    #[must_use]
    pub fn snapshots(&mut self) -> u64 {
        for node in self.nodes.clone().iter() {
            self.count_snapshots(node);
        }
        self.snapshots.0 + self.snapshots.1.values().sum::<u64>()
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
