//! Building batches, record by record.

use bytes::Bytes;

use crate::codec::Codec;
use crate::error::BatchError;
use crate::header::{BatchHeader, HEADER_BYTES, ProducerStamp, TimestampType};
use crate::varint::{varlong_len, write_varint, write_varlong};

/// The largest length that the format's 32-bit fields can say.
const FORMAT_BYTES_MAX: usize = i32::MAX as usize;
/// Bytes that a record takes at most besides key, value and headers: five 5-byte varints, attributes and a varlong.
const RECORD_OVERHEAD_BYTES_MAX: usize = 5 * 5 + 1 + 10;

/// Collects records and turns them into a batch. It can be used again after each [`finish`](BatchBuilder::finish).
#[derive(Debug, Clone)]
pub struct BatchBuilder {
    /// Room for the header, then the records added so far.
    encoded: Vec<u8>,
    record_count: u32,
    base_timestamp_ms: i64,
    max_timestamp_ms: i64,
}

impl Default for BatchBuilder {
    fn default() -> Self {
        Self::with_capacity(0)
    }
}

impl BatchBuilder {
    /// An empty builder that grows as records come.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty builder with room for batches of `bytes` bytes.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        let mut encoded = Vec::with_capacity(bytes.max(HEADER_BYTES));
        encoded.resize(HEADER_BYTES, 0);
        Self { encoded, record_count: 0, base_timestamp_ms: 0, max_timestamp_ms: i64::MIN }
    }

    /// Adds a record behind the others. `timestamp_ms` counts from the Unix epoch; `headers` are pairs of name and
    /// value, walked twice, `[]` for none.
    ///
    /// # Errors
    /// [`BatchError::BatchFull`] if the format's counters would overflow: finish the batch, then add the record to the
    /// next one. The builder is unchanged.
    pub fn add<'a, H>(
        &mut self,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: H,
    ) -> Result<(), BatchError>
    where
        H: IntoIterator<Item = (&'a str, Option<&'a [u8]>)>,
        H::IntoIter: Clone,
    {
        let headers = headers.into_iter();
        let base_timestamp_ms = if self.is_empty() { timestamp_ms } else { self.base_timestamp_ms };
        let content = content(key, value, headers.clone());
        let bytes = self.encoded.len().saturating_add(content.bytes).saturating_add(RECORD_OVERHEAD_BYTES_MAX);
        let delta_ms = timestamp_ms.checked_sub(base_timestamp_ms);
        let (Some(delta_ms), true) = (delta_ms, bytes <= FORMAT_BYTES_MAX && self.record_count < i32::MAX as u32) else {
            return Err(BatchError::BatchFull { bytes });
        };
        let length = 1
            + varlong_len(delta_ms)
            + varlong_len(i64::from(self.record_count))
            + varlong_len(i64::from(content.header_count))
            + content.bytes;
        let out = &mut self.encoded;
        out.reserve(length + RECORD_OVERHEAD_BYTES_MAX);
        write_varint(out, length as i32);
        out.push(0);
        write_varlong(out, delta_ms);
        write_varint(out, self.record_count as i32);
        write_nullable(out, key);
        write_nullable(out, value);
        write_varint(out, content.header_count);
        for (name, value) in headers {
            write_nullable(out, Some(name.as_bytes()));
            write_nullable(out, value);
        }
        self.base_timestamp_ms = base_timestamp_ms;
        self.max_timestamp_ms = self.max_timestamp_ms.max(timestamp_ms);
        self.record_count += 1;
        Ok(())
    }

    /// Records added so far.
    #[must_use]
    pub fn record_count(&self) -> u32 {
        self.record_count
    }

    /// Whether nothing was added yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.record_count == 0
    }

    /// Bytes that the batch has if it is finished now without compression, header included.
    #[must_use]
    pub fn uncompressed_bytes(&self) -> usize {
        self.encoded.len()
    }

    /// Bytes that a record takes in a batch, at most: for a producer that decides whether one more still fits.
    #[must_use]
    pub fn record_bytes_max<'a, H>(key: Option<&[u8]>, value: Option<&[u8]>, headers: H) -> usize
    where
        H: IntoIterator<Item = (&'a str, Option<&'a [u8]>)>,
    {
        content(key, value, headers.into_iter()).bytes.saturating_add(RECORD_OVERHEAD_BYTES_MAX)
    }

    /// Forgets the records added so far.
    pub fn clear(&mut self) {
        self.encoded.truncate(HEADER_BYTES);
        self.record_count = 0;
        self.max_timestamp_ms = i64::MIN;
    }

    /// The batch of the records added so far, at base offset 0; the builder is empty afterwards, even after an error.
    ///
    /// # Errors
    /// [`BatchError::NoRecords`] if there are none, [`BatchError::BadProducer`] if the stamp has negative numbers,
    /// [`BatchError::CompressFailed`] if the compressor gives up.
    pub fn finish(&mut self, codec: Codec, producer: Option<ProducerStamp>) -> Result<Bytes, BatchError> {
        let built = self.build(codec, producer);
        self.clear();
        built
    }

    fn build(&mut self, codec: Codec, producer: Option<ProducerStamp>) -> Result<Bytes, BatchError> {
        if self.is_empty() {
            return Err(BatchError::NoRecords);
        }
        if let Some(stamp) = &producer {
            stamp.check(false)?;
        }
        let mut batch = if codec == Codec::None {
            // The records leave without a copy; the next batch will be about as large.
            let next = Self::with_capacity(self.encoded.len());
            std::mem::replace(&mut self.encoded, next.encoded)
        } else {
            let mut compressed = vec![0; HEADER_BYTES];
            codec.compress(self.encoded.get(HEADER_BYTES..).unwrap_or_default(), &mut compressed)?;
            compressed
        };
        let header = BatchHeader {
            base_offset: 0,
            batch_bytes: batch.len(),
            leader_epoch: -1,
            crc: 0,
            codec,
            timestamp_type: TimestampType::CreateTime,
            transactional: false,
            control: false,
            last_offset_delta: self.record_count - 1,
            base_timestamp_ms: self.base_timestamp_ms,
            max_timestamp_ms: self.max_timestamp_ms,
            producer,
            record_count: self.record_count,
        };
        header.seal(&mut batch)?;
        Ok(batch.into())
    }
}

/// What a record's key, value and headers take, with their length fields.
struct Content {
    bytes: usize,
    header_count: i32,
}

fn content<'a>(key: Option<&[u8]>, value: Option<&[u8]>, headers: impl Iterator<Item = (&'a str, Option<&'a [u8]>)>) -> Content {
    let mut content = Content { bytes: nullable_len(key).saturating_add(nullable_len(value)), header_count: 0 };
    for (name, value) in headers {
        let header = nullable_len(Some(name.as_bytes())).saturating_add(nullable_len(value));
        content.bytes = content.bytes.saturating_add(header);
        content.header_count = content.header_count.saturating_add(1);
    }
    content
}

fn nullable_len(field: Option<&[u8]>) -> usize {
    field.map_or(1, |bytes| varlong_len(bytes.len() as i64).saturating_add(bytes.len()))
}

#[inline]
fn write_nullable(out: &mut Vec<u8>, field: Option<&[u8]>) {
    match field {
        None => write_varint(out, -1),
        Some(bytes) => {
            write_varint(out, bytes.len() as i32);
            out.extend_from_slice(bytes);
        }
    }
}
