//! Where machines meet Raft: adapters that let a Raft group drive a machine, and share what it has applied.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flotilla_machines::controller::{ControllerMachine, Image};
use flotilla_machines::item;
use flotilla_machines::partition::PartitionMachine;
use flotilla_machines::time::MachineTime;
use flotilla_machines::{Applied as MachineApplied, Decision as MachineDecision, Rows as MachineRows};
use flotilla_proto::internal::v1;
use flotilla_raft::machine::{Applied, Machine, RestoreError, Row, Rows};
use flotilla_raft::planted::{Bug, is_planted};
use flotilla_raft::proposals::Preamble;
use flotilla_raft::types::{Decision, GroupId, Item, Kept, LogId};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::broker::Broker;
use crate::clock::{GroupTime, NodeClock};
use crate::partition::Ends;

/// What the leader knows of the time goes before the other items of an entry, unless it went before recently: machine time
/// is for retention and expiry, not for stop watches. `ahead_max_ms` is the topic's limit for timestamps.
pub(crate) fn stamps(
    clock: NodeClock,
    time: GroupTime,
    ahead_max_ms: impl Fn() -> Option<u64> + Send + Sync + 'static,
) -> Preamble {
    const RESOLUTION: Duration = Duration::from_millis(100);
    let last: Mutex<Option<Instant>> = Mutex::default();
    Arc::new(move || {
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|last| last.elapsed() < RESOLUTION) {
            return None;
        }
        *last = Some(Instant::now());
        let MachineTime { now_ms, dated_ms } = clock.stamp(&time);
        let stamp = v1::Stamp { now_ms, dated_ms, timestamp_ahead_max_ms: ahead_max_ms() };
        Some(Item { kind: item::STAMP, payload: item::stamp_payload(&stamp) })
    })
}

impl Broker {
    /// What goes before the entries of a partition.
    pub(crate) fn stamps(&self, group: GroupId, machine: &Shared<PartitionMachine>) -> Preamble {
        let image = self.inner.image.clone();
        let ahead_max_ms = move || {
            let image = image.borrow();
            image.partition_of_group(group.0).map(|(topic, _)| topic.config.timestamp_ahead_max_ms)
        };
        stamps(self.inner.clock.clone(), machine.time().clone(), ahead_max_ms)
    }
}

/// A machine and the lock under which the group applies and others look at it. Held for one entry at a time.
pub(crate) struct Shared<M> {
    machine: Arc<Mutex<M>>,
    time: GroupTime,
}

impl<M: Default> Shared<M> {
    pub(crate) fn new() -> Self {
        Self { machine: Arc::default(), time: GroupTime::default() }
    }
}

impl<M> Shared<M> {
    pub(crate) fn lock(&self) -> MutexGuard<'_, M> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the machine's time stands.
    pub(crate) fn time(&self) -> &GroupTime {
        &self.time
    }
}

impl<M> Clone for Shared<M> {
    fn clone(&self) -> Self {
        Self { machine: self.machine.clone(), time: self.time.clone() }
    }
}

/// Drives a [`PartitionMachine`]; tells the log's ends to whoever watches.
pub(crate) struct PartitionHost {
    group: GroupId,
    machine: Shared<PartitionMachine>,
    ends: watch::Sender<Ends>,
}

impl PartitionHost {
    pub(crate) fn new(group: GroupId) -> (Self, Shared<PartitionMachine>, watch::Receiver<Ends>) {
        let machine = Shared::new();
        let (ends, watched) = watch::channel(Ends::default());
        (Self { group, machine: machine.clone(), ends }, machine, watched)
    }
}

impl Machine for PartitionHost {
    fn restore(&mut self, rows: Vec<Row>) -> Result<(), RestoreError> {
        let group = self.group;
        let restored = PartitionMachine::restore(rows);
        let restored = restored.map_err(|error| RestoreError { group, reason: error.to_string() })?;
        self.machine.time().applied(restored.time().now_ms);
        *self.machine.lock() = restored;
        Ok(())
    }

    fn apply(&mut self, _log_id: LogId, items: &[Item], rows: &mut dyn Rows) -> Vec<Applied> {
        #[cfg(test)]
        crate::revive::tests::die_if_asked(items);
        let mut machine = self.machine.lock();
        let mut rows = RowsAdapter(rows);
        let outcomes = items.iter().map(|item| applied(machine.apply(item.kind, &item.payload, &mut rows))).collect();
        self.machine.time().applied(machine.time().now_ms);
        outcomes
    }

    fn adopt(&mut self, _log_id: LogId, items: &[Item], decisions: Option<&[Decision]>, rows: &mut dyn Rows) -> Vec<Decision> {
        let mut machine = self.machine.lock();
        let mut rows = RowsAdapter(rows);
        let adopt = |(number, item): (usize, &Item)| {
            let decision = decisions.and_then(|decisions| decisions.get(number)).map(|decision| decided(*decision));
            decision_of(machine.adopt(item.kind, &item.payload, decision, &mut rows))
        };
        items.iter().enumerate().map(adopt).collect()
    }

    fn lose(&mut self, offsets: Range<u64>, rows: &mut dyn Rows) {
        self.machine.lock().lose(offsets, &mut RowsAdapter(rows));
    }

    fn next_offset(&self) -> u64 {
        self.machine.lock().next_offset()
    }

    fn published(&mut self) {
        let ends = {
            let machine = self.machine.lock();
            let beyond = u64::from(is_planted(Bug::EndTooFar));
            Ends { log_start_offset: machine.log_start_offset(), high_watermark: machine.next_offset() + beyond }
        };
        self.ends.send_if_modified(|current| std::mem::replace(current, ends) != ends);
    }

    fn live_from(&self) -> u64 {
        self.machine.lock().log_start_offset()
    }
}

/// Drives the [`ControllerMachine`]; publishes the metadata image.
pub(crate) struct ControllerHost {
    machine: Shared<ControllerMachine>,
    image: watch::Sender<Arc<Image>>,
}

impl ControllerHost {
    /// Publishes what it applies at `image`; what is older than what is there already is not shown: a replica that was
    /// started again may have to apply it once more.
    pub(crate) fn new(image: watch::Sender<Arc<Image>>) -> Self {
        Self { machine: Shared::new(), image }
    }

    /// What goes before the controller's entries.
    pub(crate) fn stamps(&self, clock: &NodeClock) -> Preamble {
        stamps(clock.clone(), self.machine.time().clone(), || None)
    }
}

impl Machine for ControllerHost {
    fn restore(&mut self, rows: Vec<Row>) -> Result<(), RestoreError> {
        let restored = ControllerMachine::restore(rows);
        let reason = |error: flotilla_machines::RestoreError| error.to_string();
        let restored = restored.map_err(|error| RestoreError { group: GroupId(0), reason: reason(error) })?;
        self.machine.time().applied(restored.now_ms());
        *self.machine.lock() = restored;
        Ok(())
    }

    fn apply(&mut self, _log_id: LogId, items: &[Item], rows: &mut dyn Rows) -> Vec<Applied> {
        #[cfg(test)]
        crate::revive::tests::die_if_asked(items);
        let mut machine = self.machine.lock();
        let mut rows = RowsAdapter(rows);
        let outcomes = items.iter().map(|item| applied(machine.apply(item.kind, &item.payload, &mut rows))).collect();
        self.machine.time().applied(machine.now_ms());
        outcomes
    }

    fn published(&mut self) {
        let image = self.machine.lock().image();
        self.image.send_if_modified(|current| {
            let newer = image.version() > current.version();
            if newer {
                *current = image;
            }
            newer
        });
    }

    fn live_from(&self) -> u64 {
        // No item of the controller stays readable.
        u64::MAX
    }
}

struct RowsAdapter<'a>(&'a mut dyn Rows);

impl MachineRows for RowsAdapter<'_> {
    fn put(&mut self, table: u8, key: &[u8], value: Vec<u8>) {
        self.0.put(table, key, value);
    }

    fn delete(&mut self, table: u8, key: &[u8]) {
        self.0.delete(table, key);
    }
}

fn decided(decision: Decision) -> MachineDecision {
    match decision {
        Decision::Drop => MachineDecision::Drop,
        Decision::Keep(Kept { base_offset, offset_count, max_timestamp_ms }) => {
            MachineDecision::Keep { base_offset, offset_count, max_timestamp_ms }
        }
    }
}

fn decision_of(decision: MachineDecision) -> Decision {
    match decision {
        MachineDecision::Drop => Decision::Drop,
        MachineDecision::Keep { base_offset, offset_count, max_timestamp_ms } => {
            Decision::Keep(Kept { base_offset, offset_count, max_timestamp_ms })
        }
    }
}

fn applied<O: Send + Sync + 'static>(applied: MachineApplied<O>) -> Applied {
    Applied { outcome: Box::new(applied.outcome), decision: decision_of(applied.decision) }
}
