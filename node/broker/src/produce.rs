//! Produce: choose the partition, make or check the batch, propose it, wait for the acknowledgement.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use flotilla_machines::controller::Topic;
use flotilla_machines::partition::PartitionAnswer;
use flotilla_records::{BatchBuilder, Codec, Limits, ProducerStamp, TimestampType, partition_for_key, validate};

use crate::NewRecord;
use crate::broker::Broker;
use crate::error::{ProduceError, TopicMissing};
use crate::hosts::now_ms;
use crate::partition::PartitionTicket;

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

/// What became of the records of one request.
#[derive(Debug)]
pub enum Produced {
    /// For each plain record, in order.
    Records(Vec<Result<ProducedRecord, ProduceError>>),
    /// For the encoded batch: its first record.
    Batch(ProducedRecord),
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

/// A produce request whose place in each partition's order is fixed. Await [`Submitted::produced`].
pub struct Submitted {
    parts: Vec<Part>,
    /// For plain records: which part each belongs to, and its place there.
    places: Option<Vec<(usize, u32)>>,
}

struct Part {
    partition: u32,
    append_time_ms: Option<i64>,
    ticket: Result<PartitionTicket, ProduceError>,
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
    /// Checks, admits and submits a request. Requests submitted one after the other are appended in that order.
    ///
    /// # Errors
    /// Why nothing of the request was proposed.
    pub async fn submit(&self, request: Produce) -> Result<Submitted, ProduceError> {
        let topic = self.topic(&request.topic)?;
        match request.payload {
            Payload::Batch(batch) => self.submit_batch(&topic, request.partition, batch).await,
            Payload::Records { records, codec, producer } => {
                let records = Records { records, codec, producer };
                self.submit_records(&topic, request.partition, records).await
            }
        }
    }

    /// [`Broker::submit`], then waits for the acknowledgement.
    ///
    /// # Errors
    /// See [`ProduceError`]; single records of several may fail inside the answer.
    pub async fn produce(&self, request: Produce) -> Result<Produced, ProduceError> {
        self.submit(request).await?.produced().await
    }

    async fn submit_batch(&self, topic: &Topic, partition: Option<u32>, batch: Bytes) -> Result<Submitted, ProduceError> {
        let partition_count = topic.partitions.len() as u32;
        let partition = match partition {
            Some(partition) => partition,
            None if partition_count == 1 => 0,
            None => return Err(ProduceError::PartitionRequired { topic: topic.name.to_string(), partition_count }),
        };
        let (batch, append_time_ms) = self.check(topic, batch)?;
        let ticket = self.partition(topic, partition)?.submit_batch(batch).await?;
        let part = Part { partition, append_time_ms, ticket: Ok(ticket) };
        Ok(Submitted { parts: vec![part], places: None })
    }

    async fn submit_records(
        &self,
        topic: &Arc<Topic>,
        partition: Option<u32>,
        records: Records,
    ) -> Result<Submitted, ProduceError> {
        if records.records.is_empty() {
            return Err(ProduceError::Empty);
        }
        let plan = self.plan(topic, partition, &records)?;
        let mut parts = Vec::with_capacity(plan.batches.len());
        // Everything is checked before anything is proposed.
        for (partition, mut builder) in plan.batches {
            let batch = builder.finish(records.codec, records.producer)?;
            let (batch, append_time_ms) = self.check(topic, batch)?;
            parts.push((self.partition(topic, partition)?, batch, append_time_ms));
        }
        let mut submitted = Vec::with_capacity(parts.len());
        for (partition, batch, append_time_ms) in parts {
            let ticket = partition.submit_batch(batch).await.map_err(ProduceError::from);
            submitted.push(Part { partition: partition.number, append_time_ms, ticket });
        }
        Ok(Submitted { parts: submitted, places: Some(plan.places) })
    }

    fn plan(&self, topic: &Topic, partition: Option<u32>, records: &Records) -> Result<Plan, ProduceError> {
        let partition_count = topic.partitions.len() as u32;
        let now = now_ms();
        let mut keyless = None;
        let mut plan = Plan::default();
        for record in &records.records {
            let partition = match (partition, &record.key) {
                (Some(partition), _) => partition,
                (None, Some(key)) => partition_for_key(key, partition_count),
                (None, None) => *keyless.get_or_insert_with(|| self.sticky().next(partition_count)),
            };
            plan.add(partition, record, now)?;
        }
        if records.producer.is_some() && plan.batches.len() > 1 {
            return Err(ProduceError::SeveralPartitions);
        }
        Ok(plan)
    }

    /// Validates a batch, and gives it the server's time where the topic wants that.
    fn check(&self, topic: &Topic, batch: Bytes) -> Result<(Bytes, Option<i64>), ProduceError> {
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
        validate(&batch, &limits)?;
        match topic.config.timestamp_type {
            TimestampType::CreateTime => Ok((batch, None)),
            TimestampType::LogAppendTime => {
                let now = now_ms();
                Ok((flotilla_records::with_append_time(&batch, now)?, Some(now)))
            }
        }
    }

    pub(crate) fn topic(&self, name: &str) -> Result<Arc<Topic>, TopicMissing> {
        self.image().topic(name).cloned().ok_or_else(|| TopicMissing::UnknownTopic { topic: name.to_owned() })
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
    /// Waits until every part is acknowledged or refused.
    ///
    /// # Errors
    /// If the request had one part (an encoded batch, or records of one partition) and that failed.
    pub async fn produced(self) -> Result<Produced, ProduceError> {
        let mut appended = Vec::with_capacity(self.parts.len());
        for part in self.parts {
            appended.push(part.appended().await);
        }
        let Some(places) = self.places else {
            let first = appended.into_iter().next().unwrap_or(Err(ProduceError::Empty));
            return Ok(Produced::Batch(first?));
        };
        if let [Err(error)] = appended.as_slice() {
            return Err(error.clone());
        }
        let record = |(part, delta): (usize, u32)| match appended.get(part) {
            Some(Ok(first)) => Ok(ProducedRecord { offset: first.offset + u64::from(delta), ..*first }),
            Some(Err(error)) => Err(error.clone()),
            None => Err(ProduceError::Empty),
        };
        Ok(Produced::Records(places.into_iter().map(record).collect()))
    }
}

impl Part {
    async fn appended(self) -> Result<ProducedRecord, ProduceError> {
        let outcome = self.ticket?.outcome().await?;
        let (offset, duplicate) = match outcome? {
            PartitionAnswer::Appended { base_offset, .. } => (base_offset, false),
            PartitionAnswer::Duplicate { base_offset } => (base_offset, true),
            other => return Err(ProduceError::Unknown { reason: format!("the partition answered {other:?}") }),
        };
        Ok(ProducedRecord { partition: self.partition, offset, append_time_ms: self.append_time_ms, duplicate })
    }
}
