//! What the simulated world does at its time: faults begin and are undone, processes start again.

use std::time::Duration;

use super::disk::{Damage, Rule};
use super::node::{Node, name};
use super::plan::{Corruption, Fault};
use super::world::{LATENCY, RESTART_AFTER, World};
use crate::history::{Done, micros};

/// How much later than a majority the other nodes start after the power was gone everywhere: there is a leader by then.
const STRAGGLE: Duration = Duration::from_secs(3);

/// Something to be done at some time.
#[derive(Debug, Clone)]
pub(super) enum Action {
    Begin(Fault, Duration),
    Start(u64),
    Mend(u64, u64),
    NetworkAsUsual,
    DiskAsUsual(u64),
    DiskHasRoom(u64),
    /// A rule of a node's disk holds no more.
    Lift(u64, u64),
    RowsAsUsual(u64),
    /// All sectors of a node's disk can be read again.
    Readable(u64),
    ClockAsUsual(u64),
}

impl World {
    pub(super) fn act(&mut self) {
        let now = self.now();
        while let Some(first) = self.due.first_entry().filter(|first| first.key().0 <= now) {
            let action = first.remove();
            match action {
                Action::Begin(fault, lasts) => self.begin(fault, now + lasts),
                Action::Start(node) => self.start(node),
                Action::Mend(from, to) => self.mend(from, to),
                Action::NetworkAsUsual => self.network_as_usual(),
                Action::DiskAsUsual(node) => self.with(node, |node| node.slow_down(Duration::ZERO)),
                Action::DiskHasRoom(node) => self.with(node, |node| node.disk().full(false, false)),
                Action::Lift(node, rule) => self.lift(node, rule),
                Action::RowsAsUsual(node) => self.with(node, |node| node.rows().heal()),
                Action::Readable(node) => self.with(node, |node| node.disk().readable()),
                Action::ClockAsUsual(node) => self.with(node, |node| node.set_clock_off(0)),
            }
        }
    }

    /// What is healed at once is not undone at its time.
    pub(super) fn forget(&mut self, action: &Action) {
        if let Action::Lift(node, rule) = action {
            self.lift(*node, *rule);
        }
    }

    fn begin(&mut self, fault: Fault, until: Duration) {
        tracing::info!(?fault, ?until, "fault");
        let (at, over) = (micros(self.now()), if fault.is_order() { self.now() } else { until });
        self.done.push(Done { at, until: micros(over), what: format!("{fault:?}") });
        if fault.is_order() {
            // Who has too many orders leaves the next ones.
            drop(self.orders.try_send(fault));
            return;
        }
        self.faults += 1;
        match fault {
            Fault::Kill { node } => self.end(node, until, Node::killed),
            Fault::PowerCut { node } => self.lose_power(node, until),
            Fault::PowerCutAll => self.lose_all_power(until),
            Fault::TornWrite { node, after } => {
                self.torn.insert(node, until);
                self.with(node, |node| node.disk().faults(|faults| faults.power_fails_in = Some(after)));
            }
            Fault::DiesDuring { node, op, place, after } => {
                self.rule(node, Rule { op, place, error: None, after, times: 1 }, until);
            }
            Fault::Corrupt { node, place, what, pick } => {
                self.end(node, until, Node::killed);
                let damage = match what {
                    Corruption::Flip => Damage::Flip,
                    Corruption::Cut => Damage::Cut,
                };
                self.with(node, |node| node.damage(place, damage, pick));
            }
            Fault::Isolate { node } => self.isolate(node, until),
            Fault::Cut { one, other } => {
                self.cut(one, other, until);
                self.cut(other, one, until);
            }
            Fault::CutOneWay { from, to } => self.cut(from, to, until),
            Fault::SlowNetwork { ms } => {
                self.sim.set_max_message_latency(Duration::from_millis(ms));
                self.at(until, Action::NetworkAsUsual);
            }
            Fault::SlowDisk { node, ms } => {
                self.with(node, |node| node.slow_down(Duration::from_millis(ms)));
                self.at(until, Action::DiskAsUsual(node));
            }
            Fault::DiskFails { node, rule } => self.rule(node, rule, until),
            Fault::Unreadable { node, place, pick } => self.with(node, |node| node.damage(place, Damage::Unreadable, pick)),
            Fault::UnreadableTail { node } => {
                self.with(node, |node| node.disk().spoil_tail());
                self.at(until, Action::Readable(node));
            }
            Fault::DiskFull { node, quota } => {
                self.with(node, |node| node.disk().full(true, quota));
                self.at(until, Action::DiskHasRoom(node));
            }
            Fault::RowsFail { node, op, after, times } => {
                self.with(node, |node| node.rows().fail(op, after, times));
                self.at(until, Action::RowsAsUsual(node));
            }
            Fault::ClockJump { node, off_ms } => {
                self.with(node, |node| node.set_clock_off(off_ms));
                self.at(until, Action::ClockAsUsual(node));
            }
            Fault::Move { .. }
            | Fault::Cancel { .. }
            | Fault::Lead { .. }
            | Fault::CreateTopic { .. }
            | Fault::DeleteTopic { .. } => {}
        }
    }

    fn rule(&mut self, node: u64, rule: Rule, until: Duration) {
        let found = self.nodes.iter().find(|other| other.id() == node).map(|node| node.disk().rule(rule));
        if let Some(number) = found {
            self.at(until, Action::Lift(node, number));
        }
    }

    fn lift(&mut self, node: u64, rule: u64) {
        let found = self.nodes.iter().find(|other| other.id() == node);
        self.disk_errors += found.map_or(0, |node| node.disk().lift(rule));
    }

    fn ids(&self) -> Vec<u64> {
        self.nodes.iter().map(Node::id).collect()
    }

    /// Nobody hears a machine that lost its power, not even that its connections have ended.
    /// A majority comes back first, and has gone on without the others when they come: those may be who had the most.
    fn lose_all_power(&mut self, until: Duration) {
        let mut nodes = self.ids();
        let count = nodes.len().max(1);
        nodes.rotate_left(until.subsec_millis() as usize % count);
        for (place, node) in nodes.into_iter().enumerate() {
            let late = if place > count / 2 { STRAGGLE } else { Duration::ZERO };
            self.lose_power(node, until + late);
        }
    }

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

    /// Processes that ended by themselves, or in the middle of an operation, start again; and the power is off where it failed
    /// during a write.
    pub(super) fn notice_ends(&mut self) {
        let now = self.now();
        for node in self.nodes.clone().iter() {
            if node.disk().faults(|faults| faults.power_is_off()) {
                let until = self.torn.remove(&node.id()).unwrap_or(now + RESTART_AFTER).max(now + RESTART_AFTER);
                tracing::info!(node = node.id(), "the power failed during a write");
                self.lose_power(node.id(), until);
            }
            if node.disk().is_dying() {
                tracing::info!(node = node.id(), "killed during an operation of its disk");
                self.end(node.id(), now + RESTART_AFTER, Node::killed);
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

    pub(super) fn network_as_usual(&self) {
        self.sim.set_max_message_latency(LATENCY.1);
    }
}
