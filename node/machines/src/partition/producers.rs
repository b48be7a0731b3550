//! What is remembered of idempotent producers, so that a retried batch is recognised (as in Kafka's KIP-98).
//!
//! A producer numbers its records; after `i32::MAX` follows 0. A batch is accepted if its first number is the one that
//! follows the producer's last batch. A batch that equals one of the last five is a duplicate, so up to five batches
//! may be on their way at once.
//!
//! A batch with number 0 of an unknown producer is its first one, because nobody is forgotten who may still send it again: a
//! producer is forgotten only once it has been idle for longer than any retry takes. Where there is no room, new producers
//! are refused, and those that are known go on.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use flotilla_proto::internal::v1;
use flotilla_records::ProducerStamp;
use prost::Message;

use super::PartitionRefusal;
use crate::rows::{self, RestoreError, Rows, table};

/// Batches remembered of each producer.
pub const BATCHES_REMEMBERED: usize = 5;
/// Producers remembered by a partition, in about 30 MB.
pub const PRODUCERS_MAX: usize = 100_000;
/// A producer that appended nothing for this many milliseconds of machine time is forgotten (a day), and goes on under a new
/// id. No client retries for that long, and a partition has room for more than one new producer a second.
pub const PRODUCER_IDLE_MS_MAX: i64 = 24 * 60 * 60 * 1000;
/// Producers forgotten at most when time advances, so that no single entry takes long to apply.
const FORGOTTEN_PER_TICK_MAX: usize = 1_000;

const _: () = assert!(FORGOTTEN_PER_TICK_MAX <= PRODUCERS_MAX);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Producers {
    by_id: BTreeMap<i64, Producer>,
    /// (time of the last append, id): the longest idle first.
    by_idleness: BTreeSet<(i64, i64)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Producer {
    epoch: i16,
    last_append_ms: i64,
    /// Oldest first; never empty.
    batches: VecDeque<RememberedBatch>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RememberedBatch {
    base_sequence: i32,
    record_count: u32,
    base_offset: u64,
}

/// What to do with an admissible batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    New,
    Duplicate { base_offset: u64 },
}

impl Producers {
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether a batch of `record_count` records may be appended.
    pub(super) fn admit(&self, stamp: &ProducerStamp, record_count: u32) -> Result<Admission, PartitionRefusal> {
        let producer_id = stamp.id;
        let got = stamp.base_sequence;
        let Some(producer) = self.by_id.get(&producer_id) else {
            return match got {
                0 if self.by_id.len() < PRODUCERS_MAX => Ok(Admission::New),
                0 => Err(PartitionRefusal::TooManyProducers { producer_id }),
                got => Err(PartitionRefusal::UnknownProducer { producer_id, got }),
            };
        };
        if stamp.epoch < producer.epoch {
            return Err(PartitionRefusal::ProducerFenced { producer_id, epoch: stamp.epoch, current_epoch: producer.epoch });
        }
        let same_epoch = stamp.epoch == producer.epoch;
        if same_epoch && let Some(base_offset) = producer.offset_of(got, record_count) {
            return Ok(Admission::Duplicate { base_offset });
        }
        let expected = if same_epoch { producer.next_sequence() } else { 0 };
        if got != expected {
            return Err(PartitionRefusal::OutOfOrderSequence { producer_id, expected, got });
        }
        Ok(Admission::New)
    }

    /// Remembers an admitted batch.
    pub(super) fn record(
        &mut self,
        stamp: &ProducerStamp,
        record_count: u32,
        base_offset: u64,
        dated_ms: i64,
        rows: &mut dyn Rows,
    ) {
        // Not of an admitted batch, but what is taken over behind a loss may be of more producers.
        if !self.by_id.contains_key(&stamp.id) && self.by_id.len() >= PRODUCERS_MAX {
            self.forget_longest_idle(rows);
        }
        let producer = self.by_id.entry(stamp.id).or_insert_with(|| Producer {
            epoch: stamp.epoch,
            last_append_ms: dated_ms,
            batches: VecDeque::new(),
        });
        self.by_idleness.remove(&(producer.last_append_ms, stamp.id));
        self.by_idleness.insert((dated_ms, stamp.id));
        if producer.epoch != stamp.epoch {
            producer.batches.clear();
        }
        if producer.batches.len() >= BATCHES_REMEMBERED {
            producer.batches.pop_front();
        }
        producer.epoch = stamp.epoch;
        producer.last_append_ms = dated_ms;
        producer.batches.push_back(RememberedBatch { base_sequence: stamp.base_sequence, record_count, base_offset });
        let stored = v1::StoredProducer::from(&*producer);
        rows.put(table::PRODUCER, &rows::producer_key(stamp.id), stored.encode_to_vec());
    }

    /// Forgets producers that have been idle for too long.
    pub(super) fn forget_idle(&mut self, now_ms: i64, rows: &mut dyn Rows) {
        for _ in 0..FORGOTTEN_PER_TICK_MAX {
            match self.by_idleness.first() {
                Some((last_append_ms, _)) if is_idle(*last_append_ms, now_ms) => {
                    self.forget_longest_idle(rows);
                }
                _ => break,
            }
        }
    }

    /// Forgets all: each must go on under a new id.
    pub(super) fn forget_all(&mut self, rows: &mut dyn Rows) {
        while !self.by_idleness.is_empty() {
            self.forget_longest_idle(rows);
        }
    }

    fn forget_longest_idle(&mut self, rows: &mut dyn Rows) {
        if let Some((_, id)) = self.by_idleness.pop_first() {
            self.by_id.remove(&id);
            rows.delete(table::PRODUCER, &rows::producer_key(id));
        }
    }

    pub(super) fn restore(&mut self, key: &[u8], value: &[u8]) -> Result<(), RestoreError> {
        let id = rows::parse_producer_key(key)?;
        let stored: v1::StoredProducer = rows::decode(table::PRODUCER, key, value)?;
        let producer = Producer::from_stored(&stored)
            .ok_or_else(|| RestoreError::damaged(table::PRODUCER, key, "epoch or batches are out of range"))?;
        self.by_idleness.insert((producer.last_append_ms, id));
        self.by_id.insert(id, producer);
        Ok(())
    }
}

fn is_idle(last_append_ms: i64, now_ms: i64) -> bool {
    now_ms.saturating_sub(last_append_ms) >= PRODUCER_IDLE_MS_MAX
}

impl Producer {
    /// Where the batch was appended, if it is one of the remembered.
    fn offset_of(&self, base_sequence: i32, record_count: u32) -> Option<u64> {
        self.batches
            .iter()
            .find(|batch| (batch.base_sequence, batch.record_count) == (base_sequence, record_count))
            .map(|batch| batch.base_offset)
    }

    fn next_sequence(&self) -> i32 {
        self.batches.back().map_or(0, |last| {
            let stamp = ProducerStamp { id: 0, epoch: self.epoch, base_sequence: last.base_sequence };
            stamp.sequence_after(last.record_count)
        })
    }

    /// `None` if a number is out of range.
    fn from_stored(stored: &v1::StoredProducer) -> Option<Self> {
        let remembered = |batch: &v1::StoredBatch| {
            Some(RememberedBatch {
                base_sequence: i32::try_from(batch.base_sequence).ok()?,
                record_count: batch.record_count,
                base_offset: batch.base_offset,
            })
        };
        if stored.batches.is_empty() || stored.batches.len() > BATCHES_REMEMBERED {
            return None;
        }
        Some(Self {
            epoch: i16::try_from(stored.epoch).ok()?,
            last_append_ms: stored.last_append_ms,
            batches: stored.batches.iter().map(remembered).collect::<Option<_>>()?,
        })
    }
}

impl From<&Producer> for v1::StoredProducer {
    fn from(producer: &Producer) -> Self {
        let stored = |batch: &RememberedBatch| v1::StoredBatch {
            // Neither is negative: a batch header with such a stamp is refused.
            base_sequence: batch.base_sequence as u32,
            record_count: batch.record_count,
            base_offset: batch.base_offset,
        };
        Self {
            epoch: producer.epoch as u32,
            last_append_ms: producer.last_append_ms,
            batches: producer.batches.iter().map(stored).collect(),
        }
    }
}
