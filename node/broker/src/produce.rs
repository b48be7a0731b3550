//! Produce: choose the partition, make or check the batch, propose it, wait for the acknowledgement.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use flotilla_machines::controller::Topic;
use flotilla_machines::partition::PartitionAnswer;
use flotilla_raft::planted::{Bug, is_planted};
use flotilla_records::{BatchBuilder, Codec, Limits, ProducerStamp, TimestampType, partition_for_key, validate};

use crate::NewRecord;
use crate::broker::Broker;
use crate::error::{ProduceError, TopicMissing, unknown_partition};
use crate::partition::PartitionTicket;
use crate::topic_ref::TopicRef;

/// What a produce request carries.
#[derive(Debug, Clone)]
pub enum Payload {
    /// Records that the server makes batches of: one for each partition that they belong to.
    Records {
        /// In order.
        records: Vec<NewRecord>,
        /// How their batch is compressed.
        codec: Codec,
        /// Makes them idempotent.
        producer: Option<ProducerStamp>,
    },
    /// One encoded batch, stored as it is.
    Batch(Bytes),
}

/// A produce request.
#[derive(Debug, Clone)]
pub struct Produce {
    /// Topic by name.
    pub topic: String,
    /// By key where absent.
    pub partition: Option<u32>,
    /// The records.
    pub payload: Payload,
}

/// What is checked of a batch before it is proposed, besides the topic's own limit.
#[derive(Debug, Clone, Copy)]
pub struct ProduceLimits {
    /// Bytes of a batch's records, decompressed.
    pub decompressed_bytes_max: usize,
    /// Records in a batch.
    pub records_per_batch_max: u32,
}

/// An acknowledged record: on the disks of a majority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducedRecord {
    /// Its partition.
    pub partition: u32,
    /// Its offset.
    pub offset: u64,
    /// The server's time, if the topic uses log append time; milliseconds since the Unix epoch.
    pub append_time_ms: Option<i64>,
    /// It had been appended before; the offset is the original one.
    pub duplicate: bool,
}

/// A request cut into one checked batch for each partition that it touches. Nothing is proposed yet, and each part may
/// go to another node: wherever its partition's leader is.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// In the order in which the request first names their partitions.
    pub parts: Vec<Part>,
    /// For plain records: which part each belongs to, and its place there.
    pub places: Option<Vec<(usize, u32)>>,
}

/// A checked batch and where it goes.
#[derive(Debug, Clone)]
pub struct Part {
    /// Its topic.
    pub topic: Arc<Topic>,
    /// Its partition.
    pub partition: u32,
    /// The Raft group of the partition.
    pub group_id: u64,
    /// As it was checked; see [`Broker::prepare`].
    pub batch: Bytes,
    /// How many records it has.
    pub record_count: u32,
    /// Whether it comes from an idempotent producer, so that sending it twice stores it once.
    pub idempotent: bool,
}

/// A part whose place in its partition's order is fixed. Await [`Submitted::appended`].
pub struct Submitted {
    partition: u32,
    append_time_ms: Option<i64>,
    ticket: PartitionTicket,
}

/// Partition for records without a key, advanced with each request so that load spreads.
#[derive(Default)]
pub(crate) struct Sticky(AtomicU32);

impl Sticky {
    fn next(&self, partition_count: u32) -> u32 {
        self.0.fetch_add(1, Ordering::Relaxed) % partition_count.max(1)
    }
}

impl Broker {
    /// Chooses partitions, makes batches of plain records, and checks all of it. What this returns may be submitted by
    /// any node.
    ///
    /// # Errors
    /// What is wrong with the request; nothing of it was proposed.
    pub fn prepare(&self, request: Produce) -> Result<Prepared, ProduceError> {
        let topic = self.topic(&request.topic)?;
        self.prepare_for(&topic, request.partition, request.payload)
    }

    /// As [`Broker::prepare`], for a topic that was looked up before: what has its name by now does not matter.
    ///
    /// # Errors
    /// As `prepare`.
    pub fn prepare_for(&self, topic: &Arc<Topic>, partition: Option<u32>, payload: Payload) -> Result<Prepared, ProduceError> {
        match payload {
            Payload::Batch(batch) => {
                let part = self.prepare_batch(topic, partition, batch)?;
                Ok(Prepared { parts: vec![part], places: None })
            }
            Payload::Records { records, codec, producer } => {
                self.prepare_records(topic, partition, &Records { records, codec, producer })
            }
        }
    }

    /// Admits and submits a part, if this node leads its partition. Parts submitted one after the other are appended in
    /// that order.
    ///
    /// # Errors
    /// Why it was not proposed.
    pub async fn submit(&self, part: &Part) -> Result<Submitted, ProduceError> {
        let partition = self.partition(&part.topic, part.partition)?;
        let (batch, append_time_ms) = match part.topic.config.timestamp_type {
            TimestampType::CreateTime => (part.batch.clone(), None),
            TimestampType::LogAppendTime => {
                let now = self.inner.clock.likely_ms();
                (flotilla_records::with_append_time(&part.batch, now)?, Some(now))
            }
        };
        let ticket = partition.submit_batch(batch).await?;
        Ok(Submitted { partition: part.partition, append_time_ms, ticket })
    }

    fn prepare_batch(&self, topic: &Arc<Topic>, partition: Option<u32>, batch: Bytes) -> Result<Part, ProduceError> {
        let partition_count = topic.partitions.len() as u32;
        let partition = match partition {
            Some(partition) => partition,
            None if partition_count == 1 => 0,
            None => return Err(ProduceError::PartitionRequired { topic: topic.name.to_string(), partition_count }),
        };
        self.part(topic, partition, batch)
    }

    fn prepare_records(&self, topic: &Arc<Topic>, partition: Option<u32>, records: &Records) -> Result<Prepared, ProduceError> {
        if records.records.is_empty() {
            return Err(ProduceError::Empty);
        }
        let plan = self.plan(topic, partition, records)?;
        let mut parts = Vec::with_capacity(plan.batches.len());
        for (partition, mut builder) in plan.batches {
            let producer = records.producer.filter(|_| !is_planted(Bug::ProducerIgnored));
            let batch = builder.finish(records.codec, producer)?;
            parts.push(self.part(topic, partition, batch)?);
        }
        Ok(Prepared { parts, places: Some(plan.places) })
    }

    fn plan(&self, topic: &Topic, partition: Option<u32>, records: &Records) -> Result<Plan, ProduceError> {
        let partition_count = topic.partitions.len() as u32;
        let now = self.inner.clock.likely_ms();
        let mut keyless = None;
        let mut plan = Plan::default();
        for record in &records.records {
            let partition = match (partition, &record.key) {
                (Some(partition), _) => partition,
                (None, Some(key)) => partition_for_key(key, partition_count),
                (None, None) => *keyless.get_or_insert_with(|| self.next_keyless(topic)),
            };
            plan.add(partition, record, now)?;
        }
        if records.producer.is_some() && plan.batches.len() > 1 {
            return Err(ProduceError::SeveralPartitions);
        }
        Ok(plan)
    }

    /// Where the next request's records without a key go: a partition that is led, as far as is known, if there is any.
    fn next_keyless(&self, topic: &Topic) -> u32 {
        let count = topic.partitions.len() as u32;
        let first = self.sticky().next(count);
        let is_led = |partition: &u32| {
            topic.partitions.get(*partition as usize).is_some_and(|layout| self.followed_leader(layout).is_some())
        };
        (0..count).map(|step| (first + step) % count).find(is_led).unwrap_or(first)
    }

    /// Validates a batch for a partition.
    fn part(&self, topic: &Arc<Topic>, partition: u32, batch: Bytes) -> Result<Part, ProduceError> {
        let group_id = topic.partitions.get(partition as usize).map(|layout| layout.group_id);
        let group_id = group_id.ok_or_else(|| unknown_partition(topic, partition))?;
        let bytes_max = topic.config.batch_bytes_max;
        if batch.len() as u64 > bytes_max {
            return Err(ProduceError::BatchTooLarge { topic: topic.name.to_string(), bytes: batch.len(), bytes_max });
        }
        let limits = self.produce_limits();
        let limits = Limits {
            decompressed_bytes_max: limits.decompressed_bytes_max,
            records_max: limits.records_per_batch_max,
            ..Limits::default()
        };
        let header = validate(&batch, &limits)?.header;
        let idempotent = header.producer.is_some();
        Ok(Part { topic: topic.clone(), partition, group_id, batch, record_count: header.record_count, idempotent })
    }

    pub(crate) fn topic<'a>(&self, topic: impl Into<TopicRef<'a>>) -> Result<Arc<Topic>, TopicMissing> {
        topic.into().find(&self.image()).cloned()
    }
}

struct Records {
    records: Vec<NewRecord>,
    codec: Codec,
    producer: Option<ProducerStamp>,
}

/// Which record goes where.
#[derive(Default)]
struct Plan {
    batches: Vec<(u32, BatchBuilder)>,
    places: Vec<(usize, u32)>,
}

impl Plan {
    fn add(&mut self, partition: u32, record: &NewRecord, now: i64) -> Result<(), ProduceError> {
        let known = self.batches.iter().position(|(other, _)| *other == partition);
        let part = known.unwrap_or(self.batches.len());
        if known.is_none() {
            self.batches.push((partition, BatchBuilder::new()));
        }
        if let Some((_, builder)) = self.batches.get_mut(part) {
            self.places.push((part, builder.record_count()));
            let headers = record.headers.iter().map(|header| (header.key.as_str(), header.value.as_deref()));
            builder.add(record.timestamp_ms.unwrap_or(now), record.key.as_deref(), record.value.as_deref(), headers)?;
        }
        Ok(())
    }
}

impl Submitted {
    /// Waits until it is acknowledged or refused. The answer is about its first record.
    ///
    /// # Errors
    /// See [`ProduceError`].
    pub async fn appended(self) -> Result<ProducedRecord, ProduceError> {
        let outcome = self.ticket.outcome().await?;
        let (offset, duplicate) = match outcome? {
            PartitionAnswer::Appended { base_offset, .. } => (base_offset, false),
            PartitionAnswer::Duplicate { base_offset } => (base_offset + u64::from(is_planted(Bug::DuplicateElsewhere)), true),
            other => return Err(ProduceError::Unknown { reason: format!("the partition answered {other:?}") }),
        };
        Ok(ProducedRecord { partition: self.partition, offset, append_time_ms: self.append_time_ms, duplicate })
    }
}
