//! One segment file: its header, its index in memory, and a cursor that reads verified frames from it.
//!
//! File header, 32 bytes, little-endian: magic 8 · group u64 · first raft index u64 · zero u32 · crc32c of the rest u32.
//! Frames follow without a gap to the end of the file.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::{Buf, BufMut, Bytes};

use super::error::{Damage, SegmentError};
use super::frame::{FrameHeader, ItemHeader, PREFIX_BYTES, Prefix, StoredFrame};
use super::index::{Index, Point, Summary};
use crate::disk::DiskFile;
use crate::types::GroupId;

/// Length of a segment file's header in bytes.
pub(super) const FILE_HEADER_BYTES: u64 = 32;
/// What a cursor reads at once while it only walks over headers.
pub(super) const WALK_BYTES: usize = 16 * 1024;
const MAGIC: &[u8; 8] = b"FLTSEG01";

/// A segment file, shared by its writer and all readers that hold it.
#[derive(Debug)]
pub(super) struct Segment {
    pub group: GroupId,
    pub first_index: u64,
    pub path: PathBuf,
    pub file: Arc<dyn DiskFile>,
    index: RwLock<Index>,
    closed: AtomicBool,
}

impl Segment {
    pub(super) fn new(group: GroupId, path: PathBuf, file: Arc<dyn DiskFile>, index: Index) -> Segment {
        let first_index = index.summary.first_index;
        Segment { group, first_index, path, file, index: RwLock::new(index), closed: AtomicBool::new(false) }
    }

    pub(super) fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn summary(&self) -> Summary {
        self.index().summary
    }

    /// Marks the segment immutable and forgets its points, which are read back when somebody looks for one.
    pub(super) fn close(&self) {
        self.index_mut().points = Vec::new();
        self.closed.store(true, Ordering::Release);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Damage of `bytes` that may affect everything from raft index `from_index` to the end of the segment.
    pub(super) fn damaged_from(&self, bytes: Range<u64>, from_index: u64, reason: &'static str) -> SegmentError {
        let summary = self.summary();
        let last = summary.last.map_or(from_index, |last| last.index).max(from_index);
        let offsets = summary.first_offset.map(|first| first..summary.next_offset);
        self.damaged(bytes, from_index, last, offsets, reason)
    }

    pub(super) fn damaged(
        &self,
        bytes: Range<u64>,
        from_index: u64,
        to_index: u64,
        offsets: Option<Range<u64>>,
        reason: &'static str,
    ) -> SegmentError {
        let (group, file) = (self.group, self.path.clone());
        SegmentError::Damaged(Box::new(Damage { group, file, bytes, indexes: from_index..=to_index, offsets, reason }))
    }

    /// Reads `bytes` of the file; a file that ends before them, or whose device cannot read them, is damaged.
    pub(super) fn read(&self, bytes: Range<u64>, index: u64) -> Result<Bytes, SegmentError> {
        read_range(self.file.as_ref(), bytes.clone()).map_err(|error| {
            match Damage::or_io((self.group, &self.path), bytes.clone(), index..=index, error) {
                SegmentError::Damaged(damage) => self.damaged_from(bytes, index, damage.reason),
                other => other,
            }
        })
    }

    /// Refuses a file whose header does not name this segment.
    pub(super) fn check_file_header(&self) -> Result<(), SegmentError> {
        let header = self.read(0..FILE_HEADER_BYTES, self.first_index)?;
        if header != file_header(self.group, self.first_index) {
            let reason = "the file header is not that of this group's segment";
            return Err(self.damaged_from(0..FILE_HEADER_BYTES, self.first_index, reason));
        }
        Ok(())
    }

    /// The checksum of the last frame's header as it lies in the file; 0 without a frame.
    pub(super) fn last_header_crc(&self, summary: &Summary) -> Result<u32, SegmentError> {
        let Some(last) = summary.last else { return Ok(0) };
        let start = summary.last_position;
        let prefix = self.read(start..start + 8, last.index)?;
        Ok(prefix.as_ref().get(4..).unwrap_or_default().try_get_u32_le().unwrap_or(0))
    }

    pub(super) fn index_path(&self) -> PathBuf {
        self.path.with_extension("index")
    }
}

/// Reads exactly `range` of `file`.
pub(super) fn read_range(file: &dyn DiskFile, range: Range<u64>) -> io::Result<Bytes> {
    let len = usize::try_from(range.end.saturating_sub(range.start)).map_err(io::Error::other)?;
    let mut buf = vec![0; len];
    file.read_exact_at(&mut buf, range.start)?;
    Ok(Bytes::from(buf))
}

/// The path of the segment that starts with `first_index`.
pub(super) fn segment_path(dir: &Path, first_index: u64) -> PathBuf {
    dir.join(format!("{first_index:020}.segment"))
}

/// The first index of a segment file, from its name.
pub(super) fn parse_segment_path(path: &Path) -> Option<u64> {
    let digits = path.file_name()?.to_str()?.strip_suffix(".segment")?;
    (digits.len() == 20).then(|| digits.parse().ok())?
}

/// The header of a segment file.
pub(super) fn file_header(group: GroupId, first_index: u64) -> Vec<u8> {
    let mut header = Vec::with_capacity(32);
    header.put_slice(MAGIC);
    header.put_u64_le(group.0);
    header.put_u64_le(first_index);
    header.put_u32_le(0);
    let crc = crc32c::crc32c(&header);
    header.put_u32_le(crc);
    header
}

/// Reads frames of one segment in order, through one buffer that whoever gets a payload shares.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    pub segment: &'a Segment,
    /// Where frames end (what was written when the cursor was made).
    pub end: u64,
    /// Where the next frame starts.
    pub position: u64,
    /// The raft index that it must start with.
    pub index: u64,
    read_bytes: usize,
    chunk: Bytes,
    chunk_position: u64,
}

/// Whether a cursor may go to the disk for what its buffer does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fetch {
    Read,
    BufferOnly,
}

impl<'a> Cursor<'a> {
    /// A cursor at `point` that reads `read_bytes` at once.
    pub(super) fn new(segment: &'a Segment, point: Point, end: u64, read_bytes: usize) -> Cursor<'a> {
        let Point { position, index, .. } = point;
        Cursor { segment, end, position, index, read_bytes, chunk: Bytes::new(), chunk_position: 0 }
    }

    /// From here on reads `read_bytes` at once, starting with the next payload: what walking buffered is too little.
    pub(super) fn read_ahead(&mut self, read_bytes: usize) {
        self.read_bytes = read_bytes;
        self.chunk = Bytes::new();
    }

    /// The verified header at the cursor's position, without moving; `None` at the end, or if the buffer has not got it.
    pub(super) fn header(&mut self, fetch: Fetch) -> Result<Option<FrameHeader>, SegmentError> {
        let start = self.position;
        if start >= self.end {
            return Ok(None);
        }
        let bad = |cursor: &Self, end: u64, reason| cursor.segment.damaged_from(start..end, cursor.index, reason);
        let prefix_end = start + PREFIX_BYTES as u64;
        if prefix_end > self.end {
            return Err(bad(self, self.end, "the last frame is cut short"));
        }
        let Some(bytes) = self.bytes(start..prefix_end, fetch)? else { return Ok(None) };
        let prefix = Prefix::decode(&bytes).map_err(|reason| bad(self, prefix_end, reason))?;
        let header_end = start + prefix.header_bytes() as u64;
        if header_end > self.end {
            return Err(bad(self, self.end, "the last frame header is cut short"));
        }
        let Some(bytes) = self.bytes(start..header_end, fetch)? else { return Ok(None) };
        let header = FrameHeader::decode(&bytes).map_err(|reason| bad(self, header_end, reason))?;
        if header.log_id.index != self.index {
            return Err(bad(self, header_end, "a frame stands where another belongs"));
        }
        if start + header.bytes() > self.end {
            return Err(bad(self, self.end, "the last frame is cut short"));
        }
        Ok(Some(header))
    }

    /// Moves behind the frame that `header` describes.
    pub(super) fn advance(&mut self, header: &FrameHeader) {
        self.position += header.bytes();
        self.index = header.last_index + 1;
    }

    /// The verified payload of an item; `None` if the buffer has not got it.
    pub(super) fn payload(
        &mut self,
        header: &FrameHeader,
        item: &ItemHeader,
        range: Range<u64>,
        fetch: Fetch,
    ) -> Result<Option<Bytes>, SegmentError> {
        let Some(payload) = self.bytes(range.clone(), fetch)? else { return Ok(None) };
        if crc32c::crc32c(&payload) != item.payload_crc {
            let offsets = item.kept().map(|kept| kept.base_offset..kept.base_offset + u64::from(kept.offset_count));
            let reason = "a payload does not match its checksum";
            return Err(self.segment.damaged(range, header.log_id.index, header.last_index, offsets, reason));
        }
        Ok(Some(payload))
    }

    /// The whole frame that `header` describes, verified, and moves behind it; `None` if the buffer has not got it.
    pub(super) fn take(&mut self, header: FrameHeader, fetch: Fetch) -> Result<Option<StoredFrame>, SegmentError> {
        let start = self.position + header.header_bytes();
        if self.bytes(start..self.position + header.bytes(), fetch)?.is_none() {
            return Ok(None);
        }
        let mut payloads = Vec::with_capacity(header.items.len());
        for (item, range) in header.items_at(self.position) {
            let Some(payload) = self.payload(&header, item, range, Fetch::BufferOnly)? else { return Ok(None) };
            payloads.push(payload);
        }
        self.advance(&header);
        Ok(Some(StoredFrame { header, payloads }))
    }

    /// Walks forward to the first frame that `wanted` accepts, and stays in front of it.
    pub(super) fn find(&mut self, wanted: impl Fn(&FrameHeader) -> bool) -> Result<Option<FrameHeader>, SegmentError> {
        while let Some(header) = self.header(Fetch::Read)? {
            if wanted(&header) {
                return Ok(Some(header));
            }
            self.advance(&header);
        }
        Ok(None)
    }

    fn bytes(&mut self, range: Range<u64>, fetch: Fetch) -> Result<Option<Bytes>, SegmentError> {
        let held = self.chunk_position..self.chunk_position + self.chunk.len() as u64;
        if range.start < held.start || range.end > held.end {
            if fetch == Fetch::BufferOnly {
                return Ok(None);
            }
            let end = range.end.max(range.start + self.read_bytes as u64).min(self.end);
            self.chunk = self.segment.read(range.start..end, self.index)?;
            self.chunk_position = range.start;
        }
        let start = usize::try_from(range.start - self.chunk_position).unwrap_or(usize::MAX);
        let end = usize::try_from(range.end - self.chunk_position).unwrap_or(usize::MAX);
        Ok(Some(self.chunk.slice(start..end)))
    }
}
