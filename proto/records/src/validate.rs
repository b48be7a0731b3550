//! What a server checks before it takes a batch into the log: everything that a reader will rely on later.

use bytes::Bytes;

use crate::batch::Batch;
use crate::error::{BatchError, RecordError};
use crate::header::{BatchHeader, TimestampType};
use crate::record::RecordRef;

/// The first millisecond of the year 1, since the Unix epoch: no record may be dated earlier.
pub const TIMESTAMP_MS_MIN: i64 = -62_135_596_800_000;
/// The last millisecond of the year 9999, since the Unix epoch: no record may be dated later. Calendars of many languages
/// end there.
pub const TIMESTAMP_MS_MAX: i64 = 253_402_300_799_999;

/// What a batch may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all records, decompressed.
    pub decompressed_bytes_max: usize,
    /// Records in a batch.
    pub records_max: u32,
    /// Headers of a record.
    pub headers_max: u32,
    /// Bytes of a key.
    pub key_bytes_max: usize,
    /// Bytes of a value.
    pub value_bytes_max: usize,
    /// Whether control and transactional batches and log append time are accepted: they are the server's to write.
    pub internal_allowed: bool,
}

impl Default for Limits {
    /// For batches of clients: 16 MiB in 1,000,000 records, 64 KiB of key, any value that fits, 256 headers.
    fn default() -> Self {
        Self {
            decompressed_bytes_max: 16 << 20,
            records_max: 1_000_000,
            headers_max: 256,
            key_bytes_max: 64 << 10,
            value_bytes_max: 16 << 20,
            internal_allowed: false,
        }
    }
}

/// A batch that was found valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchSummary {
    /// Its header.
    pub header: BatchHeader,
    /// Bytes of its records, decompressed.
    pub decompressed_bytes: usize,
}

/// Checks a batch as a client may have sent it, to the last byte: length, format version, checksum, counts, codec,
/// every record with offset deltas 0, 1, 2 …, timestamps between the years 1 and 9999, the largest timestamp, and `limits`. Allocates nothing for an
/// uncompressed batch, and at most about twice the decompressed cap for a compressed one.
///
/// # Errors
/// The first reason found. The batch must then not be stored.
pub fn validate(bytes: &Bytes, limits: &Limits) -> Result<BatchSummary, BatchError> {
    let batch = Batch::parse(bytes.clone())?;
    let header = *batch.header();
    batch.verify_crc()?;
    check_header(&header, limits)?;
    let body = batch.body(limits.decompressed_bytes_max)?;

    let mut max_timestamp_ms = i64::MIN;
    // Offset deltas ascend, are as many as the offsets and end within them: so they are 0, 1, 2 …
    for (index, record) in (0..).zip(&body) {
        let record = record?;
        check_record(&record, limits).map_err(|reason| BatchError::Record { index, reason })?;
        max_timestamp_ms = max_timestamp_ms.max(record.timestamp_ms);
    }
    if max_timestamp_ms != header.max_timestamp_ms {
        return Err(BatchError::MaxTimestampMismatch { announced: header.max_timestamp_ms, actual: max_timestamp_ms });
    }
    Ok(BatchSummary { header, decompressed_bytes: body.bytes().len() })
}

fn check_header(header: &BatchHeader, limits: &Limits) -> Result<(), BatchError> {
    let count = header.record_count;
    if count == 0 {
        return Err(BatchError::NoRecords);
    }
    if count != header.offset_count() {
        return Err(BatchError::OffsetGaps { count, last_offset_delta: header.last_offset_delta });
    }
    if count > limits.records_max {
        return Err(BatchError::TooManyRecords { count, max: limits.records_max });
    }
    if limits.internal_allowed {
        return Ok(());
    }
    if header.control {
        return Err(BatchError::ControlNotAllowed);
    }
    if header.transactional {
        return Err(BatchError::TransactionalNotAllowed);
    }
    if header.timestamp_type == TimestampType::LogAppendTime {
        return Err(BatchError::LogAppendTimeNotAllowed);
    }
    Ok(())
}

#[inline]
fn check_record(record: &RecordRef<'_>, limits: &Limits) -> Result<(), RecordError> {
    let timestamp_ms = record.timestamp_ms;
    if !(TIMESTAMP_MS_MIN..=TIMESTAMP_MS_MAX).contains(&timestamp_ms) {
        return Err(RecordError::TimestampOutOfRange { timestamp_ms });
    }
    let bytes = |field: Option<&[u8]>| field.map_or(0, <[u8]>::len);
    let (key, value, headers) = (bytes(record.key), bytes(record.value), record.headers.len());
    if key > limits.key_bytes_max {
        return Err(RecordError::KeyTooLarge { bytes: key, max: limits.key_bytes_max });
    }
    if value > limits.value_bytes_max {
        return Err(RecordError::ValueTooLarge { bytes: value, max: limits.value_bytes_max });
    }
    if headers > limits.headers_max {
        return Err(RecordError::TooManyHeaders { count: headers, max: limits.headers_max });
    }
    Ok(())
}
