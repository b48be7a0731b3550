//! Writing segments: append, sync, roll, unlink, and the swap that ends a rewrite. One owner: the flusher.

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{SegmentError, io_error};
use super::frame::{Frame, ItemHeader, StoredFrame, end_offset};
use super::index::Index;
use super::mark::write_mark;
use super::reader::Shared;
use super::segment::{FILE_HEADER_BYTES, Segment, file_header, segment_path};
use super::write::{save_index, write_frames};
use super::{Rewritten, SegmentOptions, SegmentReader, open};
use crate::disk::Disk;
use crate::disk::error::Class;
use crate::types::{GroupId, LogId};

/// Appends to a group's segments and removes from them. After a failed write or sync it refuses everything: what
/// reached the disk is unknown, and only opening again finds out. What failed because there is no space, or for what passes
/// ([`Class::waits`]), did not happen, and may be asked for again.
#[derive(Debug)]
pub struct SegmentWriter {
    shared: Arc<Shared>,
    active: Option<Arc<Segment>>,
    /// The last entry written, or known to be removed.
    last: Option<LogId>,
    next_offset: u64,
    /// What `log-start` says, as far as this writer wrote it.
    mark: Option<u64>,
    dir_needs_sync: bool,
    file_needs_sync: bool,
    /// Length of the active segment that its saved index covers, in bytes.
    index_saved_bytes: u64,
    failed: bool,
    /// Files of segments that were given up, and that are still to be removed.
    leftovers: Vec<PathBuf>,
    scratch: Vec<u8>,
}

impl SegmentWriter {
    /// Opens the segments of `group` in `dir` (created if missing), of which the journal knows that they were synced
    /// through `synced`. What lies behind is discarded: appending goes on behind [`SegmentWriter::last`], which is
    /// `synced`, or beyond it if a rewrite had merged dead entries across it.
    ///
    /// Reads the last segment's headers, as far as its saved index does not cover them, and of all others only a few
    /// bytes.
    ///
    /// # Errors
    /// [`SegmentError::Damaged`] if anything at or before `synced` is missing: nothing was changed then that matters.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        group: GroupId,
        options: SegmentOptions,
        synced: Option<LogId>,
    ) -> Result<(SegmentWriter, SegmentReader), SegmentError> {
        let segments = open::open(disk.as_ref(), dir, group, &options, synced)?;
        let active = segments.last().cloned();
        let summary = active.as_ref().map(|segment| segment.summary());
        let shared = Arc::new(Shared::new(disk, dir.to_owned(), group, options, segments));
        let writer = SegmentWriter {
            last: summary.and_then(|summary| summary.last).or(synced),
            next_offset: summary.map_or(0, |summary| summary.next_offset),
            index_saved_bytes: summary.map_or(0, |summary| summary.bytes),
            shared: Arc::clone(&shared),
            active,
            mark: None,
            dir_needs_sync: true,
            file_needs_sync: false,
            failed: false,
            leftovers: Vec::new(),
            scratch: Vec::new(),
        };
        Ok((writer, SegmentReader { shared }))
    }

    /// The last entry that is in the segments or was removed from them; flushing goes on behind it.
    #[must_use]
    pub fn last(&self) -> Option<LogId> {
        self.last
    }

    /// Writes applied entries, which must follow [`SegmentWriter::last`] without a gap. Readers see them at once;
    /// durable after [`SegmentWriter::sync`]. Large payloads are not copied.
    ///
    /// # Errors
    /// [`SegmentError::Rejected`], before anything is written, if a frame does not follow or breaks a limit.
    pub fn append(&mut self, frames: &[Frame]) -> Result<(), SegmentError> {
        let group = self.shared.group;
        let stored = frames.iter().map(|frame| {
            let index = frame.entry.log_id.index;
            StoredFrame::of(frame).map_err(|reason| SegmentError::Rejected { group, index, reason })
        });
        self.write(&stored.collect::<Result<Vec<_>, _>>()?)
    }

    /// Like [`SegmentWriter::append`] for frames read elsewhere with [`SegmentReader::frames`], perhaps by a peer:
    /// each is verified. Gaps between them are filled: what is missing is recorded as removed.
    ///
    /// # Errors
    /// [`SegmentError::Rejected`], before anything is written, if a frame is not intact or goes back.
    pub fn append_stored(&mut self, frames: Vec<StoredFrame>) -> Result<(), SegmentError> {
        let mut next = self.last.map(|last| last.index + 1);
        let mut filled = Vec::with_capacity(frames.len());
        for frame in frames {
            let index = frame.header.log_id.index;
            frame.check().map_err(|reason| SegmentError::Rejected { group: self.shared.group, index, reason })?;
            if let Some(next) = next
                && next < index
            {
                let last = LogId { term: frame.header.log_id.term, index: index - 1 };
                filled.push(StoredFrame::nothing(next, last));
            }
            next = Some(frame.header.last_index + 1);
            filled.push(frame);
        }
        self.write(&filled)
    }

    /// Records that nothing of the entries through `last` is held here: they came as a snapshot's state.
    ///
    /// # Errors
    /// [`SegmentError::Rejected`] if `last` goes back.
    pub fn skip_through(&mut self, last: LogId) -> Result<(), SegmentError> {
        match self.last {
            Some(held) if held == last => Ok(()),
            Some(held) => self.write(&[StoredFrame::nothing(held.index + 1, last)]),
            None => {
                self.refuse_if_failed()?;
                let marked = self.set_mark(last.index + 1);
                self.or_fail(marked)?;
                self.last = Some(last);
                Ok(())
            }
        }
    }

    /// Makes everything written durable, and returns the last entry that now is.
    ///
    /// # Errors
    /// [`SegmentError::Io`]; if it is final, the writer refuses everything from then on.
    pub fn sync(&mut self) -> Result<Option<LogId>, SegmentError> {
        self.refuse_if_failed()?;
        let synced = self.sync_all();
        self.or_fail(synced)?;
        if let Some(active) = &self.active {
            let bytes = active.summary().bytes;
            if bytes >= self.index_saved_bytes + self.shared.options.index_save_bytes {
                save_index(self.shared.disk.as_ref(), active, false);
                self.index_saved_bytes = bytes;
            }
        }
        Ok(self.last)
    }

    /// Closes the open segment, if it holds anything, so that it can be unlinked, rewritten and verified.
    ///
    /// # Errors
    /// [`SegmentError::Io`] if it cannot be synced; if that is final, the writer refuses everything from then on.
    pub fn roll(&mut self) -> Result<(), SegmentError> {
        self.refuse_if_failed()?;
        if self.active.as_ref().is_none_or(|active| active.summary().last.is_none()) {
            return Ok(());
        }
        let synced = self.sync_all();
        self.or_fail(synced)?;
        if let Some(closed) = self.active.take() {
            save_index(self.shared.disk.as_ref(), &closed, true);
            closed.close();
        }
        Ok(())
    }

    /// Unlinks the closed segments at the start whose last entry is at or before raft index `index`, and what an earlier
    /// call left over; who is reading them goes on undisturbed. Returns the bytes freed.
    ///
    /// # Errors
    /// [`SegmentError::Io`]: asked again, it goes on, unless the error is final.
    pub fn unlink_through(&mut self, index: u64) -> Result<u64, SegmentError> {
        self.refuse_if_failed()?;
        self.remove_leftovers()?;
        let segments = self.shared.segments.load_full();
        let dead =
            |segment: &&Arc<Segment>| segment.is_closed() && segment.summary().last.is_some_and(|last| last.index <= index);
        let dead: Vec<_> = segments.iter().take_while(dead).cloned().collect();
        let Some(last) = dead.last().and_then(|segment| segment.summary().last) else { return Ok(0) };
        // The mark first: a file that is missing without it would be damage.
        let marked = self.set_mark(last.index + 1);
        self.or_fail(marked)?;
        self.shared.segments.store(Arc::new(segments.iter().skip(dead.len()).cloned().collect()));
        // Taken from the end: the oldest first, and of each the index first.
        self.leftovers.extend(dead.iter().rev().flat_map(|segment| [segment.path.clone(), segment.index_path()]));
        self.remove_leftovers()?;
        Ok(dead.iter().map(|segment| segment.summary().bytes).sum())
    }

    fn remove_leftovers(&mut self) -> Result<(), SegmentError> {
        while let Some(path) = self.leftovers.last() {
            let removed = self.remove(path);
            self.or_fail(removed)?;
            self.leftovers.pop();
        }
        Ok(())
    }

    /// Swaps a rewritten segment in for its original, durably. Returns the bytes freed: none if the original was
    /// unlinked or rewritten meanwhile, then the copy is removed.
    ///
    /// # Errors
    /// [`SegmentError::Io`]; if it is final, the writer refuses everything from then on.
    pub fn replace(&mut self, rewritten: Rewritten) -> Result<u64, SegmentError> {
        self.refuse_if_failed()?;
        let Rewritten { original, file, temporary, index } = rewritten;
        let segments = self.shared.segments.load_full();
        let Some(place) = segments.iter().position(|segment| Arc::ptr_eq(segment, &original)) else {
            let removed = self.remove(&temporary);
            return self.or_fail(removed).map(|()| 0);
        };
        let freed = original.summary().bytes.saturating_sub(index.summary.bytes);
        let swapped = self.swap_file(&original, &temporary);
        self.or_fail(swapped)?;
        let segment = Segment::new(self.shared.group, original.path.clone(), file, index);
        save_index(self.shared.disk.as_ref(), &segment, true);
        segment.close();
        let mut segments = segments.as_ref().clone();
        if let Some(old) = segments.get_mut(place) {
            *old = Arc::new(segment);
        }
        self.shared.segments.store(Arc::new(segments));
        Ok(freed)
    }

    /// Syncs, and saves the index of the open segment, so that the next open has nothing to scan.
    ///
    /// # Errors
    /// [`SegmentError::Io`] if the sync fails.
    pub fn close(mut self) -> Result<Option<LogId>, SegmentError> {
        let last = self.sync()?;
        if let Some(active) = &self.active {
            save_index(self.shared.disk.as_ref(), active, false);
        }
        Ok(last)
    }

    fn write(&mut self, frames: &[StoredFrame]) -> Result<(), SegmentError> {
        self.refuse_if_failed()?;
        self.check_order(frames)?;
        let written = self.write_all(frames);
        self.or_fail(written)
    }

    fn check_order(&self, frames: &[StoredFrame]) -> Result<(), SegmentError> {
        let (mut last, mut next_offset) = (self.last, self.next_offset);
        for frame in frames {
            let log_id = frame.header.log_id;
            let kept = || frame.header.items.iter().filter_map(ItemHeader::kept);
            let reason = if last.is_some_and(|last| last.index + 1 != log_id.index) {
                "it does not follow the last one written"
            } else if last.is_some_and(|last| last.term > log_id.term) {
                "its term is lower than that of the one before"
            } else if kept().any(|kept| kept.base_offset < next_offset) {
                "its offsets go back"
            } else {
                last = Some(frame.header.last_log_id());
                next_offset = kept().next_back().and_then(|kept| end_offset(&kept)).unwrap_or(next_offset);
                continue;
            };
            return Err(SegmentError::Rejected { group: self.shared.group, index: log_id.index, reason });
        }
        Ok(())
    }

    fn write_all(&mut self, mut frames: &[StoredFrame]) -> Result<(), SegmentError> {
        let options = self.shared.options;
        while let Some(first) = frames.first() {
            let active = match self.active.clone() {
                Some(active) if active.summary().bytes < options.segment_bytes_max => active,
                _ => {
                    self.roll()?;
                    self.create(first.header.log_id.index)?
                }
            };
            let start = active.summary().bytes;
            let room = options.segment_bytes_max.saturating_sub(start).min(options.write_bytes_max);
            let mut bytes = 0;
            let fits = frames.iter().take_while(|frame| {
                bytes += frame.header.bytes();
                bytes <= room
            });
            let (chunk, rest) = frames.split_at(fits.count().max(1));
            write_frames(active.file.as_ref(), start, chunk, &mut self.scratch).map_err(io_error("writing", &active.path))?;
            self.file_needs_sync = true;
            let mut index = active.index_mut();
            for frame in chunk {
                index.observe(&frame.header, options.index_interval_bytes);
            }
            self.last = index.summary.last;
            self.next_offset = index.summary.next_offset;
            frames = rest;
        }
        Ok(())
    }

    fn create(&mut self, first_index: u64) -> Result<Arc<Segment>, SegmentError> {
        let segments = self.shared.segments.load_full();
        if segments.is_empty() && self.mark != Some(first_index) {
            self.set_mark(first_index)?;
        }
        let path = segment_path(&self.shared.dir, first_index);
        let create = || {
            let file = self.shared.disk.open(&path, true)?;
            file.set_len(0)?;
            file.write_all_at(&[IoSlice::new(&file_header(self.shared.group, first_index))], 0)?;
            Ok(file)
        };
        let file = create().map_err(io_error("creating", &path))?;
        let index = Index::new(first_index, self.next_offset, FILE_HEADER_BYTES);
        let segment = Arc::new(Segment::new(self.shared.group, path, file, index));
        let mut segments = segments.as_ref().clone();
        segments.push(Arc::clone(&segment));
        self.shared.segments.store(Arc::new(segments));
        self.active = Some(Arc::clone(&segment));
        self.dir_needs_sync = true;
        self.file_needs_sync = true;
        self.index_saved_bytes = 0;
        Ok(segment)
    }

    fn sync_all(&mut self) -> Result<(), SegmentError> {
        if let Some(active) = self.active.as_ref().filter(|_| self.file_needs_sync) {
            active.file.sync().map_err(io_error("syncing", &active.path))?;
            self.file_needs_sync = false;
        }
        if self.dir_needs_sync {
            let dir = &self.shared.dir;
            self.shared.disk.sync_dir(dir).map_err(io_error("syncing", dir))?;
            self.dir_needs_sync = false;
        }
        Ok(())
    }

    fn swap_file(&self, original: &Segment, temporary: &Path) -> Result<(), SegmentError> {
        let (disk, dir) = (self.shared.disk.as_ref(), &self.shared.dir);
        // The saved index is replaced afterwards: that of the original fits neither the length of a shorter copy nor,
        // if nothing was left out, does it say anything wrong.
        disk.rename(temporary, &original.path).map_err(io_error("renaming", temporary))?;
        disk.sync_dir(dir).map_err(io_error("syncing", dir))
    }

    fn set_mark(&mut self, first_index: u64) -> Result<(), SegmentError> {
        write_mark(self.shared.disk.as_ref(), &self.shared.dir, first_index)?;
        self.mark = Some(first_index);
        Ok(())
    }

    fn remove(&self, path: &Path) -> Result<(), SegmentError> {
        open::remove(self.shared.disk.as_ref(), path)
    }

    fn refuse_if_failed(&self) -> Result<(), SegmentError> {
        if self.failed { Err(SegmentError::Failed { group: self.shared.group }) } else { Ok(()) }
    }

    fn or_fail<T>(&mut self, result: Result<T, SegmentError>) -> Result<T, SegmentError> {
        self.failed |= result.as_ref().is_err_and(|error| !Class::of(error).waits());
        result
    }
}
