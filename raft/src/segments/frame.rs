//! The frame: one log entry (or what a rewrite left of some) as it lies in a segment file.
//!
//! All numbers are little-endian.
//!
//! ```text
//! prefix, 48 bytes                          then per item, 32 bytes          then the payloads,
//!  0 magic            u32                    0 payload bytes       u32       one behind the other
//!  4 crc32c of 8..end of the items  u32      4 payload crc32c      u32
//!  8 raft index       u64                    8 kind                u8
//! 16 last raft index  u64                    9 decision            u8
//! 24 term             u64                   10 zero                u16
//! 32 payload bytes    u64                   12 offset count        u32
//! 40 items            u32                   16 base offset         u64
//! 44 body             u8                    24 max timestamp, ms   i64
//! 45 zero             3 bytes
//! ```
//!
//! The header (prefix and items) has its own checksum, so a scan can trust it and hop over the payloads; every
//! payload has its own, so that one item can be read and verified alone, and a rewrite carries it over unchanged.
//!
//! Retired codes stay reserved. Body: 0 blank, 1 items, 2 membership (one item), 3 remains. Decision: 0 drop, 1 keep.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};

use crate::types::{Body, Decision, Entry, Item, Kept, LogId};

/// Items that one frame may hold.
pub const FRAME_ITEMS_MAX: usize = 65_536;
/// Payload bytes that one frame may hold.
pub const FRAME_PAYLOAD_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Length of the fixed part of a frame header in bytes.
pub(super) const PREFIX_BYTES: usize = 48;
/// Length of an item's part of a frame header in bytes.
const ITEM_BYTES: usize = 32;
pub(super) const MAGIC: u32 = u32::from_le_bytes(*b"FRM1");
const CRC_START: usize = 8;

/// An applied entry with what apply decided about each of its items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The entry.
    pub entry: Entry,
    /// One decision per item; empty for a blank entry and for a membership.
    pub decisions: Arc<[Decision]>,
    /// crc32c of each item's payload, where apply has computed them; else empty.
    pub checksums: Arc<[u32]>,
}

/// What a frame stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyKind {
    /// A blank entry.
    Blank,
    /// A whole entry of items.
    Items,
    /// A membership, stored as one item.
    Membership,
    /// What is left of one or more entries: the items that still live, perhaps none. Raft cannot read it back.
    Remains,
}

/// One item, as described by the header of its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ItemHeader {
    /// Length of the payload in bytes.
    pub payload_bytes: u32,
    /// crc32c of the payload.
    pub payload_crc: u32,
    /// Machine-defined kind.
    pub kind: u8,
    /// What apply decided.
    pub decision: Decision,
}

/// The header of a frame: everything but the payloads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameHeader {
    /// Term and index of the (first) entry.
    pub log_id: LogId,
    /// Index of the last entry that the frame stands for; other than `log_id.index` only in [`BodyKind::Remains`].
    pub last_index: u64,
    /// What the frame stands for.
    pub body: BodyKind,
    /// Its items, in order.
    pub items: Vec<ItemHeader>,
}

/// A frame as it is stored: what a snapshot streams and what every write starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredFrame {
    /// The header.
    pub header: FrameHeader,
    /// One payload per item of the header.
    pub payloads: Vec<Bytes>,
}

impl StoredFrame {
    /// The stored form of `frame` (payloads are shared); the reason if it breaks a limit or if decisions and items
    /// do not match.
    pub(crate) fn of(frame: &Frame) -> Result<StoredFrame, &'static str> {
        let (body, items, payloads) = match &frame.entry.body {
            Body::Blank => (BodyKind::Blank, Vec::new(), Vec::new()),
            Body::Membership(bytes) => {
                (BodyKind::Membership, vec![ItemHeader::of(0, Decision::Drop, bytes, None)?], vec![bytes.clone()])
            }
            Body::Items(items) => {
                if items.len() != frame.decisions.len() {
                    return Err("it has not one decision per item");
                }
                let known = frame.checksums.iter().copied().map(Some).chain(std::iter::repeat(None));
                let parts = items.iter().zip(frame.decisions.iter()).zip(known);
                let headers = parts.map(|((item, decision), known)| ItemHeader::of(item.kind, *decision, &item.payload, known));
                let payloads = items.iter().map(|item| item.payload.clone()).collect();
                (BodyKind::Items, headers.collect::<Result<_, _>>()?, payloads)
            }
        };
        let log_id = frame.entry.log_id;
        let header = FrameHeader { log_id, last_index: log_id.index, body, items };
        header.check()?;
        Ok(StoredFrame { header, payloads })
    }

    /// A frame that says that nothing of the entries from `from_index` to `last` is left.
    pub(super) fn nothing(from_index: u64, last: LogId) -> StoredFrame {
        let log_id = LogId { term: last.term, index: from_index };
        let header = FrameHeader { log_id, last_index: last.index, body: BodyKind::Remains, items: Vec::new() };
        StoredFrame { header, payloads: Vec::new() }
    }

    /// The reason why this frame, which may come from a peer, cannot be stored.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        self.header.check()?;
        if self.payloads.len() != self.header.items.len() {
            return Err("it has not one payload per item");
        }
        let intact = self.header.items.iter().zip(&self.payloads).all(|(item, payload)| {
            u64::from(item.payload_bytes) == payload.len() as u64 && item.payload_crc == crc32c::crc32c(payload)
        });
        if intact { Ok(()) } else { Err("a payload does not match its length or checksum") }
    }

    /// The entry again; `None` if parts of it are gone.
    pub(super) fn into_entry(self) -> Option<Entry> {
        let StoredFrame { header, payloads } = self;
        let body = match header.body {
            BodyKind::Remains => return None,
            BodyKind::Blank => Body::Blank,
            BodyKind::Membership => Body::Membership(payloads.into_iter().next()?),
            BodyKind::Items => {
                let items = header.items.iter().zip(payloads);
                Body::Items(items.map(|(item, payload)| Item { kind: item.kind, payload }).collect())
            }
        };
        Some(Entry { log_id: header.log_id, body })
    }
}

/// The fixed part of a header, bounded but not yet proved by its checksum.
#[derive(Debug, Clone, Copy)]
pub(super) struct Prefix {
    crc: u32,
    log_id: LogId,
    last_index: u64,
    payload_bytes: u64,
    items: usize,
    body: BodyKind,
}

impl Prefix {
    /// Reads the first [`PREFIX_BYTES`] of a frame; the reason if they cannot be one.
    pub(super) fn decode(bytes: &[u8]) -> Result<Prefix, &'static str> {
        let mut bytes = bytes.get(..PREFIX_BYTES).ok_or("the frame header is cut short")?;
        if bytes.get_u32_le() != MAGIC {
            return Err("no frame starts here");
        }
        let crc = bytes.get_u32_le();
        let index = bytes.get_u64_le();
        let last_index = bytes.get_u64_le();
        let term = bytes.get_u64_le();
        let payload_bytes = bytes.get_u64_le();
        let items = usize::try_from(bytes.get_u32_le()).unwrap_or(usize::MAX);
        let body = match bytes.get_u8() {
            0 => BodyKind::Blank,
            1 => BodyKind::Items,
            2 => BodyKind::Membership,
            3 => BodyKind::Remains,
            _ => return Err("the frame header names an unknown body"),
        };
        if items > FRAME_ITEMS_MAX || payload_bytes > FRAME_PAYLOAD_BYTES_MAX {
            return Err("the frame header exceeds the limits of a frame");
        }
        Ok(Prefix { crc, log_id: LogId { term, index }, last_index, payload_bytes, items, body })
    }

    /// Length of the whole header in bytes.
    pub(super) fn header_bytes(&self) -> usize {
        PREFIX_BYTES + self.items * ITEM_BYTES
    }
}

impl FrameHeader {
    /// The reason why this cannot be the header of a frame.
    fn check(&self) -> Result<(), &'static str> {
        if self.items.len() > FRAME_ITEMS_MAX {
            return Err("it has more items than a frame can hold");
        }
        if self.payload_bytes() > FRAME_PAYLOAD_BYTES_MAX {
            return Err("its payloads are larger than a frame can hold");
        }
        let run = self.last_index > self.log_id.index;
        let shape_is_right = match self.body {
            BodyKind::Blank => self.items.is_empty() && !run,
            BodyKind::Items => !run,
            BodyKind::Membership => self.items.len() == 1 && !run,
            BodyKind::Remains => self.items.is_empty() || !run,
        };
        if !shape_is_right || self.last_index < self.log_id.index || self.last_index == u64::MAX {
            return Err("its header contradicts itself");
        }
        let mut next_offset = 0;
        for kept in self.items.iter().filter_map(ItemHeader::kept) {
            let end = end_offset(&kept).filter(|end| *end > kept.base_offset);
            let end = end.ok_or("it keeps an item that covers no offset, or more than there are")?;
            if kept.base_offset < next_offset {
                return Err("its offsets go back");
            }
            next_offset = end;
        }
        Ok(())
    }

    /// Reads a header from its own bytes.
    ///
    /// # Errors
    /// The reason, if it is not intact.
    pub fn decode(bytes: &[u8]) -> Result<FrameHeader, &'static str> {
        let prefix = Prefix::decode(bytes)?;
        let bytes = bytes.get(..prefix.header_bytes()).ok_or("the frame header is cut short")?;
        let protected = bytes.get(CRC_START..).unwrap_or_default();
        if crc32c::crc32c(protected) != prefix.crc {
            return Err("the frame header does not match its checksum");
        }
        let items = bytes.get(PREFIX_BYTES..).unwrap_or_default().chunks_exact(ITEM_BYTES);
        let items = items.map(ItemHeader::decode).collect::<Result<Vec<_>, _>>()?;
        let header = FrameHeader { log_id: prefix.log_id, last_index: prefix.last_index, body: prefix.body, items };
        header.check()?;
        if header.payload_bytes() != prefix.payload_bytes {
            return Err("the frame header contradicts itself");
        }
        Ok(header)
    }

    /// Appends the encoded header to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.put_u32_le(MAGIC);
        out.put_u32_le(0);
        out.put_u64_le(self.log_id.index);
        out.put_u64_le(self.last_index);
        out.put_u64_le(self.log_id.term);
        out.put_u64_le(self.payload_bytes());
        out.put_u32_le(u32::try_from(self.items.len()).unwrap_or(u32::MAX));
        out.put_u8(match self.body {
            BodyKind::Blank => 0,
            BodyKind::Items => 1,
            BodyKind::Membership => 2,
            BodyKind::Remains => 3,
        });
        out.put_bytes(0, 3);
        for item in &self.items {
            item.encode(out);
        }
        let crc = crc32c::crc32c(out.get(start + CRC_START..).unwrap_or_default());
        if let Some(place) = out.get_mut(start + 4..start + CRC_START) {
            place.copy_from_slice(&crc.to_le_bytes());
        }
    }

    /// Length of the encoded header in bytes.
    pub(super) fn header_bytes(&self) -> u64 {
        (PREFIX_BYTES + self.items.len() * ITEM_BYTES) as u64
    }

    /// Length of all payloads in bytes.
    #[must_use]
    pub fn payload_bytes(&self) -> u64 {
        self.items.iter().map(|item| u64::from(item.payload_bytes)).sum()
    }

    /// Length of the whole frame in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.header_bytes() + self.payload_bytes()
    }

    /// Every item with the file range of its payload, for a frame that starts at byte `position`.
    pub(super) fn items_at(&self, position: u64) -> impl Iterator<Item = (&ItemHeader, Range<u64>)> {
        let mut next = position + self.header_bytes();
        self.items.iter().map(move |item| {
            let start = next;
            next += u64::from(item.payload_bytes);
            (item, start..next)
        })
    }

    /// Term and index of the last entry that the frame stands for.
    pub(crate) fn last_log_id(&self) -> LogId {
        LogId { term: self.log_id.term, index: self.last_index }
    }
}

impl ItemHeader {
    pub(super) fn of(kind: u8, decision: Decision, payload: &Bytes, known_crc: Option<u32>) -> Result<ItemHeader, &'static str> {
        let payload_bytes = u32::try_from(payload.len()).map_err(|_| "an item is larger than 4 GiB")?;
        let payload_crc = known_crc.unwrap_or_else(|| crc32c::crc32c(payload));
        Ok(ItemHeader { payload_bytes, payload_crc, kind, decision })
    }

    /// Where the item is found, if it is kept.
    #[must_use]
    pub fn kept(&self) -> Option<Kept> {
        match self.decision {
            Decision::Drop => None,
            Decision::Keep(kept) => Some(kept),
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let dropped = Kept { base_offset: 0, offset_count: 0, max_timestamp_ms: 0 };
        let kept = self.kept();
        out.put_u32_le(self.payload_bytes);
        out.put_u32_le(self.payload_crc);
        out.put_u8(self.kind);
        out.put_u8(u8::from(kept.is_some()));
        out.put_u16_le(0);
        let kept = kept.unwrap_or(dropped);
        out.put_u32_le(kept.offset_count);
        out.put_u64_le(kept.base_offset);
        out.put_i64_le(kept.max_timestamp_ms);
    }

    fn decode(mut bytes: &[u8]) -> Result<ItemHeader, &'static str> {
        if bytes.len() != ITEM_BYTES {
            return Err("an item header is cut short");
        }
        let payload_bytes = bytes.get_u32_le();
        let payload_crc = bytes.get_u32_le();
        let kind = bytes.get_u8();
        let decision = bytes.get_u8();
        bytes.advance(2);
        let offset_count = bytes.get_u32_le();
        let base_offset = bytes.get_u64_le();
        let max_timestamp_ms = bytes.get_i64_le();
        let decision = match decision {
            0 => Decision::Drop,
            1 => Decision::Keep(Kept { base_offset, offset_count, max_timestamp_ms }),
            _ => return Err("an item header names an unknown decision"),
        };
        Ok(ItemHeader { payload_bytes, payload_crc, kind, decision })
    }
}

/// The offset behind a kept item; `None` if there is no such number.
pub(super) fn end_offset(kept: &Kept) -> Option<u64> {
    kept.base_offset.checked_add(u64::from(kept.offset_count))
}
