//! One record: its borrowed and its owned form, and the iterators that decode the records of a batch.
//!
//! Layout, behind a varint length: attributes i8 (0), timestamp delta varlong, offset delta varint, key length varint
//! (-1 for null) and key, value length varint (-1 for null) and value, header count varint, and for each header key
//! length varint and key (UTF-8), value length varint (-1 for null) and value.

use std::iter::FusedIterator;

use bytes::Bytes;

use crate::error::{BatchError, RecordError};
use crate::header::{BatchHeader, TimestampType};
use crate::varint::{read_varint, read_varlong};

/// A record that shares the memory of the batch it came from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// Offset, counted from the batch's base offset.
    pub offset_delta: u32,
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// What partitions and compacts the record, if anything.
    pub key: Option<Bytes>,
    /// The payload; `None` marks a deletion in compacted topics and differs from an empty one.
    pub value: Option<Bytes>,
    /// In the order in which they were added; a key may repeat.
    pub headers: Vec<Header>,
}

/// A header of a [`Record`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Header {
    /// Name; may repeat within a record.
    pub key: String,
    /// Any bytes, or nothing.
    pub value: Option<Bytes>,
}

/// A record that borrows from a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordRef<'a> {
    /// Offset, counted from the batch's base offset.
    pub offset_delta: u32,
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// What partitions and compacts the record, if anything.
    pub key: Option<&'a [u8]>,
    /// The payload; `None` marks a deletion in compacted topics and differs from an empty one.
    pub value: Option<&'a [u8]>,
    /// In the order in which they were added; a key may repeat.
    pub headers: Headers<'a>,
}

/// A header of a [`RecordRef`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderRef<'a> {
    /// Name; may repeat within a record.
    pub key: &'a str,
    /// Any bytes, or nothing.
    pub value: Option<&'a [u8]>,
}

/// The headers of a [`RecordRef`], still encoded, but known to decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Headers<'a> {
    count: u32,
    encoded: &'a [u8],
}

impl<'a> Headers<'a> {
    /// Number of headers.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.count
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The headers, decoded one by one.
    pub fn iter(&self) -> impl Iterator<Item = HeaderRef<'a>> + Clone + use<'a> {
        let mut rest = self.encoded;
        (0..self.count).map_while(move |_| decode_header(&mut rest).ok())
    }

    /// Takes everything that is left of a record, checked.
    fn decode(rest: &mut &'a [u8]) -> Result<Self, RecordError> {
        let count = read_varint(rest)?;
        let out_of_range = RecordError::LengthOutOfRange { field: "header count", length: count, left: rest.len() };
        // A header takes at least two bytes.
        if count < 0 || count as usize > rest.len() / 2 {
            return Err(out_of_range);
        }
        let encoded = *rest;
        for _ in 0..count {
            decode_header(rest)?;
        }
        Ok(Self { count: count as u32, encoded })
    }
}

impl RecordRef<'_> {
    /// The record as slices of `body`, which it must borrow from.
    fn to_record(self, body: &Bytes) -> Record {
        let share = |slice: Option<&[u8]>| slice.map(|slice| body.slice_ref(slice));
        let headers = self.headers.iter().map(|header| Header { key: header.key.to_owned(), value: share(header.value) });
        Record {
            offset_delta: self.offset_delta,
            timestamp_ms: self.timestamp_ms,
            key: share(self.key),
            value: share(self.value),
            headers: headers.collect(),
        }
    }
}

/// Borrowing iterator over the records of a [`Body`](crate::Body); ends after the first error. Allocates nothing.
#[derive(Debug, Clone)]
pub struct RecordRefs<'a> {
    walk: Walk,
    body: &'a [u8],
}

impl<'a> RecordRefs<'a> {
    pub(crate) fn new(header: &BatchHeader, body: &'a [u8]) -> Self {
        Self { walk: Walk::new(header), body }
    }
}

impl<'a> Iterator for RecordRefs<'a> {
    type Item = Result<RecordRef<'a>, BatchError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.walk.next(self.body)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.walk.size_hint()
    }
}

impl FusedIterator for RecordRefs<'_> {}

/// Owning iterator over the records of a [`Body`](crate::Body); ends after the first error. Records share its memory.
#[derive(Debug, Clone)]
pub struct Records {
    walk: Walk,
    body: Bytes,
}

impl Records {
    pub(crate) fn new(header: &BatchHeader, body: Bytes) -> Self {
        Self { walk: Walk::new(header), body }
    }
}

impl Iterator for Records {
    type Item = Result<Record, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        let record = self.walk.next(&self.body)?;
        Some(record.map(|record| record.to_record(&self.body)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.walk.size_hint()
    }
}

impl FusedIterator for Records {}

/// Where a decoding iterator stands in a body that somebody else holds.
#[derive(Debug, Clone)]
struct Walk {
    /// Bytes of the body that are done.
    position: usize,
    /// Records that are done.
    index: u32,
    count: u32,
    done: bool,
    /// Smallest offset delta that the next record may have: records keep their offsets if others are removed.
    next_delta: u32,
    last_delta: u32,
    base_timestamp_ms: i64,
    log_append_time_ms: Option<i64>,
}

impl Walk {
    fn new(header: &BatchHeader) -> Self {
        let log_append_time = header.timestamp_type == TimestampType::LogAppendTime;
        Self {
            position: 0,
            index: 0,
            count: header.record_count,
            done: false,
            next_delta: 0,
            last_delta: header.last_offset_delta,
            base_timestamp_ms: header.base_timestamp_ms,
            log_append_time_ms: log_append_time.then_some(header.max_timestamp_ms),
        }
    }

    #[inline]
    fn next<'a>(&mut self, body: &'a [u8]) -> Option<Result<RecordRef<'a>, BatchError>> {
        if self.done {
            return None;
        }
        let mut rest = body.get(self.position..).unwrap_or_default();
        if self.index == self.count {
            self.done = true;
            let trailing = BatchError::TrailingBytes { bytes: rest.len(), count: self.count };
            return (!rest.is_empty()).then_some(Err(trailing));
        }
        match self.decode(&mut rest) {
            Ok(record) => {
                self.position = body.len() - rest.len();
                self.index += 1;
                self.next_delta = record.offset_delta + 1;
                Some(Ok(record))
            }
            Err(reason) => {
                self.done = true;
                Some(Err(BatchError::Record { index: self.index, reason }))
            }
        }
    }

    #[inline]
    fn decode<'a>(&self, rest: &mut &'a [u8]) -> Result<RecordRef<'a>, RecordError> {
        let length = read_varint(rest)?;
        let mut record = take(rest, length, "the record")?;
        let (&attributes, behind) = record.split_first().ok_or(crate::varint::VarintError::Truncated)?;
        record = behind;
        if attributes != 0 {
            return Err(RecordError::ReservedAttributes { attributes });
        }
        let delta_ms = read_varlong(&mut record)?;
        let offset_delta = self.offset_delta(read_varint(&mut record)?)?;
        let key = take_nullable(&mut record, "the key")?;
        let value = take_nullable(&mut record, "the value")?;
        let headers = Headers::decode(&mut record)?;
        if !record.is_empty() {
            return Err(RecordError::LongerThanContent { bytes: record.len() });
        }
        let timestamp_ms = match self.log_append_time_ms {
            Some(timestamp_ms) => timestamp_ms,
            None => self
                .base_timestamp_ms
                .checked_add(delta_ms)
                .ok_or(RecordError::TimestampOverflow { base_ms: self.base_timestamp_ms, delta_ms })?,
        };
        Ok(RecordRef { offset_delta, timestamp_ms, key, value, headers })
    }

    #[inline]
    fn offset_delta(&self, found: i32) -> Result<u32, RecordError> {
        match u32::try_from(found) {
            Ok(delta) if delta >= self.next_delta && delta <= self.last_delta => Ok(delta),
            _ => Err(RecordError::OffsetDelta { found, expected: self.next_delta, last: self.last_delta }),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        // Nothing is promised: the count is a stranger's word.
        (0, Some((self.count - self.index) as usize + 1))
    }
}

#[inline]
fn decode_header<'a>(rest: &mut &'a [u8]) -> Result<HeaderRef<'a>, RecordError> {
    let length = read_varint(rest)?;
    let key = take(rest, length, "a header key")?;
    let key = std::str::from_utf8(key).map_err(|_| RecordError::HeaderKeyNotUtf8)?;
    let value = take_nullable(rest, "a header value")?;
    Ok(HeaderRef { key, value })
}

/// Takes a length and that many bytes; -1 means null.
#[inline]
fn take_nullable<'a>(rest: &mut &'a [u8], field: &'static str) -> Result<Option<&'a [u8]>, RecordError> {
    match read_varint(rest)? {
        -1 => Ok(None),
        length => take(rest, length, field).map(Some),
    }
}

#[inline]
fn take<'a>(rest: &mut &'a [u8], length: i32, field: &'static str) -> Result<&'a [u8], RecordError> {
    let split = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length));
    let (taken, behind) = split.ok_or(RecordError::LengthOutOfRange { field, length, left: rest.len() })?;
    *rest = behind;
    Ok(taken)
}
