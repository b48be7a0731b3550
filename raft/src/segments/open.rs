//! Opening a group's segments: discards what was not synced, and refuses what is less than what was.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::SegmentOptions;
use super::error::{Damage, SegmentError, io_error};
use super::index::{Index, Point};
use super::mark::{mark_path, read_mark};
use super::segment::{Cursor, FILE_HEADER_BYTES, Fetch, Segment, WALK_BYTES, parse_segment_path, read_range, segment_path};
use super::write::save_index;
use crate::disk::Disk;
use crate::types::{GroupId, LogId};

/// An index file larger than this is not read; it would describe a segment far beyond any limit.
const INDEX_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Brings `dir` to exactly what is synced through `synced`, and returns its segments in order. The last one is open
/// (goes on growing), all others are closed.
pub(super) fn open(
    disk: &dyn Disk,
    dir: &Path,
    group: GroupId,
    options: &SegmentOptions,
    synced: Option<LogId>,
) -> Result<Vec<Arc<Segment>>, SegmentError> {
    disk.create_dir_all(dir).map_err(io_error("creating", dir))?;
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        disk.sync_dir(parent).map_err(io_error("syncing", parent))?;
    }
    let through = synced.map_or(0, |synced| synced.index);
    let files = disk.list(dir).map_err(|error| Damage::or_io((group, dir), 0..0, 0..=through, error))?;
    for path in files.iter().filter(|path| path.extension().is_some_and(|extension| extension == "tmp")) {
        remove(disk, path)?;
    }
    let mut first_indexes: Vec<u64> = files.iter().filter_map(|path| parse_segment_path(path)).collect();
    first_indexes.sort_unstable();
    let held = match synced {
        None => {
            remove(disk, &mark_path(dir))?;
            0..0
        }
        Some(synced) => read_mark(disk, dir, group, synced)?..synced.index + 1,
    };
    for first_index in first_indexes.iter().filter(|index| !held.contains(index)) {
        let path = segment_path(dir, *first_index);
        remove(disk, &path.with_extension("index"))?;
        remove(disk, &path)?;
    }
    first_indexes.retain(|index| held.contains(index));
    let Some(synced) = synced.filter(|_| !held.is_empty()) else { return Ok(Vec::new()) };
    Opening { disk, dir, group, options, synced }.segments(&first_indexes, held.start)
}

/// Scans frame headers from where `index` ends through raft index `through`, and extends it by them.
pub(super) fn scan(
    segment: &Segment,
    mut index: Index,
    end: u64,
    through: u64,
    interval_bytes: u64,
) -> Result<Index, SegmentError> {
    let summary = index.summary;
    let start = Point {
        position: summary.bytes,
        index: index.next_index(),
        next_offset: summary.next_offset,
        max_timestamp_ms: summary.max_timestamp_ms,
    };
    let mut cursor = Cursor::new(segment, start, end, WALK_BYTES);
    while cursor.index <= through {
        let Some(header) = cursor.header(Fetch::Read)? else { break };
        index.observe(&header, interval_bytes);
        cursor.advance(&header);
    }
    Ok(index)
}

/// The saved index of `segment` if it fits the file, which is `len` bytes long.
pub(super) fn load_index(disk: &dyn Disk, segment: &Segment, len: u64) -> Result<Option<Index>, SegmentError> {
    let path = segment.index_path();
    let read = || -> io::Result<Option<(Index, u32)>> {
        let file = disk.open(&path, false)?;
        let bytes = file.len()?.min(INDEX_BYTES_MAX);
        Ok(Index::decode(&read_range(file.as_ref(), 0..bytes)?))
    };
    let (index, last_header_crc) = match read() {
        Ok(Some(found)) => found,
        // It is not data: what cannot be read of it is built again.
        Ok(None) => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            tracing::warn!(%error, "a segment index cannot be read; scanning the segment");
            return Ok(None);
        }
    };
    let summary = &index.summary;
    let fits = summary.first_index == segment.first_index
        && summary.last.is_some()
        && summary.bytes <= len
        && summary.last_position < summary.bytes
        && segment.last_header_crc(summary)? == last_header_crc;
    Ok(fits.then_some(index))
}

/// Removes a file that may be missing.
pub(super) fn remove(disk: &dyn Disk, path: &Path) -> Result<(), SegmentError> {
    match disk.remove(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(io_error("removing", path)),
    }
}

struct Opening<'a> {
    disk: &'a dyn Disk,
    dir: &'a Path,
    group: GroupId,
    options: &'a SegmentOptions,
    synced: LogId,
}

impl Opening<'_> {
    fn segments(&self, first_indexes: &[u64], start: u64) -> Result<Vec<Arc<Segment>>, SegmentError> {
        let synced = self.synced;
        if first_indexes.first() != Some(&start) {
            let until = first_indexes.first().map_or(synced.index, |first| first - 1);
            return Err(self.missing(segment_path(self.dir, start), start, until));
        }
        let mut segments = Vec::with_capacity(first_indexes.len());
        let mut next_offset = 0;
        let nexts = first_indexes.iter().skip(1).map(Some).chain([None]);
        for (first_index, next) in first_indexes.iter().zip(nexts) {
            let segment = match next {
                Some(next) => self.closed(*first_index, next - 1, next_offset)?,
                None => self.last(*first_index, synced, next_offset)?,
            };
            next_offset = segment.summary().next_offset;
            segments.push(Arc::new(segment));
        }
        Ok(segments)
    }

    /// A segment that must hold everything through raft index `last_index` and nothing else.
    fn closed(&self, first_index: u64, last_index: u64, next_offset: u64) -> Result<Segment, SegmentError> {
        let (segment, len) = self.file(first_index, next_offset)?;
        let holds_all = |index: &Index| index.next_index() == last_index + 1 && index.summary.bytes == len;
        let saved = load_index(self.disk, &segment, len)?.filter(holds_all);
        let rebuilt = saved.is_none();
        let index = match saved {
            Some(index) => index,
            None => self.scan_from_start(&segment, len, last_index, next_offset)?,
        };
        if !holds_all(&index) {
            return Err(self.ends_wrong(&segment, &index, len, last_index));
        }
        *segment.index_mut() = index;
        if rebuilt {
            save_index(self.disk, &segment, true);
        }
        segment.close();
        Ok(segment)
    }

    /// The last segment, which must hold everything through `synced`; what lies behind that is cut off.
    fn last(&self, first_index: u64, synced: LogId, next_offset: u64) -> Result<Segment, SegmentError> {
        let (segment, len) = self.file(first_index, next_offset)?;
        let saved = load_index(self.disk, &segment, len)?;
        let fits = saved.as_ref().is_some_and(|index| index.next_index() <= synced.index + 1);
        let index = match saved {
            Some(index) => {
                let start = index.up_to(synced.index, next_offset);
                scan(&segment, start, len, synced.index, self.options.index_interval_bytes)?
            }
            None => self.scan_from_start(&segment, len, synced.index, next_offset)?,
        };
        let last = index.summary.last.unwrap_or_default();
        if last.index < synced.index {
            return Err(self.ends_wrong(&segment, &index, len, synced.index));
        }
        if last.index == synced.index && last != synced {
            let bytes = index.summary.last_position..index.summary.bytes;
            let reason = "the last synced entry has another term than the journal recorded";
            return Err(segment.damaged(bytes, synced.index, synced.index, None, reason));
        }
        if index.summary.bytes < len {
            let cut = segment.file.set_len(index.summary.bytes).and_then(|()| segment.file.sync());
            cut.map_err(io_error("cutting off what was not synced of", &segment.path))?;
        }
        *segment.index_mut() = index;
        if !fits {
            save_index(self.disk, &segment, false);
        }
        Ok(segment)
    }

    fn file(&self, first_index: u64, next_offset: u64) -> Result<(Segment, u64), SegmentError> {
        let path = segment_path(self.dir, first_index);
        let unread = |error| Damage::or_io((self.group, &path), 0..0, first_index..=self.synced.index, error);
        let file = self.disk.open(&path, false).map_err(unread)?;
        let len = file.len().map_err(unread)?;
        let segment = Segment::new(self.group, path, file, Index::new(first_index, next_offset, FILE_HEADER_BYTES));
        segment.check_file_header()?;
        Ok((segment, len))
    }

    fn scan_from_start(&self, segment: &Segment, len: u64, through: u64, offset: u64) -> Result<Index, SegmentError> {
        let empty = Index::new(segment.first_index, offset, FILE_HEADER_BYTES);
        scan(segment, empty, len, through, self.options.index_interval_bytes)
    }

    fn ends_wrong(&self, segment: &Segment, index: &Index, len: u64, last_index: u64) -> SegmentError {
        let end = index.summary.bytes;
        let (from, to) = (index.next_index(), last_index);
        let (from, to, reason) = match (from <= to, end < len) {
            (true, true) => (from, to, "the file is shorter than what was written"),
            (true, false) => (from, to, "entries behind its end are gone: it was cut, or the next file is missing"),
            (false, _) => (to, from - 1, "the file is longer than what was written"),
        };
        segment.damaged(end..len.max(end), from, to, None, reason)
    }

    fn missing(&self, file: PathBuf, from_index: u64, to_index: u64) -> SegmentError {
        let group = self.group;
        let reason = "the file is missing";
        let damage = Damage { group, file, bytes: 0..0, indexes: from_index..=to_index, offsets: None, reason };
        SegmentError::Damaged(Box::new(damage))
    }
}
