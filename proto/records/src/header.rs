//! The 61 bytes in front of every batch: parsed, written, and stamped with an offset at read time.
//!
//! | bytes | field | type |
//! |---|---|---|
//! | 0..8 | base offset | i64 |
//! | 8..12 | batch length: bytes that follow this field | i32 |
//! | 12..16 | partition leader epoch | i32 |
//! | 16 | magic, 2 | i8 |
//! | 17..21 | crc32c of everything that follows this field | u32 |
//! | 21..23 | attributes: codec (bits 0–2), timestamp type (3), transactional (4), control (5) | i16 |
//! | 23..27 | last offset delta | i32 |
//! | 27..35 | base timestamp, ms since the Unix epoch | i64 |
//! | 35..43 | largest timestamp, ms since the Unix epoch | i64 |
//! | 43..51 | producer id, -1 for none | i64 |
//! | 51..53 | producer epoch | i16 |
//! | 53..57 | base sequence | i32 |
//! | 57..61 | record count | i32 |
//!
//! All integers are big-endian. Base offset and leader epoch lie outside the checksum, so the server sets them when a
//! batch is read, and the log keeps what the client sent.

use bytes::{Buf, BufMut, Bytes};

use crate::codec::Codec;
use crate::error::BatchError;

/// Bytes of the fixed header; the records follow.
pub const HEADER_BYTES: usize = 61;
/// Where the bytes that the checksum covers begin.
pub(crate) const CRC_COVERS_FROM: usize = 21;
/// Base offset and batch length: the bytes that batch length does not count.
const LENGTH_COUNTS_FROM: usize = 12;
const MAGIC: i8 = 2;
const NO_PRODUCER_ID: i64 = -1;

const CODEC_BITS: u16 = 0b0000_0111;
const LOG_APPEND_TIME_BIT: u16 = 1 << 3;
const TRANSACTIONAL_BIT: u16 = 1 << 4;
const CONTROL_BIT: u16 = 1 << 5;
const KNOWN_BITS: u16 = CODEC_BITS | LOG_APPEND_TIME_BIT | TRANSACTIONAL_BIT | CONTROL_BIT;

/// Who set the timestamps of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TimestampType {
    /// The producer, one per record.
    #[default]
    CreateTime,
    /// The log: the batch's largest timestamp holds for each record.
    LogAppendTime,
}

/// What makes a produce idempotent: who sent a batch, and its place in the order of what that producer sent to the partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProducerStamp {
    /// Assigned by the cluster, at least 0.
    pub id: i64,
    /// Raised when the producer restarts or is fenced, at least 0.
    pub epoch: i16,
    /// Sequence number of the batch's first record, at least 0; -1 only in control batches.
    pub base_sequence: i32,
}

impl ProducerStamp {
    /// The sequence number `count` records after `base_sequence`: after `i32::MAX` it starts again at 0.
    #[must_use]
    pub fn sequence_after(&self, count: u32) -> i32 {
        let wrapped = (i64::from(self.base_sequence) + i64::from(count)) % (i64::from(i32::MAX) + 1);
        wrapped as i32
    }

    /// Refuses negative numbers. The markers that end a transaction (`control`) take no place in the producer's sequence.
    pub(crate) fn check(&self, control: bool) -> Result<(), BatchError> {
        let Self { id, epoch, base_sequence } = *self;
        let smallest_sequence = if control { -1 } else { 0 };
        if id < 0 || epoch < 0 || base_sequence < smallest_sequence {
            return Err(BatchError::BadProducer { id, epoch, base_sequence });
        }
        Ok(())
    }
}

/// The fixed header of a batch, its attributes taken apart. Parsing it touches no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchHeader {
    /// Offset of the first record. What a client sends here means nothing.
    pub base_offset: u64,
    /// Bytes of the whole batch, this header included, as the header announces them.
    pub batch_bytes: usize,
    /// Term of the leader that served the batch; what a client sends here means nothing.
    pub leader_epoch: i32,
    /// crc32c over everything behind it.
    pub crc: u32,
    /// How the records are compressed.
    pub codec: Codec,
    /// Who set the timestamps.
    pub timestamp_type: TimestampType,
    /// Whether the batch belongs to a transaction.
    pub transactional: bool,
    /// Whether the batch holds markers of the server instead of records of a producer.
    pub control: bool,
    /// Offset of the last record, counted from the base offset. At most `i32::MAX`.
    pub last_offset_delta: u32,
    /// Timestamp that the records' deltas count from, in milliseconds since the Unix epoch.
    pub base_timestamp_ms: i64,
    /// Largest timestamp of a record, in milliseconds since the Unix epoch.
    pub max_timestamp_ms: i64,
    /// Who produced the batch, if the producer is idempotent.
    pub producer: Option<ProducerStamp>,
    /// Number of records; less than the offsets covered if some were removed from a stored batch.
    pub record_count: u32,
}

impl BatchHeader {
    /// Reads the header at the start of `bytes`. Checks what the header alone can tell; not the checksum, not the
    /// records, and not that `bytes` has the announced length ([`Batch::parse`](crate::Batch::parse) does).
    ///
    /// # Errors
    /// If the bytes are too few, the format version or the codec is unknown, reserved bits are set, or the fields
    /// contradict each other.
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        let too_short = BatchError::TooShort { needed: HEADER_BYTES, actual: bytes.len() };
        let mut fields = &bytes.first_chunk::<HEADER_BYTES>().ok_or(too_short)?[..];
        let base_offset = fields.get_i64();
        let batch_length = fields.get_i32();
        let leader_epoch = fields.get_i32();
        let magic = fields.get_i8();
        if magic != MAGIC {
            return Err(BatchError::UnsupportedMagic { magic });
        }
        let batch_bytes = announced_bytes(batch_length, bytes.len())?;
        let crc = fields.get_u32();
        let attributes = fields.get_u16();
        if attributes & !KNOWN_BITS != 0 {
            return Err(BatchError::ReservedAttributes { attributes });
        }
        let codec = Codec::from_code((attributes & CODEC_BITS) as u8)?;
        let control = attributes & CONTROL_BIT != 0;
        let last_offset_delta = fields.get_i32();
        let (base_offset, last_offset_delta) = offsets(base_offset, last_offset_delta)?;
        let base_timestamp_ms = fields.get_i64();
        let max_timestamp_ms = fields.get_i64();
        let producer = ProducerStamp { id: fields.get_i64(), epoch: fields.get_i16(), base_sequence: fields.get_i32() };
        let producer = (producer.id != NO_PRODUCER_ID).then_some(producer);
        if let Some(stamp) = &producer {
            stamp.check(control)?;
        }
        let record_count = record_count(fields.get_i32(), last_offset_delta)?;
        let log_append_time = attributes & LOG_APPEND_TIME_BIT != 0;
        Ok(Self {
            base_offset,
            batch_bytes,
            leader_epoch,
            crc,
            codec,
            timestamp_type: if log_append_time { TimestampType::LogAppendTime } else { TimestampType::CreateTime },
            transactional: attributes & TRANSACTIONAL_BIT != 0,
            control,
            last_offset_delta,
            base_timestamp_ms,
            max_timestamp_ms,
            producer,
            record_count,
        })
    }

    /// Number of offsets that the batch covers, at least 1.
    #[must_use]
    pub fn offset_count(&self) -> u32 {
        self.last_offset_delta + 1
    }

    /// Offset of the last record.
    #[must_use]
    pub fn last_offset(&self) -> u64 {
        self.base_offset + u64::from(self.last_offset_delta)
    }

    /// Writes this header and the checksum that belongs to it over the first bytes of `batch`.
    pub(crate) fn seal(mut self, batch: &mut [u8]) -> Result<(), BatchError> {
        let bytes = batch.len();
        if bytes > i32::MAX as usize {
            return Err(BatchError::BatchFull { bytes });
        }
        let (header, body) =
            batch.split_first_chunk_mut::<HEADER_BYTES>().ok_or(BatchError::TooShort { needed: HEADER_BYTES, actual: bytes })?;
        let unsealed = self.encode();
        let covered = unsealed.get(CRC_COVERS_FROM..).unwrap_or_default();
        self.crc = crc32c::crc32c_append(crc32c::crc32c(covered), body);
        *header = self.encode();
        Ok(())
    }

    /// The header as bytes. The fields must be in the ranges that [`BatchHeader::parse`] accepts.
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut attributes = u16::from(self.codec.code());
        for (set, bit) in [
            (self.timestamp_type == TimestampType::LogAppendTime, LOG_APPEND_TIME_BIT),
            (self.transactional, TRANSACTIONAL_BIT),
            (self.control, CONTROL_BIT),
        ] {
            attributes |= if set { bit } else { 0 };
        }
        let producer = self.producer.unwrap_or(ProducerStamp { id: NO_PRODUCER_ID, epoch: -1, base_sequence: -1 });
        let mut header = [0; HEADER_BYTES];
        let mut fields = &mut header[..];
        fields.put_u64(self.base_offset);
        fields.put_u32(self.batch_bytes.saturating_sub(LENGTH_COUNTS_FROM) as u32);
        fields.put_i32(self.leader_epoch);
        fields.put_i8(MAGIC);
        fields.put_u32(self.crc);
        fields.put_u16(attributes);
        fields.put_u32(self.last_offset_delta);
        fields.put_i64(self.base_timestamp_ms);
        fields.put_i64(self.max_timestamp_ms);
        fields.put_i64(producer.id);
        fields.put_i16(producer.epoch);
        fields.put_i32(producer.base_sequence);
        fields.put_u32(self.record_count);
        header
    }
}

/// Bytes of the whole batch, from its length field; `actual` is what is at hand.
fn announced_bytes(batch_length: i32, actual: usize) -> Result<usize, BatchError> {
    let announced = i64::from(batch_length) + LENGTH_COUNTS_FROM as i64;
    usize::try_from(announced).ok().filter(|bytes| *bytes >= HEADER_BYTES).ok_or(BatchError::LengthMismatch { announced, actual })
}

/// Both as unsigned numbers whose sum is an offset.
fn offsets(base_offset: i64, last_offset_delta: i32) -> Result<(u64, u32), BatchError> {
    let refused = BatchError::OffsetsOutOfRange { base_offset, last_offset_delta };
    match (u64::try_from(base_offset), u32::try_from(last_offset_delta)) {
        (Ok(base), Ok(delta)) if base_offset.checked_add(i64::from(delta)).is_some() => Ok((base, delta)),
        _ => Err(refused),
    }
}

fn record_count(count: i32, last_offset_delta: u32) -> Result<u32, BatchError> {
    u32::try_from(count)
        .ok()
        .filter(|count| *count <= last_offset_delta + 1)
        .ok_or(BatchError::CountOutOfRange { count, last_offset_delta: last_offset_delta as i32 })
}

/// A copy of `header` with base offset and leader epoch set, for a reader: send it, then the batch's bytes from
/// [`HEADER_BYTES`] on. The checksum stays valid. `base_offset` is at most `i64::MAX`.
#[must_use]
pub fn stamped_header(header: &[u8; HEADER_BYTES], base_offset: u64, leader_epoch: i32) -> [u8; HEADER_BYTES] {
    let mut stamped = *header;
    let mut fields = &mut stamped[..];
    fields.put_u64(base_offset);
    let (_length, mut fields) = fields.split_at_mut(4);
    fields.put_i32(leader_epoch);
    stamped
}

/// Sets base offset and leader epoch of the batch in `bytes` in place. The checksum stays valid.
///
/// # Errors
/// If there are fewer bytes than a header has.
pub fn set_base_offset(bytes: &mut [u8], base_offset: u64, leader_epoch: i32) -> Result<(), BatchError> {
    let too_short = BatchError::TooShort { needed: HEADER_BYTES, actual: bytes.len() };
    let header = bytes.first_chunk_mut::<HEADER_BYTES>().ok_or(too_short)?;
    *header = stamped_header(header, base_offset, leader_epoch);
    Ok(())
}

/// A copy of the batch that carries the server's time: timestamp type "log append time", and `append_time_ms`
/// (milliseconds since the Unix epoch) as the time of all its records. Its checksum is made anew.
///
/// # Errors
/// If `bytes` is not a batch.
pub fn with_append_time(bytes: &[u8], append_time_ms: i64) -> Result<Bytes, BatchError> {
    let mut header = BatchHeader::parse(bytes)?;
    header.timestamp_type = TimestampType::LogAppendTime;
    header.max_timestamp_ms = append_time_ms;
    let mut batch = bytes.to_vec();
    header.seal(&mut batch)?;
    Ok(batch.into())
}

/// The batch with base offset and leader epoch set, in one piece: in place if nobody else holds `bytes`, else a copy.
/// [`Batch::stamped`](crate::Batch::stamped) never copies records.
///
/// # Errors
/// If there are fewer bytes than a header has.
pub fn with_base_offset(bytes: Bytes, base_offset: u64, leader_epoch: i32) -> Result<Bytes, BatchError> {
    let mut owned = bytes.try_into_mut().unwrap_or_else(|shared| shared.as_ref().into());
    set_base_offset(&mut owned, base_offset, leader_epoch)?;
    Ok(owned.freeze())
}
