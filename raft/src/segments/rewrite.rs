//! Rewriting a half-dead segment: what the machine no longer wants goes, indexes and offsets of the rest stay.
//!
//! The copy is made beside the original by whoever has time; only [`SegmentWriter::replace`] swaps it in. A dead
//! frame leaves a run ([`BodyKind::Remains`] without items) that stands for it and its dead neighbours, so that a
//! hole in the raft indexes is always damage. Payloads keep the checksums that they were written with.
//!
//! [`SegmentWriter::replace`]: super::SegmentWriter::replace

use std::path::PathBuf;
use std::sync::Arc;

use super::SegmentReader;
use super::error::{SegmentError, io_error};
use super::frame::{BodyKind, FrameHeader, StoredFrame};
use super::index::{Index, Point};
use super::reader::Shared;
use super::segment::{Cursor, FILE_HEADER_BYTES, Fetch, Segment, file_header};
use super::write::write_frames;
use crate::disk::DiskFile;
use crate::types::LogId;

/// What the rewrite reads and writes at once, in bytes.
const COPY_BYTES: usize = 1024 * 1024;

/// A synced copy of a segment without what is dead, ready to replace it. Dropped unused, it leaves a `.tmp` file that
/// the next open removes.
#[derive(Debug)]
pub struct Rewritten {
    pub(super) original: Arc<Segment>,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) temporary: PathBuf,
    pub(super) index: Index,
}

impl Rewritten {
    /// Length of the copy in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.index.summary.bytes
    }
}

impl SegmentReader {
    /// Copies the closed segment `first_index`, leaving out every item for which `live(header, item number)` is
    /// false. Frames behind raft index `purged` are copied whole: Raft may still need them. Blocks for as long as it
    /// takes to read and write the segment.
    ///
    /// # Errors
    /// [`SegmentError::Damaged`] if the original is (nothing is laundered), [`SegmentError::NoSuchSegment`] if it is
    /// not closed or was removed.
    pub fn rewrite(
        &self,
        first_index: u64,
        purged: u64,
        mut live: impl FnMut(&FrameHeader, usize) -> bool,
    ) -> Result<Rewritten, SegmentError> {
        let original = self.closed_segment(first_index)?;
        let mut copy = Copy::create(&self.shared, &original)?;
        let start = Point { position: FILE_HEADER_BYTES, index: first_index, next_offset: 0, max_timestamp_ms: 0 };
        let mut cursor = Cursor::new(&original, start, original.summary().bytes, COPY_BYTES);
        while let Some(header) = cursor.header(Fetch::Read)? {
            let Some(frame) = cursor.take(header, Fetch::Read)? else { break };
            let frame = if frame.header.last_index <= purged { remains(frame, &mut live) } else { frame };
            copy.push(frame)?;
        }
        copy.finish(original)
    }
}

/// What is left of `frame` when everything dead is taken out of it.
fn remains(frame: StoredFrame, live: &mut dyn FnMut(&FrameHeader, usize) -> bool) -> StoredFrame {
    let StoredFrame { mut header, payloads } = frame;
    let lives: Vec<bool> = match header.body {
        BodyKind::Blank | BodyKind::Membership => vec![false; header.items.len()],
        BodyKind::Items | BodyKind::Remains => (0..header.items.len()).map(|item| live(&header, item)).collect(),
    };
    if !lives.is_empty() && lives.iter().all(|live| *live) {
        return StoredFrame { header, payloads };
    }
    let (items, payloads) = std::mem::take(&mut header.items)
        .into_iter()
        .zip(payloads)
        .zip(lives)
        .filter_map(|(pair, live)| live.then_some(pair))
        .unzip();
    StoredFrame { header: FrameHeader { body: BodyKind::Remains, items, ..header }, payloads }
}

/// The copy while it is being written.
struct Copy<'a> {
    shared: &'a Shared,
    file: Arc<dyn DiskFile>,
    temporary: PathBuf,
    index: Index,
    /// Entries of which nothing is left, not written yet: the first index and the last entry.
    run: Option<(u64, LogId)>,
    waiting: Vec<StoredFrame>,
    waiting_bytes: u64,
    scratch: Vec<u8>,
}

impl<'a> Copy<'a> {
    fn create(shared: &'a Shared, original: &Segment) -> Result<Copy<'a>, SegmentError> {
        let temporary = original.path.with_extension("segment.tmp");
        let create = || {
            let file = shared.disk.open(&temporary, true)?;
            file.set_len(0)?;
            let header = file_header(original.group, original.first_index);
            file.write_all_at(&[std::io::IoSlice::new(&header)], 0)?;
            Ok(file)
        };
        let file = create().map_err(io_error("creating", &temporary))?;
        let index = Index::new(original.first_index, 0, FILE_HEADER_BYTES);
        let (waiting, scratch) = (Vec::new(), Vec::new());
        Ok(Copy { shared, file, temporary, index, run: None, waiting, waiting_bytes: 0, scratch })
    }

    fn push(&mut self, frame: StoredFrame) -> Result<(), SegmentError> {
        let header = &frame.header;
        if header.body == BodyKind::Remains && header.items.is_empty() {
            let from_index = self.run.map_or(header.log_id.index, |(from_index, _)| from_index);
            self.run = Some((from_index, header.last_log_id()));
            return Ok(());
        }
        self.end_run();
        self.waiting_bytes += header.bytes();
        self.waiting.push(frame);
        if self.waiting_bytes >= COPY_BYTES as u64 { self.write() } else { Ok(()) }
    }

    fn end_run(&mut self) {
        if let Some((from_index, last)) = self.run.take() {
            self.waiting.push(StoredFrame::nothing(from_index, last));
        }
    }

    fn write(&mut self) -> Result<(), SegmentError> {
        let position = self.index.summary.bytes;
        write_frames(self.file.as_ref(), position, &self.waiting, &mut self.scratch)
            .map_err(io_error("writing", &self.temporary))?;
        for frame in self.waiting.drain(..) {
            self.index.observe(&frame.header, self.shared.options.index_interval_bytes);
        }
        self.waiting_bytes = 0;
        Ok(())
    }

    fn finish(mut self, original: Arc<Segment>) -> Result<Rewritten, SegmentError> {
        self.end_run();
        self.write()?;
        self.file.sync().map_err(io_error("syncing", &self.temporary))?;
        let Copy { file, temporary, mut index, .. } = self;
        index.summary.next_offset = original.summary().next_offset;
        Ok(Rewritten { original, file, temporary, index })
    }
}
