//! The partition machine: offsets of record batches, idempotent producers, the log's start, and the committed offsets
//! of consumer groups behind their fences. One file for each thing that an item can ask for.
//!
//! It never holds records: it decides under which offsets a batch's payload is kept.

mod append;
mod commit_offset;
mod delete_group;
mod delete_records;
mod force_commit;
mod groups;
mod loss;
mod outcome;
mod producers;
mod raise_fence;

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use flotilla_proto::internal::v1;
use flotilla_proto::internal::v1::partition_command::Command;
use prost::Message;

pub use groups::{Commit, Fence, GROUPS_MAX, Group, METADATA_BYTES_MAX};
pub use outcome::{PartitionAnswer, PartitionOutcome, PartitionRefusal};
pub use producers::{BATCHES_REMEMBERED, PRODUCER_IDLE_MS_MAX, PRODUCERS_MAX};

use crate::item::{self, Malformed};
use crate::rows::{self, META_KEY, RestoreError, Rows, table};
use crate::time::MachineTime;
use crate::{Applied, time};
use producers::Producers;

/// Largest offset: a batch header carries it as a signed number.
pub const OFFSET_MAX: u64 = i64::MAX as u64;

/// The state of one partition. See the [module](self).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartitionMachine {
    time: MachineTime,
    /// See [`v1::Stamp`].
    timestamp_ahead_max_ms: Option<u64>,
    next_offset: u64,
    log_start_offset: u64,
    fence_epoch_floor: u64,
    /// See [`PartitionMachine::lost`].
    lost: Range<u64>,
    producers: Producers,
    groups: BTreeMap<String, Group>,
}

impl PartitionMachine {
    /// The machine that wrote `rows` (table, key, value), in any order. No rows make an empty partition.
    ///
    /// # Errors
    /// If a row is damaged or of a newer version; the replica must then not serve.
    pub fn restore(rows: impl IntoIterator<Item = (u8, Vec<u8>, Vec<u8>)>) -> Result<Self, RestoreError> {
        let mut machine = Self::default();
        for (table, key, value) in rows {
            match table {
                table::PARTITION_META => machine.restore_meta(&key, &value)?,
                table::PRODUCER => machine.producers.restore(&key, &value)?,
                table::GROUP => machine.restore_group(&key, &value)?,
                table => return Err(RestoreError::UnknownTable { table }),
            }
        }
        Ok(machine)
    }

    /// Applies one item of a committed entry. A refused item changes nothing.
    pub fn apply(&mut self, kind: u8, payload: &Bytes, rows: &mut dyn Rows) -> Applied<PartitionOutcome> {
        match kind {
            item::BATCH => self.append(payload, rows),
            item::COMMAND => Applied::dropped(self.command(payload, rows)),
            item::CLOCK => Applied::dropped(self.clock(payload, rows)),
            item::STAMP => Applied::dropped(self.stamp(payload, rows)),
            kind => Applied::dropped(Err(Malformed::UnknownKind { kind }.into())),
        }
    }

    /// The offset that the next record gets: the high watermark of what is applied.
    #[must_use]
    pub fn next_offset(&self) -> u64 {
        self.next_offset
    }

    /// The first offset that is still there.
    #[must_use]
    pub fn log_start_offset(&self) -> u64 {
        self.log_start_offset
    }

    /// Machine time.
    #[must_use]
    pub fn time(&self) -> MachineTime {
        self.time
    }

    /// What `group` has committed here.
    #[must_use]
    pub fn committed(&self, group: &str) -> Option<&Commit> {
        self.groups.get(group)?.committed.as_ref()
    }

    /// Who may commit for `group` here.
    #[must_use]
    pub fn fence(&self, group: &str) -> Fence {
        match self.groups.get(group) {
            Some(group) => group.fence.clone(),
            None => Fence::vacant(self.fence_epoch_floor),
        }
    }

    /// All groups known here, by name.
    pub fn groups(&self) -> impl Iterator<Item = (&str, &Group)> {
        self.groups.iter().map(|(name, group)| (name.as_str(), group))
    }

    /// Number of idempotent producers remembered.
    #[must_use]
    pub fn producer_count(&self) -> usize {
        self.producers.len()
    }

    fn command(&mut self, payload: &Bytes, rows: &mut dyn Rows) -> PartitionOutcome {
        let message = v1::PartitionCommand::decode(payload.clone()).map_err(Malformed::Command)?;
        match message.command.ok_or(Malformed::UnknownCommand)? {
            Command::DeleteRecords(command) => self.delete_records(&command, rows),
            Command::CommitOffset(command) => self.commit_offset(command, rows),
            Command::RaiseFence(command) => self.raise_fence(command, rows),
            Command::ForceCommit(command) => self.force_commit(command, rows),
            Command::DeleteGroup(command) => self.delete_group(&command, rows),
        }
    }

    fn clock(&mut self, payload: &Bytes, rows: &mut dyn Rows) -> PartitionOutcome {
        let leader_ms = item::parse_clock(payload)?;
        let before = self.time;
        self.time.clock(leader_ms);
        Ok(self.time_passed(self.time != before, rows))
    }

    fn stamp(&mut self, payload: &Bytes, rows: &mut dyn Rows) -> PartitionOutcome {
        let stamp = time::parse(payload)?;
        let before = (self.time, self.timestamp_ahead_max_ms);
        self.time.stamp(&stamp);
        self.timestamp_ahead_max_ms = stamp.timestamp_ahead_max_ms;
        Ok(self.time_passed((self.time, self.timestamp_ahead_max_ms) != before, rows))
    }

    fn time_passed(&mut self, changed: bool, rows: &mut dyn Rows) -> PartitionAnswer {
        if changed {
            self.producers.forget_idle(self.time.now_ms, rows);
            self.put_meta(rows);
        }
        PartitionAnswer::Time { now_ms: self.time.now_ms }
    }

    fn put_meta(&self, rows: &mut dyn Rows) {
        let meta = v1::PartitionMeta {
            next_offset: self.next_offset,
            log_start_offset: self.log_start_offset,
            now_ms: self.time.now_ms,
            fence_epoch_floor: self.fence_epoch_floor,
            lost_from: self.lost.start,
            lost_to: self.lost.end,
            dated_ms: self.time.dated_ms,
            timestamp_ahead_max_ms: self.timestamp_ahead_max_ms,
        };
        rows.put(table::PARTITION_META, META_KEY, meta.encode_to_vec());
    }

    fn restore_meta(&mut self, key: &[u8], value: &[u8]) -> Result<(), RestoreError> {
        let damaged = |reason| RestoreError::damaged(table::PARTITION_META, key, reason);
        let meta: v1::PartitionMeta = rows::decode(table::PARTITION_META, key, value)?;
        if key != META_KEY {
            return Err(damaged("there is one meta row, its key is empty"));
        }
        if meta.next_offset > OFFSET_MAX || meta.log_start_offset > meta.next_offset {
            return Err(damaged("the log start or the next offset is out of range"));
        }
        if meta.lost_from > meta.lost_to || meta.lost_to > meta.next_offset {
            return Err(damaged("the offsets that were lost are out of range"));
        }
        self.time = MachineTime { now_ms: meta.now_ms, dated_ms: meta.dated_ms.max(meta.now_ms) };
        self.timestamp_ahead_max_ms = meta.timestamp_ahead_max_ms;
        self.next_offset = meta.next_offset;
        self.log_start_offset = meta.log_start_offset;
        self.fence_epoch_floor = meta.fence_epoch_floor;
        self.lost = meta.lost_from..meta.lost_to;
        Ok(())
    }
}

/// The payload of a command item.
#[must_use]
pub fn command_payload(command: Command) -> Bytes {
    let message = v1::PartitionCommand { command: Some(command) };
    message.encode_to_vec().into()
}
