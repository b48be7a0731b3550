//! Reading segments: by raft index, by offset, by timestamp; and verifying them.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use super::error::{Damage, SegmentError};
use super::frame::{ItemHeader, StoredFrame, end_offset};
use super::index::{Index, Point};
use super::open::{load_index, scan};
use super::segment::{Cursor, FILE_HEADER_BYTES, Fetch, Segment, WALK_BYTES};
use super::{SegmentInfo, SegmentOptions, StoredItem};
use crate::disk::Disk;
use crate::types::{Entry, GroupId, Kept, LogId};

/// What one read takes from the disk at most, in bytes (more only if a single frame is larger).
const READ_BYTES_MAX: usize = 8 * 1024 * 1024;
/// What is read on top of the bytes asked for, so that frame headers do not cost the last item.
const READ_SLACK_BYTES: usize = 4 * 1024;
/// What the verification reads at once, in bytes.
const VERIFY_BYTES: usize = 1024 * 1024;
/// Closed segments per group whose index stays in memory.
const LOADED_INDEXES_MAX: usize = 8;

/// What the writer and all readers of a group's segments share.
#[derive(Debug)]
pub(super) struct Shared {
    pub disk: Arc<dyn Disk>,
    pub dir: PathBuf,
    pub group: GroupId,
    pub options: SegmentOptions,
    /// In order of raft index; only the last may be open.
    pub segments: ArcSwap<Vec<Arc<Segment>>>,
    /// Closed segments whose points are loaded, oldest first.
    loaded: Mutex<VecDeque<Arc<Segment>>>,
}

/// Reads a group's segments. Cheap to clone; a read works on the files as they are when it starts, also if they are
/// unlinked or rewritten meanwhile. All calls block on the disk.
#[derive(Debug, Clone)]
pub struct SegmentReader {
    pub(super) shared: Arc<Shared>,
}

impl Shared {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        group: GroupId,
        options: SegmentOptions,
        segments: Vec<Arc<Segment>>,
    ) -> Shared {
        let segments = ArcSwap::from_pointee(segments);
        Shared { disk, dir, group, options, segments, loaded: Mutex::default() }
    }

    /// A walking cursor at the last indexed point that satisfies `before` (which must hold for a prefix of them), or
    /// at the first frame; `None` if the segment is empty.
    fn cursor<'a>(&self, segment: &'a Arc<Segment>, before: impl Fn(&Point) -> bool) -> Result<Option<Cursor<'a>>, SegmentError> {
        let last_before = |points: &[Point]| {
            let behind = points.partition_point(&before);
            points.get(behind.saturating_sub(1)).copied()
        };
        let (summary, point) = {
            let index = segment.index();
            (index.summary, last_before(&index.points))
        };
        if summary.last.is_none() {
            return Ok(None);
        }
        let point = match point {
            Some(point) => Some(point),
            None => {
                let points = self.load_points(segment)?;
                let point = last_before(&points);
                self.keep_points(segment, points);
                point
            }
        };
        Ok(point.map(|point| Cursor::new(segment, point, summary.bytes, WALK_BYTES)))
    }

    fn load_points(&self, segment: &Segment) -> Result<Vec<Point>, SegmentError> {
        let summary = segment.summary();
        if let Some(index) = load_index(self.disk.as_ref(), segment, summary.bytes)?
            && index.summary == summary
        {
            return Ok(index.points);
        }
        tracing::warn!(path = %segment.index_path().display(), "a segment index is missing or bad; scanning the segment");
        let empty = Index::new(segment.first_index, 0, FILE_HEADER_BYTES);
        let through = summary.last.map_or(0, |last| last.index);
        Ok(scan(segment, empty, summary.bytes, through, self.options.index_interval_bytes)?.points)
    }

    fn keep_points(&self, segment: &Arc<Segment>, points: Vec<Point>) {
        segment.index_mut().points = points;
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.retain(|other| !Arc::ptr_eq(other, segment));
        loaded.push_back(Arc::clone(segment));
        if loaded.len() > LOADED_INDEXES_MAX
            && let Some(oldest) = loaded.pop_front()
        {
            oldest.index_mut().points = Vec::new();
        }
    }
}

impl SegmentReader {
    /// A reader of the segments that there are now, whatever is unlinked, rewritten or added later. The open segment
    /// goes on growing in it.
    #[must_use]
    pub fn pin(&self) -> SegmentReader {
        let Shared { disk, dir, group, options, segments, .. } = self.shared.as_ref();
        let segments = segments.load().as_ref().clone();
        SegmentReader { shared: Arc::new(Shared::new(Arc::clone(disk), dir.clone(), *group, *options, segments)) }
    }

    /// Raft index at which the segments start; `None` while there are none.
    #[must_use]
    pub fn first_index(&self) -> Option<u64> {
        self.shared.segments.load().first().map(|segment| segment.first_index)
    }

    /// The last entry in the segments; `None` while there is none.
    #[must_use]
    pub fn last(&self) -> Option<LogId> {
        self.shared.segments.load().iter().rev().find_map(|segment| segment.summary().last)
    }

    /// First offset of the first kept item; `None` while nothing is kept.
    #[must_use]
    pub fn first_offset(&self) -> Option<u64> {
        self.shared.segments.load().iter().find_map(|segment| segment.summary().first_offset)
    }

    /// What each segment holds, in order.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentInfo> {
        let segments = self.shared.segments.load();
        segments.iter().map(|segment| info(segment)).collect()
    }

    /// Length of all segments in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.shared.segments.load().iter().map(|segment| segment.summary().bytes).sum()
    }

    /// Entries with raft indexes in `from..to`, up to `bytes_max` bytes of payload: at least one if `from` is in the
    /// segments and below `to`, perhaps fewer than fit. Empty behind the last entry.
    ///
    /// # Errors
    /// [`SegmentError::Removed`] if the entry `from`, or a part of it, was removed.
    pub fn entries(&self, from: u64, to: u64, bytes_max: usize) -> Result<Vec<Entry>, SegmentError> {
        let frames = self.frames(from, to, bytes_max)?;
        let entries: Vec<Entry> = frames.into_iter().map_while(StoredFrame::into_entry).collect();
        let in_segments = self.last().is_some_and(|last| from <= last.index);
        if entries.is_empty() && from < to && in_segments {
            return Err(SegmentError::Removed { group: self.shared.group, index: from });
        }
        Ok(entries)
    }

    /// Like [`SegmentReader::entries`], but whatever is left of them, with what apply decided: what a snapshot streams.
    /// The first frame may start before `from` if it stands for several entries.
    ///
    /// # Errors
    /// [`SegmentError::Removed`] if `from` lies before the first segment.
    pub fn frames(&self, from: u64, to: u64, bytes_max: usize) -> Result<Vec<StoredFrame>, SegmentError> {
        let segments = self.shared.segments.load_full();
        let behind = segments.partition_point(|segment| segment.first_index <= from);
        let Some(segment) = behind.checked_sub(1).and_then(|at| segments.get(at)) else {
            return match segments.first() {
                Some(_) => Err(SegmentError::Removed { group: self.shared.group, index: from }),
                None => Ok(Vec::new()),
            };
        };
        let Some(mut cursor) = self.shared.cursor(segment, |point| point.index <= from)? else { return Ok(Vec::new()) };
        let mut next = cursor.find(|header| header.last_index >= from)?;
        // A single entry is mostly in what walking read: openraft looks up many of them when a group starts.
        if to > from.saturating_add(1) {
            cursor.read_ahead(read_bytes(bytes_max));
        }
        let (mut frames, mut bytes) = (Vec::new(), 0);
        while let Some(header) = next.take_if(|header| header.log_id.index < to) {
            bytes += header.payload_bytes();
            let fetch = if frames.is_empty() { Fetch::Read } else { Fetch::BufferOnly };
            if fetch == Fetch::BufferOnly && bytes > bytes_max as u64 {
                break;
            }
            let Some(frame) = cursor.take(header, fetch)? else { break };
            frames.push(frame);
            next = cursor.header(Fetch::BufferOnly)?;
        }
        Ok(frames)
    }

    /// Kept items from the one that covers `offset` (or else the next one) on, up to `bytes_max` bytes of payload: at
    /// least one if there is any, perhaps fewer than fit. Their payloads are verified slices of one buffer.
    ///
    /// # Errors
    /// [`SegmentError::Damaged`] instead of anything that is not what was written.
    pub fn read(&self, offset: u64, bytes_max: usize) -> Result<Vec<StoredItem>, SegmentError> {
        let segments = self.shared.segments.load_full();
        let behind = segments.partition_point(|segment| segment.summary().next_offset <= offset);
        for segment in segments.iter().skip(behind) {
            let items = self.read_segment(segment, offset, bytes_max)?;
            if !items.is_empty() {
                return Ok(items);
            }
        }
        Ok(Vec::new())
    }

    fn read_segment(&self, segment: &Arc<Segment>, offset: u64, bytes_max: usize) -> Result<Vec<StoredItem>, SegmentError> {
        let mut found = Vec::new();
        match self.read_into(&mut found, segment, offset, bytes_max) {
            // What lies before the damage is whole. Who goes on from there meets it again.
            Err(error) if found.is_empty() => Err(error),
            Ok(()) | Err(_) => Ok(found),
        }
    }

    fn read_into(
        &self,
        found: &mut Vec<StoredItem>,
        segment: &Arc<Segment>,
        offset: u64,
        bytes_max: usize,
    ) -> Result<(), SegmentError> {
        let wanted = |item: &ItemHeader| item.kept().filter(|kept| end_offset(kept).is_some_and(|end| end > offset));
        let Some(mut cursor) = self.shared.cursor(segment, |point| point.next_offset <= offset)? else {
            return Ok(());
        };
        let mut next = cursor.find(|header| header.items.iter().any(|item| wanted(item).is_some()))?;
        cursor.read_ahead(read_bytes(bytes_max));
        let mut bytes = 0;
        while let Some(header) = next {
            for (item, range) in header.items_at(cursor.position) {
                let Some(kept) = wanted(item) else { continue };
                bytes += u64::from(item.payload_bytes);
                if !found.is_empty() && bytes > bytes_max as u64 {
                    return Ok(());
                }
                let fetch = fetch_for(found);
                let Some(payload) = cursor.payload(&header, item, range, fetch)? else { return Ok(()) };
                found.push(StoredItem { log_id: header.log_id, kind: item.kind, kept, payload });
            }
            cursor.advance(&header);
            next = cursor.header(fetch_for(found))?;
        }
        Ok(())
    }

    /// The first kept item that reaches behind `from` (an offset) and whose largest timestamp is at least `timestamp_ms`
    /// (milliseconds since the Unix epoch); the record itself is to be found inside.
    ///
    /// # Errors
    /// [`SegmentError::Damaged`] if a frame header on the way is not intact.
    pub fn offset_for_timestamp(&self, timestamp_ms: i64, from: u64) -> Result<Option<Kept>, SegmentError> {
        let behind = |kept: &Kept| end_offset(kept).is_none_or(|end| end > from);
        let wanted = |item: &ItemHeader| item.kept().filter(|kept| kept.max_timestamp_ms >= timestamp_ms && behind(kept));
        for segment in self.shared.segments.load_full().iter() {
            let summary = segment.summary();
            if summary.first_offset.is_none() || summary.max_timestamp_ms < timestamp_ms || summary.next_offset <= from {
                continue;
            }
            let before = |point: &Point| point.max_timestamp_ms < timestamp_ms || point.next_offset <= from;
            let Some(mut cursor) = self.shared.cursor(segment, before)? else { continue };
            let header = cursor.find(|header| header.items.iter().any(|item| wanted(item).is_some()))?;
            if let Some(kept) = header.and_then(|header| header.items.iter().find_map(wanted)) {
                return Ok(Some(kept));
            }
        }
        Ok(None)
    }

    /// Reads the closed segment `first_index` from the disk, past the page cache where possible, and checks every
    /// byte. `progress` is told how many bytes were read since it was last called: it slows the work down by
    /// waiting, or breaks it off. Returns the bytes verified.
    ///
    /// # Errors
    /// [`SegmentError::Damaged`], or [`SegmentError::NoSuchSegment`] if it is not closed or was removed meanwhile.
    pub fn verify(&self, first_index: u64, mut progress: impl FnMut(u64) -> ControlFlow<()>) -> Result<u64, SegmentError> {
        let held = self.closed_segment(first_index)?;
        let verified = verify_file(&self.shared, &held, &mut progress);
        match self.closed_segment(first_index) {
            Ok(now) if Arc::ptr_eq(&now, &held) => verified,
            // Unlinked or rewritten meanwhile: what was read may be the file that replaced it.
            _ => Err(SegmentError::NoSuchSegment { group: self.shared.group, first_index }),
        }
    }

    pub(super) fn closed_segment(&self, first_index: u64) -> Result<Arc<Segment>, SegmentError> {
        let segments = self.shared.segments.load();
        let found = segments.iter().find(|segment| segment.first_index == first_index && segment.is_closed());
        found.cloned().ok_or(SegmentError::NoSuchSegment { group: self.shared.group, first_index })
    }
}

fn fetch_for(found: &[StoredItem]) -> Fetch {
    if found.is_empty() { Fetch::Read } else { Fetch::BufferOnly }
}

fn read_bytes(bytes_max: usize) -> usize {
    (bytes_max.saturating_add(bytes_max / 16)).saturating_add(READ_SLACK_BYTES).min(READ_BYTES_MAX)
}

fn info(segment: &Segment) -> SegmentInfo {
    let summary = segment.summary();
    SegmentInfo {
        first_index: segment.first_index,
        last: summary.last,
        first_offset: summary.first_offset,
        next_offset: summary.next_offset,
        max_timestamp_ms: summary.first_offset.map(|_| summary.max_timestamp_ms),
        bytes: summary.bytes,
        closed: segment.is_closed(),
    }
}

fn verify_file(shared: &Shared, held: &Segment, progress: &mut dyn FnMut(u64) -> ControlFlow<()>) -> Result<u64, SegmentError> {
    let summary = held.summary();
    let indexes = held.first_index..=summary.last.map_or(held.first_index, |last| last.index);
    let unread = |error| Damage::or_io((held.group, &held.path), 0..summary.bytes, indexes, error);
    let file = shared.disk.open_uncached(&held.path).map_err(unread)?;
    let index = Index { summary, points: Vec::new() };
    let segment = Segment::new(held.group, held.path.clone(), file, index);
    segment.check_file_header()?;
    let start = Point { position: FILE_HEADER_BYTES, index: held.first_index, next_offset: 0, max_timestamp_ms: 0 };
    let mut cursor = Cursor::new(&segment, start, summary.bytes, VERIFY_BYTES);
    let mut reported = 0;
    while let Some(header) = cursor.header(Fetch::Read)? {
        cursor.take(header, Fetch::Read)?;
        if cursor.position - reported >= VERIFY_BYTES as u64 || cursor.position == summary.bytes {
            let read = cursor.position - reported;
            reported = cursor.position;
            if progress(read).is_break() {
                break;
            }
        }
    }
    Ok(cursor.position)
}
