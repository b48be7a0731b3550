//! The records of one stored batch, as far as they were asked for. Decoded while they are walked, without copies.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use flotilla_records::{Batch, Body, Headers, RecordRef};

use crate::error::Error;

/// Records of one partition that follow each other. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Chunk {
    topic: Arc<str>,
    partition: u32,
    body: Body,
    /// Offsets to hand out; the batch may reach beyond on both sides.
    offsets: Range<u64>,
    high_watermark: u64,
}

/// One record of a [`Chunk`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsumedRecord<'a> {
    /// Its place in the partition.
    pub offset: u64,
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// Its key, if it has one.
    pub key: Option<&'a [u8]>,
    /// Its payload; none is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Its headers, in order.
    pub headers: Headers<'a>,
}

impl Chunk {
    /// Checks and, if need be, decompresses a batch; of its records those at `wanted` offsets count.
    pub(super) fn new(
        topic: &Arc<str>,
        partition: u32,
        bytes: Bytes,
        wanted: Range<u64>,
        high_watermark: u64,
        decompressed_bytes_max: usize,
    ) -> Result<Self, Error> {
        let batch = Batch::parse(bytes)?;
        batch.verify_crc()?;
        let header = *batch.header();
        let until = header.base_offset.saturating_add(u64::from(header.offset_count())).min(wanted.end);
        let from = wanted.start.max(header.base_offset);
        // Control batches hold markers of the server: they take offsets, but nobody reads them.
        let offsets = if header.control { until..until } else { from..until.max(from) };
        let body = batch.body(decompressed_bytes_max)?;
        Ok(Self { topic: Arc::clone(topic), partition, body, offsets, high_watermark })
    }

    /// The topic's name.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The partition.
    #[must_use]
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// The offset behind the last record: commit this when all are processed.
    #[must_use]
    pub fn next_offset(&self) -> u64 {
        self.offsets.end
    }

    /// One behind the partition's last record when this was read.
    #[must_use]
    pub fn high_watermark(&self) -> u64 {
        self.high_watermark
    }

    /// Whether it covers no offset.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// The records, decoded one by one; ends after the first error. Allocates nothing.
    pub fn records(&self) -> impl Iterator<Item = Result<ConsumedRecord<'_>, Error>> {
        let base_offset = self.body.header().base_offset;
        let place = move |record: RecordRef<'_>| base_offset + u64::from(record.offset_delta);
        self.body.iter().filter_map(move |record| match record {
            Ok(record) if self.offsets.contains(&place(record)) => Some(Ok(ConsumedRecord {
                offset: place(record),
                timestamp_ms: record.timestamp_ms,
                key: record.key,
                value: record.value,
                headers: record.headers,
            })),
            Ok(_) => None,
            Err(error) => Some(Err(error.into())),
        })
    }
}
