//! The two tools every format here is made of: [`Pieces`] to encode without copying large payloads, and [`Reader`]
//! to decode without trusting a length. All integers are little endian.

use bytes::{Buf, Bytes};

use crate::types::LogId;

/// Payloads of at least this many bytes are written from where they lie; smaller ones are copied, since a slice
/// of its own costs more than the copy.
const BORROWED_BYTES_MIN: usize = 4096;

/// Bytes to be written in one go: framing and small payloads in one reusable buffer, large payloads by reference.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    scratch: Vec<u8>,
    /// A payload, and the length that `scratch` had when it was put.
    borrowed: Vec<(usize, Bytes)>,
    borrowed_bytes: usize,
}

impl Pieces {
    pub(super) fn clear(&mut self) {
        self.scratch.clear();
        self.borrowed.clear();
        self.borrowed_bytes = 0;
    }

    pub(super) fn len(&self) -> usize {
        self.scratch.len() + self.borrowed_bytes
    }

    pub(super) fn put_u8(&mut self, value: u8) {
        self.scratch.push(value);
    }

    pub(super) fn put_u32(&mut self, value: u32) {
        self.scratch.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn put_u64(&mut self, value: u64) {
        self.scratch.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn put_log_id(&mut self, log_id: LogId) {
        self.put_u64(log_id.term);
        self.put_u64(log_id.index);
    }

    pub(super) fn put_option<T>(&mut self, value: Option<T>, put: impl FnOnce(&mut Self, T)) {
        self.put_u8(u8::from(value.is_some()));
        if let Some(value) = value {
            put(self, value);
        }
    }

    /// A count or length. What is submitted is bounded by a file's size, so it always fits.
    pub(super) fn put_len(&mut self, len: usize) {
        self.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
    }

    /// A length and that many bytes.
    pub(super) fn put_bytes(&mut self, bytes: &Bytes) {
        self.put_len(bytes.len());
        if bytes.len() < BORROWED_BYTES_MIN {
            self.scratch.extend_from_slice(bytes);
        } else {
            self.borrowed.push((self.scratch.len(), bytes.clone()));
            self.borrowed_bytes += bytes.len();
        }
    }

    /// Everything put so far, in order.
    pub(super) fn slices(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.borrowed.iter().map(|(at, _)| *at));
        let ends = self.borrowed.iter().map(|(at, _)| *at).chain(std::iter::once(self.scratch.len()));
        let framing = starts.zip(ends).map(|(start, end)| self.scratch.get(start..end).unwrap_or_default());
        let payloads = self.borrowed.iter().map(|(_, bytes)| bytes.as_ref()).chain(std::iter::once([].as_slice()));
        framing.zip(payloads).flat_map(|(framing, payload)| [framing, payload]).filter(|slice| !slice.is_empty())
    }

    pub(super) fn crc32c(&self) -> u32 {
        self.slices().fold(0, crc32c::crc32c_append)
    }
}

/// What was read is not in the format: too short, or a value out of its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

/// Takes values from the front of a buffer.
#[derive(Debug)]
pub(super) struct Reader(Bytes);

impl Reader {
    pub(super) fn new(bytes: Bytes) -> Self {
        Self(bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        self.0.try_get_u8().map_err(|_| Malformed("it ends inside a number"))
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        self.0.try_get_u32_le().map_err(|_| Malformed("it ends inside a number"))
    }

    pub(super) fn u64(&mut self) -> Result<u64, Malformed> {
        self.0.try_get_u64_le().map_err(|_| Malformed("it ends inside a number"))
    }

    pub(super) fn flag(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed("a flag is neither 0 nor 1")),
        }
    }

    pub(super) fn log_id(&mut self) -> Result<LogId, Malformed> {
        Ok(LogId { term: self.u64()?, index: self.u64()? })
    }

    pub(super) fn option<T>(&mut self, take: impl FnOnce(&mut Self) -> Result<T, Malformed>) -> Result<Option<T>, Malformed> {
        if self.flag()? { take(self).map(Some) } else { Ok(None) }
    }

    /// A count of things that take at least `bytes_min` bytes each, so that a wild count reserves nothing.
    pub(super) fn count(&mut self, bytes_min: usize) -> Result<usize, Malformed> {
        let count = self.u32()? as usize;
        if count > self.0.len() / bytes_min.max(1) {
            return Err(Malformed("a count is larger than what follows"));
        }
        Ok(count)
    }

    /// A length and that many bytes. They share the buffer if they are large, and are copied if they are small,
    /// so that a small payload does not keep a whole batch in memory.
    pub(super) fn bytes(&mut self) -> Result<Bytes, Malformed> {
        let len = self.count(1)?;
        let taken = self.0.split_to(len);
        Ok(if len < BORROWED_BYTES_MIN { Bytes::copy_from_slice(&taken) } else { taken })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;

    #[test]
    fn pieces_keep_their_order_and_borrow_large_payloads() {
        let large = Bytes::from(vec![7; BORROWED_BYTES_MIN]);
        let mut pieces = Pieces::default();
        pieces.put_u8(1);
        pieces.put_bytes(&Bytes::from_static(b"small"));
        pieces.put_bytes(&large);
        pieces.put_bytes(&large);
        pieces.put_u64(9);
        let all: Vec<u8> = pieces.slices().flatten().copied().collect();
        assert_eq!(all.len(), pieces.len());
        assert_eq!(crc32c::crc32c(&all), pieces.crc32c());
        assert_eq!(pieces.slices().filter(|slice| slice.as_ptr() == large.as_ptr()).count(), 2);
        let mut reader = Reader::new(Bytes::from(all));
        assert_eq!(reader.u8().unwrap(), 1);
        assert_eq!(reader.bytes().unwrap().as_ref(), b"small");
        assert_eq!(reader.bytes().unwrap(), large);
        assert_eq!(reader.bytes().unwrap(), large);
        assert_eq!(reader.u64().unwrap(), 9);
        assert!(reader.is_empty() && reader.u8().is_err());
    }

    #[test]
    fn lengths_are_checked_against_what_is_there() {
        let reader = || Reader::new(Bytes::from_static(&[0xff, 0xff, 0xff, 0x7f, 1, 2]));
        assert!(reader().bytes().is_err());
        assert!(reader().count(1).is_err());
        assert!(reader().u64().is_err());
        assert!(reader().flag().is_err());
    }
}
