//! Fetch: positions become offsets, offsets become stored batches or plain records.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flotilla_raft::types::Kept;
use flotilla_records::{Batch, BatchHeader, Header, with_base_offset};

use crate::broker::Broker;
use crate::error::{FetchError, NotServing, not_leader};
use crate::partition::{Ends, Partition};
use crate::reader::PartitionReader;
use crate::topic_ref::TopicRef;

/// A place in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// This offset.
    Offset(u64),
    /// The first record that is still there.
    Earliest,
    /// Behind the last record that was acknowledged.
    Latest,
    /// The first record with this timestamp (milliseconds since the Unix epoch) or a later one. One without a timestamp has
    /// that of its arrival; in a batch that is dated farther ahead than its topic allows, none is later than that.
    Timestamp(i64),
}

/// Where reading ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stop {
    /// Nowhere.
    #[default]
    Never,
    /// Before this offset.
    Before(u64),
    /// Behind the last record that was acknowledged before reading began.
    AtEnd,
}

/// What one read gave.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// Stored batches in order. The first may begin before the position, the last may end behind the stop.
    pub batches: Vec<FetchedBatch>,
    /// The position that was read from.
    pub from: u64,
    /// Where the next read goes on.
    pub next_offset: u64,
    /// The partition's ends when the read was answered.
    pub ends: Ends,
}

/// A stored batch and what is supplied at read time.
#[derive(Debug, Clone)]
pub struct FetchedBatch {
    /// Offset of its first record.
    pub base_offset: u64,
    /// Number of its records.
    pub record_count: u32,
    /// Term of the leader that appended it.
    pub leader_epoch: i32,
    /// As it was stored.
    pub payload: Bytes,
}

/// A record with its offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedRecord {
    /// Position in the partition.
    pub offset: u64,
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value; absent is a tombstone.
    pub value: Option<Bytes>,
    /// In order.
    pub headers: Vec<Header>,
}

/// An offset that a position stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionOffset {
    /// The partition.
    pub partition: u32,
    /// The offset.
    pub offset: u64,
    /// Timestamp of the record found, where one was looked up.
    pub timestamp_ms: Option<i64>,
    /// The partition's ends.
    pub ends: Ends,
}

impl Broker {
    /// Opens a reader; see [`PartitionReader`]. What is committed can be read also where nobody can lead; where the log
    /// ends must be confirmed by a majority, if that is what is asked for.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn reader<'a>(
        &self,
        topic: impl Into<TopicRef<'a>>,
        partition: u32,
        position: Position,
        stop: Stop,
    ) -> Result<PartitionReader, FetchError> {
        let topic = self.topic(topic)?;
        let partition = self.partition(&topic, partition)?;
        if stop == Stop::AtEnd || position == Position::Latest {
            partition.barrier().await?;
        } else if !partition.may_be_read().await {
            let what = partition.describe();
            return Err(match self.led_elsewhere(partition.group.id().0) {
                Some(leader) => NotServing::NotLeader { what, leader: Some(leader) },
                None => NotServing::NotReady { what },
            }
            .into());
        }
        let start = resolve(&partition, position, self.decompressed_bytes_max()).await?;
        let stop = match stop {
            Stop::Never => None,
            Stop::Before(offset) => Some(offset),
            Stop::AtEnd => Some(partition.ends().high_watermark),
        };
        Ok(PartitionReader::new(partition, start.offset, stop, self.decompressed_bytes_max()))
    }

    /// Opens a reader of all that this node's replica knows to be committed, whoever leads: for those who compare replicas.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub fn replica_reader(&self, topic: &str, partition: u32) -> Result<PartitionReader, FetchError> {
        let topic = self.topic(topic)?;
        let partition = self.partition(&topic, partition)?;
        let start = partition.ends().log_start_offset;
        Ok(PartitionReader::new(partition, start, None, self.decompressed_bytes_max()))
    }

    /// Turns a position into an offset, for the partitions named or all. Linearizable: whatever was acknowledged
    /// before the call counts.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn list_offsets<'a>(
        &self,
        topic: impl Into<TopicRef<'a>>,
        partitions: &[u32],
        position: Position,
    ) -> Result<Vec<PartitionOffset>, FetchError> {
        let topic = self.topic(topic)?;
        let wanted = topic_partitions(&topic, partitions);
        let mut offsets = Vec::with_capacity(wanted.len());
        for number in wanted {
            let partition = self.partition(&topic, number)?;
            partition.barrier().await?;
            offsets.push(resolve(&partition, position, self.decompressed_bytes_max()).await?);
        }
        Ok(offsets)
    }
}

/// The partitions named, each once, or all.
pub(crate) fn topic_partitions(topic: &crate::Topic, named: &[u32]) -> BTreeSet<u32> {
    let count = u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX);
    if named.is_empty() { (0..count).collect() } else { named.iter().copied().collect() }
}

/// What a position stands for. That there is nothing at it, or where the log ends, takes a majority to say: who resolves
/// `Latest` has passed the barrier before.
async fn resolve(
    partition: &Arc<Partition>,
    position: Position,
    decompressed_bytes_max: usize,
) -> Result<PartitionOffset, FetchError> {
    let ends = partition.ends();
    let (offset, timestamp_ms) = match position {
        Position::Earliest => (ends.log_start_offset, None),
        Position::Latest => (ends.high_watermark, None),
        Position::Offset(offset) => {
            // What was acknowledged by an earlier leader may not be applied here yet.
            if offset > ends.high_watermark {
                partition.barrier().await?;
            }
            let ends = partition.ends();
            check_range(partition, offset, ends)?;
            (offset, None)
        }
        Position::Timestamp(timestamp_ms) => {
            let found = match find_timestamp(partition, timestamp_ms, decompressed_bytes_max).await? {
                None => {
                    partition.barrier().await?;
                    let end = partition.ends().high_watermark;
                    find_timestamp(partition, timestamp_ms, decompressed_bytes_max).await?.ok_or(end)
                }
                Some(found) => Ok(found),
            };
            found.map_or_else(|end| (end, None), |(offset, timestamp_ms)| (offset, Some(timestamp_ms)))
        }
    };
    Ok(PartitionOffset { partition: partition.number, offset, timestamp_ms, ends: partition.ends() })
}

pub(crate) fn check_range(partition: &Partition, offset: u64, ends: Ends) -> Result<(), FetchError> {
    let Ends { log_start_offset, high_watermark } = ends;
    if offset < log_start_offset || offset > high_watermark {
        let (topic, partition) = (partition.topic.to_string(), partition.number);
        return Err(FetchError::OffsetOutOfRange { topic, partition, offset, log_start_offset, high_watermark });
    }
    Ok(())
}

/// The first record with this timestamp or a later one that this replica has, and its own timestamp.
async fn find_timestamp(
    partition: &Arc<Partition>,
    timestamp_ms: i64,
    decompressed_bytes_max: usize,
) -> Result<Option<(u64, i64)>, FetchError> {
    let mut from = partition.ends().log_start_offset;
    loop {
        let found = partition.group.find_timestamp(timestamp_ms, from).await;
        let found = found.map_err(|error| read_error(partition, error))?;
        let ends = partition.ends();
        let Some(item) = found else { return Ok(None) };
        let kept_ms = item.kept.max_timestamp_ms;
        let batch = FetchedBatch::new(item.kept, item.log_id.term, item.payload);
        for record in batch.records(decompressed_bytes_max)? {
            let record = record?;
            let counts_ms = if record.timestamp_ms < 0 { kept_ms } else { record.timestamp_ms };
            if counts_ms >= timestamp_ms && record.offset >= ends.log_start_offset {
                return Ok(Some((record.offset, counts_ms)));
            }
        }
        // The record that was late enough lies before the log's start, inside of a batch that reaches behind it.
        from = batch.end_offset();
    }
}

pub(crate) fn read_error(partition: &Partition, error: flotilla_raft::group::ReadError) -> FetchError {
    match not_leader(error, || partition.describe()) {
        Ok(not_serving) => not_serving.into(),
        Err(reason) => {
            let what = partition.describe();
            tracing::error!(partition = what, reason, "reading found damage: what is damaged is not served");
            FetchError::NotServing(match partition.group.can_be_spared() {
                // Another replica takes over, and has it.
                true => NotServing::NotReady { what },
                false => NotServing::Damaged { what, reason },
            })
        }
    }
}

impl FetchedBatch {
    pub(crate) fn new(kept: Kept, term: u64, payload: Bytes) -> Self {
        let leader_epoch = i32::try_from(term).unwrap_or(i32::MAX);
        Self { base_offset: kept.base_offset, record_count: kept.offset_count, leader_epoch, payload }
    }

    /// One behind its last record.
    #[must_use]
    pub fn end_offset(&self) -> u64 {
        self.base_offset + u64::from(self.record_count)
    }

    /// The batch with its base offset and leader epoch filled in, as clients get it.
    ///
    /// # Errors
    /// If the stored bytes are not a batch.
    pub fn stamped(self) -> Result<Bytes, FetchError> {
        let offset = self.base_offset;
        // One that came from another node is stamped already.
        let is_stamped = |header: BatchHeader| (header.base_offset, header.leader_epoch) == (offset, self.leader_epoch);
        if BatchHeader::parse(&self.payload).is_ok_and(is_stamped) {
            return Ok(self.payload);
        }
        let stamped = with_base_offset(self.payload, self.base_offset, self.leader_epoch);
        stamped.map_err(|reason| FetchError::Corrupt { offset, reason })
    }

    /// Its records, decoded one by one as they are asked for. They share the buffer that the batch is decompressed into.
    ///
    /// # Errors
    /// If the stored bytes do not decode.
    pub fn records(
        &self,
        decompressed_bytes_max: usize,
    ) -> Result<impl Iterator<Item = Result<FetchedRecord, FetchError>> + use<>, FetchError> {
        let base_offset = self.base_offset;
        let corrupt = move |reason| FetchError::Corrupt { offset: base_offset, reason };
        let body = Batch::parse(self.payload.clone()).and_then(|batch| batch.body(decompressed_bytes_max)).map_err(corrupt)?;
        Ok(body.records().map(move |record| {
            let record = record.map_err(corrupt)?;
            Ok(FetchedRecord {
                offset: base_offset + u64::from(record.offset_delta),
                timestamp_ms: record.timestamp_ms,
                key: record.key,
                value: record.value,
                headers: record.headers,
            })
        }))
    }
}

impl FetchedRecord {
    /// At least what it takes in an answer, in bytes.
    fn bytes(&self) -> usize {
        /// Timestamp, offset and lengths.
        const AROUND_RECORD: usize = 48;
        const AROUND_HEADER: usize = 16;
        let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let headers = self.headers.iter().map(|header| header.key.len() + length(&header.value) + AROUND_HEADER);
        AROUND_RECORD + length(&self.key) + length(&self.value) + headers.sum::<usize>()
    }

    /// Takes its bytes out of the buffer that it shares, which may be many times larger.
    fn unshare(&mut self) {
        let values = self.headers.iter_mut().map(|header| &mut header.value);
        for bytes in values.chain([&mut self.key, &mut self.value]).flatten() {
            *bytes = Bytes::copy_from_slice(bytes);
        }
    }
}

/// How many plain records one read may give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Records at most.
    pub records: usize,
    /// Bytes of them at most, as they take on the wire; one record comes however large.
    pub bytes: usize,
}

impl Fetched {
    /// Bytes of the stored batches.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.batches.iter().map(|batch| batch.payload.len()).sum()
    }

    /// The plain records from the position up to `stop`, as many as there is room for; and where the next read goes on,
    /// which may be inside of a batch. One batch is decompressed at a time, and not kept for a few records of it.
    ///
    /// # Errors
    /// If a stored batch does not decode.
    pub fn records(
        &self,
        stop: Option<u64>,
        room: Room,
        decompressed_bytes_max: usize,
    ) -> Result<(Vec<FetchedRecord>, u64), FetchError> {
        let mut taken: Vec<FetchedRecord> = Vec::new();
        let mut bytes = 0;
        for batch in &self.batches {
            let (before, mut part_of_it, mut full) = (taken.len(), false, false);
            for record in batch.records(decompressed_bytes_max)? {
                let record = record?;
                if record.offset < self.from {
                    part_of_it = true;
                    continue;
                }
                let more = record.bytes();
                let no_room = taken.len() >= room.records || (!taken.is_empty() && bytes + more > room.bytes);
                full = no_room || stop.is_some_and(|stop| record.offset >= stop);
                if full {
                    break;
                }
                bytes += more;
                taken.push(record);
            }
            if part_of_it || full {
                taken.iter_mut().skip(before).for_each(FetchedRecord::unshare);
            }
            if full {
                let next = taken.last().map_or(self.from, |last| last.offset + 1);
                return Ok((taken, next));
            }
        }
        Ok((taken, self.next_offset))
    }
}

#[cfg(test)]
#[path = "fetch_tests.rs"]
mod tests;

/// How long a read that finds nothing waits.
pub(crate) const NO_WAIT: Duration = Duration::ZERO;
