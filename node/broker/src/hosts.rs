//! Where machines meet Raft: adapters that let a Raft group drive a machine, and share what it has applied.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flotilla_machines::controller::{ControllerMachine, Image};
use flotilla_machines::item;
use flotilla_machines::partition::PartitionMachine;
use flotilla_machines::{Applied as MachineApplied, Decision as MachineDecision, Rows as MachineRows};
use flotilla_raft::machine::{Applied, Machine, RestoreError, Row, Rows};
use flotilla_raft::proposals::Preamble;
use flotilla_raft::types::{Decision, GroupId, Item, Kept, LogId};
use tokio::sync::watch;

use crate::partition::Ends;
use crate::surroundings::Clock;

/// The leader's clock goes before the other items of an entry, unless it went before recently: machine time is for
/// retention and expiry, not for stop watches.
pub(crate) fn clock_preamble(clock: Clock) -> Preamble {
    const RESOLUTION_MS: i64 = 100;
    let last = Mutex::new(i64::MIN);
    Arc::new(move || {
        let now = clock.now_ms();
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if now < last.saturating_add(RESOLUTION_MS) {
            return None;
        }
        *last = now;
        Some(Item { kind: item::CLOCK, payload: item::clock_payload(now) })
    })
}

/// A machine and the lock under which the group applies and others look at it. Held for one entry at a time.
pub(crate) struct Shared<M> {
    machine: Arc<Mutex<M>>,
}

impl<M: Default> Shared<M> {
    pub(crate) fn new() -> Self {
        Self { machine: Arc::default() }
    }
}

impl<M> Shared<M> {
    pub(crate) fn lock(&self) -> MutexGuard<'_, M> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M> Clone for Shared<M> {
    fn clone(&self) -> Self {
        Self { machine: self.machine.clone() }
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
        *self.machine.lock() = restored.map_err(|error| RestoreError { group, reason: error.to_string() })?;
        Ok(())
    }

    fn apply(&mut self, _log_id: LogId, items: &[Item], rows: &mut dyn Rows) -> Vec<Applied> {
        #[cfg(test)]
        crate::revive::tests::die_if_asked(items);
        let mut machine = self.machine.lock();
        let mut rows = RowsAdapter(rows);
        items.iter().map(|item| applied(machine.apply(item.kind, &item.payload, &mut rows))).collect()
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
            Ends { log_start_offset: machine.log_start_offset(), high_watermark: machine.next_offset() }
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
}

impl Machine for ControllerHost {
    fn restore(&mut self, rows: Vec<Row>) -> Result<(), RestoreError> {
        let restored = ControllerMachine::restore(rows);
        let reason = |error: flotilla_machines::RestoreError| error.to_string();
        *self.machine.lock() = restored.map_err(|error| RestoreError { group: GroupId(0), reason: reason(error) })?;
        Ok(())
    }

    fn apply(&mut self, _log_id: LogId, items: &[Item], rows: &mut dyn Rows) -> Vec<Applied> {
        #[cfg(test)]
        crate::revive::tests::die_if_asked(items);
        let mut machine = self.machine.lock();
        let mut rows = RowsAdapter(rows);
        items.iter().map(|item| applied(machine.apply(item.kind, &item.payload, &mut rows))).collect()
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
