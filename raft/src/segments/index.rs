//! The sparse index of one segment: what the segment holds in sum, and every so many bytes a point from which a
//! reader can walk. It is not data: whatever is missing or bad is built again by scanning frame headers.
//!
//! `<first raft index>.index`, little-endian:
//!
//! ```text
//! magic 8 · crc32c of all that follows u32 · points u32
//! first index u64 · has last u8 · last term u64 · last index u64 · last frame at byte u64 · its header crc32c u32
//! has offset u8 · first offset u64 · next offset u64 · max timestamp i64 · bytes u64
//! per point: position u64 · raft index u64 · next offset u64 · max timestamp before it i64
//! ```

use bytes::{Buf, BufMut};

use super::frame::{FrameHeader, ItemHeader, end_offset};
use crate::types::LogId;

const MAGIC: &[u8; 8] = b"FLTIDX01";
const HEAD_BYTES: usize = 16;
const SUMMARY_BYTES: usize = 8 + 17 + 8 + 4 + 9 + 8 + 8 + 8;
const POINT_BYTES: usize = 32;

/// What a segment holds, in sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Summary {
    /// Raft index of the first entry that the segment may hold; also its file name.
    pub first_index: u64,
    /// The last entry in it.
    pub last: Option<LogId>,
    /// Where the last frame starts; 0 if there is none.
    pub last_position: u64,
    /// First offset of the first kept item.
    pub first_offset: Option<u64>,
    /// The offset behind the last kept item in this segment or in one before it.
    pub next_offset: u64,
    /// Largest timestamp of a kept item, `i64::MIN` without one.
    pub max_timestamp_ms: i64,
    /// Length of the file up to here.
    pub bytes: u64,
}

/// A place from which a reader can walk forward: the start of a frame, and what lies before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Point {
    /// Byte in the file at which a frame starts.
    pub position: u64,
    /// First raft index of that frame.
    pub index: u64,
    /// The offset behind all items before it.
    pub next_offset: u64,
    /// Largest timestamp of the kept items before it in this segment.
    pub max_timestamp_ms: i64,
}

/// Summary and points of one segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Index {
    pub summary: Summary,
    /// Sorted; empty without a frame, and while those of a closed segment are not loaded.
    pub points: Vec<Point>,
}

impl Index {
    /// The index of a segment without frames whose header is `bytes` long.
    pub(super) fn new(first_index: u64, next_offset: u64, bytes: u64) -> Index {
        let summary = Summary {
            first_index,
            last: None,
            last_position: 0,
            first_offset: None,
            next_offset,
            max_timestamp_ms: i64::MIN,
            bytes,
        };
        Index { summary, points: Vec::new() }
    }

    /// Raft index that the next frame must start with.
    pub(super) fn next_index(&self) -> u64 {
        self.summary.last.map_or(self.summary.first_index, |last| last.index + 1)
    }

    /// The part of it up to the last point at or before raft index `through`, unless it ends there anyway. The term of
    /// its last entry is not known then: a scan has to go on from there. Segments before it end at `offset_before`.
    pub(super) fn up_to(mut self, through: u64, offset_before: u64) -> Index {
        if self.next_index() <= through + 1 {
            return self;
        }
        let behind = self.points.partition_point(|point| point.index <= through);
        self.points.truncate(behind);
        let first_index = self.summary.first_index;
        let Some(point) = self.points.pop() else { return self };
        self.summary = Summary {
            first_index,
            last: (point.index > first_index).then(|| LogId { term: 0, index: point.index - 1 }),
            last_position: 0,
            first_offset: self.summary.first_offset.filter(|first| *first < point.next_offset),
            // A rewritten segment counts from 0.
            next_offset: point.next_offset.max(offset_before),
            max_timestamp_ms: point.max_timestamp_ms,
            bytes: point.position,
        };
        self
    }

    /// Takes in the frame that starts where the index ends.
    pub(super) fn observe(&mut self, header: &FrameHeader, interval_bytes: u64) {
        let summary = &mut self.summary;
        let due = self.points.last().is_none_or(|point| summary.bytes >= point.position + interval_bytes);
        if due {
            self.points.push(Point {
                position: summary.bytes,
                index: header.log_id.index,
                next_offset: summary.next_offset,
                max_timestamp_ms: summary.max_timestamp_ms,
            });
        }
        for kept in header.items.iter().filter_map(ItemHeader::kept) {
            summary.first_offset.get_or_insert(kept.base_offset);
            summary.next_offset = end_offset(&kept).unwrap_or(u64::MAX);
            summary.max_timestamp_ms = summary.max_timestamp_ms.max(kept.max_timestamp_ms);
        }
        summary.last = Some(header.last_log_id());
        summary.last_position = summary.bytes;
        summary.bytes += header.bytes();
    }

    /// The index file; `last_header_crc` ties it to the segment that it was made from.
    pub(super) fn encode(&self, last_header_crc: u32) -> Vec<u8> {
        let mut body = Vec::with_capacity(SUMMARY_BYTES + self.points.len() * POINT_BYTES);
        let summary = &self.summary;
        let last = summary.last.unwrap_or_default();
        body.put_u64_le(summary.first_index);
        body.put_u8(u8::from(summary.last.is_some()));
        body.put_u64_le(last.term);
        body.put_u64_le(last.index);
        body.put_u64_le(summary.last_position);
        body.put_u32_le(last_header_crc);
        body.put_u8(u8::from(summary.first_offset.is_some()));
        body.put_u64_le(summary.first_offset.unwrap_or(0));
        body.put_u64_le(summary.next_offset);
        body.put_i64_le(summary.max_timestamp_ms);
        body.put_u64_le(summary.bytes);
        for point in &self.points {
            body.put_u64_le(point.position);
            body.put_u64_le(point.index);
            body.put_u64_le(point.next_offset);
            body.put_i64_le(point.max_timestamp_ms);
        }
        let mut file = Vec::with_capacity(HEAD_BYTES + body.len());
        file.put_slice(MAGIC);
        let points = u32::try_from(self.points.len()).unwrap_or(u32::MAX).to_le_bytes();
        file.put_u32_le(crc32c::crc32c_append(crc32c::crc32c(&points), &body));
        file.put_slice(&points);
        file.put_slice(&body);
        file
    }

    /// Reads an index file, with the header checksum of the last frame; `None` if anything is wrong with it.
    pub(super) fn decode(file: &[u8]) -> Option<(Index, u32)> {
        let (mut head, body) = file.split_at_checked(HEAD_BYTES)?;
        if head.get(..8)? != MAGIC {
            return None;
        }
        head.advance(8);
        let crc = head.get_u32_le();
        if crc32c::crc32c(file.get(12..)?) != crc {
            return None;
        }
        let count = usize::try_from(head.get_u32_le()).ok()?;
        let (mut body, mut rest) = body.split_at_checked(SUMMARY_BYTES)?;
        if rest.len() != count.checked_mul(POINT_BYTES)? {
            return None;
        }
        let first_index = body.get_u64_le();
        let has_last = body.get_u8() == 1;
        let last = LogId { term: body.get_u64_le(), index: body.get_u64_le() };
        let last_position = body.get_u64_le();
        let last_header_crc = body.get_u32_le();
        let has_offset = body.get_u8() == 1;
        let first_offset = body.get_u64_le();
        let summary = Summary {
            first_index,
            last: has_last.then_some(last),
            last_position,
            first_offset: has_offset.then_some(first_offset),
            next_offset: body.get_u64_le(),
            max_timestamp_ms: body.get_i64_le(),
            bytes: body.get_u64_le(),
        };
        let points = std::iter::repeat_with(|| Point {
            position: rest.get_u64_le(),
            index: rest.get_u64_le(),
            next_offset: rest.get_u64_le(),
            max_timestamp_ms: rest.get_i64_le(),
        });
        let points = points.take(count).collect();
        Some((Index { summary, points }, last_header_crc))
    }
}
