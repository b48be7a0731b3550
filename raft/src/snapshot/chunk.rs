//! The format of a snapshot's stream.
//!
//! A chunk on the wire: crc32c of the rest, u32 little-endian · a protobuf message, whose fields are listed below. A
//! row is (table byte and the machine's key, value); a frame is a frame as it lies in a segment (`segments/frame.rs`):
//! header and payloads, each under its own checksum.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;

use crate::segments::{FRAME_PAYLOAD_BYTES_MAX, FrameHeader, StoredFrame};
use crate::types::LogId;

/// Longest chunk that is accepted, in bytes: a frame is never split, and stands alone if it is large.
pub const CHUNK_BYTES_MAX: usize = FRAME_PAYLOAD_BYTES_MAX as usize + (8 << 20);

/// A place in a snapshot: what comes next. Places are ordered.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cursor {
    /// Rows whose table and key are larger than `after`; empty at the start.
    Rows {
        /// Table byte and key of the last row before.
        after: Vec<u8>,
    },
    /// Live frames.
    Frames {
        /// Raft index from which on.
        from_index: u64,
    },
    /// Nothing: it is complete.
    End,
}

/// A piece of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// The last entry of the snapshot that it belongs to.
    pub last: LogId,
    /// Where it starts.
    pub from: Cursor,
    /// Where the next one starts.
    pub next: Cursor,
    /// Rows: table byte and key, value.
    pub rows: Vec<(Vec<u8>, Vec<u8>)>,
    /// Frames, in order.
    pub frames: Vec<StoredFrame>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ChunkValue {
    #[prost(uint64, tag = "1")]
    term: u64,
    #[prost(uint64, tag = "2")]
    index: u64,
    #[prost(message, optional, tag = "3")]
    from: Option<CursorValue>,
    #[prost(message, optional, tag = "4")]
    next: Option<CursorValue>,
    #[prost(message, repeated, tag = "5")]
    rows: Vec<RowValue>,
    #[prost(bytes = "bytes", repeated, tag = "6")]
    frames: Vec<Bytes>,
}

/// The phase is 1 rows, 2 frames, 3 end.
#[derive(Clone, PartialEq, prost::Message)]
struct CursorValue {
    #[prost(uint32, tag = "1")]
    phase: u32,
    #[prost(bytes = "vec", tag = "2")]
    after: Vec<u8>,
    #[prost(uint64, tag = "3")]
    from_index: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RowValue {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

impl Cursor {
    /// Where every snapshot starts.
    #[must_use]
    pub fn start() -> Self {
        Self::Rows { after: Vec::new() }
    }

    /// For the wire.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        self.value().encode_to_vec().into()
    }

    /// From the wire.
    ///
    /// # Errors
    /// `InvalidData` if a peer sent anything else.
    pub fn decode(bytes: Bytes) -> io::Result<Self> {
        Self::of(CursorValue::decode(bytes).map_err(|error| invalid(&error.to_string()))?)
    }

    fn value(&self) -> CursorValue {
        match self {
            Self::Rows { after } => CursorValue { phase: 1, after: after.clone(), from_index: 0 },
            Self::Frames { from_index } => CursorValue { phase: 2, after: Vec::new(), from_index: *from_index },
            Self::End => CursorValue { phase: 3, after: Vec::new(), from_index: 0 },
        }
    }

    fn of(value: CursorValue) -> io::Result<Self> {
        match value.phase {
            1 => Ok(Self::Rows { after: value.after }),
            2 => Ok(Self::Frames { from_index: value.from_index }),
            3 => Ok(Self::End),
            _ => Err(invalid("its cursor names no known phase")),
        }
    }
}

impl Chunk {
    /// For the wire.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let rows = self.rows.iter().map(|(key, value)| RowValue { key: key.clone(), value: value.clone() });
        let value = ChunkValue {
            term: self.last.term,
            index: self.last.index,
            from: Some(self.from.value()),
            next: Some(self.next.value()),
            rows: rows.collect(),
            frames: self.frames.iter().map(encode_frame).collect(),
        };
        let body = value.encode_to_vec();
        let mut out = BytesMut::with_capacity(4 + body.len());
        out.put_u32_le(crc32c::crc32c(&body));
        out.put_slice(&body);
        out.freeze()
    }

    /// From the wire. Payloads are slices of `bytes`; their checksums are verified where they are written.
    ///
    /// # Errors
    /// `InvalidData` if a peer sent anything else.
    pub fn decode(mut bytes: Bytes) -> io::Result<Self> {
        if bytes.len() > CHUNK_BYTES_MAX {
            return Err(invalid("it is longer than any chunk can be"));
        }
        let crc = bytes.try_get_u32_le().map_err(|_| invalid("it is cut short"))?;
        if crc32c::crc32c(&bytes) != crc {
            return Err(invalid("it does not match its checksum"));
        }
        let value = ChunkValue::decode(bytes).map_err(|error| invalid(&error.to_string()))?;
        let cursor = |value: Option<CursorValue>| Cursor::of(value.unwrap_or_default());
        let (from, next) = (cursor(value.from)?, cursor(value.next)?);
        if next <= from {
            return Err(invalid("it does not lead forward"));
        }
        let rows: Vec<_> = value.rows.into_iter().map(|row| (row.key, row.value)).collect();
        // Table 0 is this crate's own: the receiver writes it itself.
        if rows.iter().any(|(key, _)| key.first().is_none_or(|table| *table == 0)) {
            return Err(invalid("it holds a row that no machine wrote"));
        }
        let frames = value.frames.into_iter().map(decode_frame).collect::<io::Result<_>>()?;
        Ok(Self { last: LogId { term: value.term, index: value.index }, from, next, rows, frames })
    }
}

fn encode_frame(frame: &StoredFrame) -> Bytes {
    let mut out = Vec::new();
    frame.header.encode(&mut out);
    frame.payloads.iter().for_each(|payload| out.extend_from_slice(payload));
    out.into()
}

fn decode_frame(bytes: Bytes) -> io::Result<StoredFrame> {
    let header = FrameHeader::decode(&bytes).map_err(invalid)?;
    if header.bytes() != bytes.len() as u64 {
        return Err(invalid("a frame is longer or shorter than its header says"));
    }
    let mut at = bytes.len() - usize::try_from(header.payload_bytes()).unwrap_or(0);
    let payload = |bytes_of: u32| {
        let start = at;
        at += bytes_of as usize;
        bytes.slice(start..at)
    };
    let payloads = header.items.iter().map(|item| item.payload_bytes).map(payload).collect();
    Ok(StoredFrame { header, payloads })
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("snapshot chunk: {reason}"))
}
