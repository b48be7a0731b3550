//! A batch on its way: encoded for its first attempt, and kept until its outcome is known.

use std::time::Instant;

use bytes::Bytes;
use flotilla_records::{Batch as Encoded, BatchBuilder, BatchError, Codec, ProducerStamp};
use tokio::sync::oneshot;

use super::accumulator::Open;
use super::delivery::Outcome;

/// Names an attempt at sending a batch; never used twice by a producer.
pub(super) type Correlation = u64;
/// Names a stream; never used twice by a producer.
pub(super) type StreamId = u64;

/// No batch that was built here is larger.
const FORMAT_BYTES_MAX: usize = i32::MAX as usize;

/// One batch of a partition's queue.
#[derive(Debug)]
pub(super) struct Batch {
    /// Rises within a producer.
    pub id: u64,
    content: Content,
    /// Who writes it, and its sequence numbers, once given. Without idempotence never.
    pub stamp: Option<ProducerStamp>,
    /// How many batches of its queue were stamped before it, once it is stamped.
    pub place: Option<u64>,
    pub records: u32,
    /// Bytes of the records' keys and values.
    pub payload_bytes: u64,
    pub reserved_bytes: usize,
    pub unwatched: bool,
    /// When it is given up.
    pub deadline: Instant,
    pub attempt: Option<Attempt>,
    /// Whether an attempt ended without an answer, so that the batch may be in the log.
    pub in_doubt: bool,
    pub outcome: oneshot::Sender<Outcome>,
}

/// A batch's present attempt.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attempt {
    pub stream: StreamId,
    pub correlation: Correlation,
    pub since: Instant,
}

#[derive(Debug)]
enum Content {
    Building(BatchBuilder),
    Built { bytes: Bytes, stamp: Option<ProducerStamp> },
}

impl Batch {
    pub fn new(id: u64, open: Open, deadline: Instant) -> Self {
        Self {
            id,
            records: open.builder.record_count(),
            content: Content::Building(open.builder),
            stamp: None,
            place: None,
            payload_bytes: open.payload_bytes,
            reserved_bytes: open.reserved_bytes,
            unwatched: open.unwatched,
            deadline,
            attempt: None,
            in_doubt: false,
            outcome: open.outcome,
        }
    }

    /// The encoded batch under its present stamp, and a builder to use again if one became free.
    pub fn encoded(&mut self, codec: Codec) -> Result<(Bytes, Option<BatchBuilder>), BatchError> {
        let (bytes, spare) = match &mut self.content {
            Content::Building(builder) => {
                let bytes = builder.finish(codec, self.stamp)?;
                (bytes, Some(std::mem::take(builder)))
            }
            Content::Built { bytes, stamp } if *stamp == self.stamp => (bytes.clone(), None),
            Content::Built { bytes, .. } => (restamped(bytes, codec, self.stamp)?, None),
        };
        self.content = Content::Built { bytes: bytes.clone(), stamp: self.stamp };
        Ok((bytes, spare))
    }

    /// Bytes as sent; 0 before the first attempt.
    pub fn sent_bytes(&self) -> usize {
        match &self.content {
            Content::Built { bytes, .. } => bytes.len(),
            Content::Building(_) => 0,
        }
    }
}

fn restamped(bytes: &Bytes, codec: Codec, stamp: Option<ProducerStamp>) -> Result<Bytes, BatchError> {
    let body = Encoded::parse(bytes.clone())?.body(FORMAT_BYTES_MAX)?;
    let mut builder = BatchBuilder::with_capacity(body.bytes().len());
    for record in &body {
        let record = record?;
        let headers = record.headers.iter().map(|header| (header.key, header.value));
        builder.add(record.timestamp_ms, record.key, record.value, headers)?;
    }
    builder.finish(codec, stamp)
}
