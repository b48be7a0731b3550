//! Why a batch is refused: one variant per reason, with the numbers that a person needs to find the fault.

use crate::codec::Codec;
use crate::varint::VarintError;

/// Why a batch was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Fewer bytes than a batch header has.
    #[error("a record batch has at least {needed} bytes, this one has {actual}: send the whole batch")]
    TooShort {
        /// Bytes of the fixed header.
        needed: usize,
        /// Bytes at hand.
        actual: usize,
    },
    /// Another format version than 2.
    #[error("record batch format version (magic) {magic} is not supported: encode batches in version 2")]
    UnsupportedMagic {
        /// The version found.
        magic: i8,
    },
    /// The length in the header is not that of the bytes at hand.
    #[error("the record batch header announces {announced} bytes, but {actual} were sent: send exactly one whole batch")]
    LengthMismatch {
        /// Bytes of the batch according to its header.
        announced: i64,
        /// Bytes at hand.
        actual: usize,
    },
    /// The checksum does not match: the bytes were damaged on their way.
    #[error(
        "record batch checksum is {expected:#010x} in the header, but {actual:#010x} over the bytes: they were damaged, send them again"
    )]
    CrcMismatch {
        /// crc32c in the header.
        expected: u32,
        /// crc32c of the bytes.
        actual: u32,
    },
    /// A compression codec that does not exist.
    #[error("compression codec {code} is unknown: use none (0), gzip (1), snappy (2), lz4 (3) or zstd (4)")]
    UnknownCodec {
        /// The code found.
        code: u8,
    },
    /// Attribute bits that have no meaning here.
    #[error(
        "record batch attributes {attributes:#06x} use reserved bits: set only codec, timestamp type, transactional and control"
    )]
    ReservedAttributes {
        /// All attribute bits found.
        attributes: u16,
    },
    /// The base offset is negative, or the batch reaches beyond the largest offset.
    #[error("record batch offsets {base_offset} + {last_offset_delta} are out of range: a client sends base offset 0")]
    OffsetsOutOfRange {
        /// Base offset found.
        base_offset: i64,
        /// Last offset delta found.
        last_offset_delta: i32,
    },
    /// The record count does not fit the range of offsets.
    #[error(
        "record batch says {count} records under last offset delta {last_offset_delta}: the count must be between 0 and the delta + 1"
    )]
    CountOutOfRange {
        /// Records according to the header.
        count: i32,
        /// Last offset delta found.
        last_offset_delta: i32,
    },
    /// Producer id, epoch and sequence do not make sense together.
    #[error(
        "producer id {id}, epoch {epoch}, base sequence {base_sequence}: with a producer id all three must be at least 0, without one the id is -1"
    )]
    BadProducer {
        /// Producer id found.
        id: i64,
        /// Producer epoch found.
        epoch: i16,
        /// Base sequence found.
        base_sequence: i32,
    },
    /// A batch without records.
    #[error("the record batch holds no record: send at least one")]
    NoRecords,
    /// Offsets inside a client's batch have gaps.
    #[error("record batch has {count} records but last offset delta {last_offset_delta}: the delta must be the count - 1")]
    OffsetGaps {
        /// Records according to the header.
        count: u32,
        /// Last offset delta found.
        last_offset_delta: u32,
    },
    /// More records than allowed.
    #[error("the record batch holds {count} records, allowed are {max}: send smaller batches")]
    TooManyRecords {
        /// Records according to the header.
        count: u32,
        /// Limit.
        max: u32,
    },
    /// A control batch from a client.
    #[error("the record batch is a control batch: only the server writes those, clear the control bit")]
    ControlNotAllowed,
    /// A transactional batch where none is allowed.
    #[error("the record batch is transactional, which is not accepted here: clear the transactional bit")]
    TransactionalNotAllowed,
    /// A batch from a client that claims the server's timestamps.
    #[error("the record batch claims timestamps set by the log: a client sends timestamp type 0 (create time)")]
    LogAppendTimeNotAllowed,
    /// The records do not decompress.
    #[error("the records do not decompress with {codec}: {reason}; compress them again or send them uncompressed")]
    BadCompression {
        /// Codec named by the header.
        codec: Codec,
        /// What the decompressor said.
        reason: String,
    },
    /// There is no memory left to decompress in. Says nothing about the records.
    #[error("there was not enough memory to decompress the records with {codec}: try again later")]
    NoMemory {
        /// Codec named by the header.
        codec: Codec,
    },
    /// The records take more bytes than allowed when decompressed.
    #[error("the records take more than {max} bytes when decompressed with {codec}: send smaller batches")]
    DecompressedTooLarge {
        /// Codec named by the header.
        codec: Codec,
        /// Limit in bytes.
        max: usize,
    },
    /// Compressing failed.
    #[error("compressing the records with {codec} failed: {reason}; try another codec")]
    CompressFailed {
        /// Codec asked for.
        codec: Codec,
        /// What the compressor said.
        reason: String,
    },
    /// A batch or record that would be longer than the format can say.
    #[error(
        "the record batch would reach {bytes} bytes or overflow its counters, the format ends at 2147483647: finish the batch earlier"
    )]
    BatchFull {
        /// Bytes that the batch would take.
        bytes: usize,
    },
    /// A record is malformed or over a limit.
    #[error("record {index} of the batch: {reason}")]
    Record {
        /// Position of the record in the batch, from 0.
        index: u32,
        /// What is wrong with it.
        reason: RecordError,
    },
    /// Bytes behind the last record.
    #[error("{bytes} bytes follow the last of {count} records: the record count in the header is wrong")]
    TrailingBytes {
        /// Bytes left.
        bytes: usize,
        /// Records according to the header.
        count: u32,
    },
    /// The largest timestamp of the header is not that of the records.
    #[error("record batch says its largest timestamp is {announced} ms, the records' is {actual} ms: set it to the largest")]
    MaxTimestampMismatch {
        /// Milliseconds since the Unix epoch, according to the header.
        announced: i64,
        /// Milliseconds since the Unix epoch, according to the records.
        actual: i64,
    },
}

/// What is wrong with one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// An integer does not decode.
    #[error("{0}: encode the record again")]
    Varint(#[from] VarintError),
    /// A length is negative or reaches behind the end of what holds it.
    #[error("{field} has length {length}, but {left} bytes are left: encode the record again")]
    LengthOutOfRange {
        /// Which length.
        field: &'static str,
        /// The length found.
        length: i32,
        /// Bytes left.
        left: usize,
    },
    /// The record does not end where its length says.
    #[error("{bytes} bytes are left behind its headers: its length is wrong")]
    LongerThanContent {
        /// Bytes left.
        bytes: usize,
    },
    /// The record's attributes, all reserved, are not 0.
    #[error("attributes are {attributes:#04x}, all bits are reserved: set them to 0")]
    ReservedAttributes {
        /// Bits found.
        attributes: u8,
    },
    /// The offset delta does not follow from the record before it, or lies behind the batch's last.
    #[error("offset delta is {found}, expected {expected} (at most {last}): number the records from 0")]
    OffsetDelta {
        /// Delta found.
        found: i32,
        /// Smallest delta that may stand here.
        expected: u32,
        /// Last offset delta of the batch.
        last: u32,
    },
    /// Base timestamp and delta overflow.
    #[error("timestamp {base_ms} ms + {delta_ms} ms overflows: use milliseconds since 1970")]
    TimestampOverflow {
        /// Base timestamp of the batch.
        base_ms: i64,
        /// Delta of the record.
        delta_ms: i64,
    },
    /// A time that is no date.
    #[error(
        "timestamp {timestamp_ms} ms lies outside of the years 1 to 9999: use milliseconds since 1970 (not micro- or nanoseconds), or leave it out (-1 in an encoded batch)"
    )]
    TimestampOutOfRange {
        /// Milliseconds since the Unix epoch.
        timestamp_ms: i64,
    },
    /// A header key is not UTF-8.
    #[error("a header key is not UTF-8: header keys are text, values may be any bytes")]
    HeaderKeyNotUtf8,
    /// The key is too long.
    #[error("the key has {bytes} bytes, allowed are {max}: use a shorter key")]
    KeyTooLarge {
        /// Bytes of the key.
        bytes: usize,
        /// Limit.
        max: usize,
    },
    /// The value is too long.
    #[error("the value has {bytes} bytes, allowed are {max}: send a smaller value or store it elsewhere and send a reference")]
    ValueTooLarge {
        /// Bytes of the value.
        bytes: usize,
        /// Limit.
        max: usize,
    },
    /// Too many headers.
    #[error("the record has {count} headers, allowed are {max}: send fewer")]
    TooManyHeaders {
        /// Headers found.
        count: u32,
        /// Limit.
        max: u32,
    },
}
