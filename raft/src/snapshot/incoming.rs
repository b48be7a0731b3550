//! The receiver's side: rows and frames collected under an incarnation of their own, invisible until the journal
//! names it. All calls block on the disk.

use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::view::is_live;
use super::{Chunk, Cursor, SnapshotHead};
use crate::driver::Driver;
use crate::log::group_log::{GroupLog, NewLife};
use crate::log::lives::Lives;
use crate::segments::{SegmentError, SegmentReader, SegmentWriter, StoredFrame};
use crate::state::WriteBatch;
use crate::state::keys::GroupKeys;
use crate::types::{GroupId, Incarnation};

/// Payload bytes that are copied at once from the data that is here already.
const COPY_BYTES: usize = 1 << 20;

/// A snapshot that is being received.
pub struct IncomingSnapshot {
    head: SnapshotHead,
    lives: Arc<Lives>,
    incarnation: Incarnation,
    keys: GroupKeys,
    writer: SegmentWriter,
    reader: SegmentReader,
    cursor: Cursor,
    /// The first raft index whose frame did not lie here already.
    wanted_from: u64,
}

/// A snapshot that is here completely and durably, and not valid yet.
pub struct ReceivedSnapshot {
    head: SnapshotHead,
    incarnation: Incarnation,
    segments: (SegmentWriter, SegmentReader),
}

impl IncomingSnapshot {
    /// Prepares to receive what `head` announces, and takes over the frames that `log` has already.
    ///
    /// # Errors
    /// If it is another group's, or the disk refuses.
    pub(crate) fn begin(log: &GroupLog, head: SnapshotHead) -> io::Result<Self> {
        let group = log.group();
        if head.group != group {
            let reason = format!("group {group} was offered a snapshot of group {}", head.group);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        let lives = log.lives().clone();
        let incarnation = lives.next();
        let (writer, reader) = lives.open_segments(group, incarnation, None).map_err(io::Error::other)?;
        let keys = GroupKeys::new(group, incarnation);
        let mut incoming = Self { head, lives, incarnation, keys, writer, reader, cursor: Cursor::start(), wanted_from: 0 };
        incoming.copy_from(&log.reader().pin())?;
        Ok(incoming)
    }

    /// Does what blocks.
    pub(crate) fn driver(&self) -> Driver {
        self.lives.driver().clone()
    }

    /// What is being received.
    #[must_use]
    pub fn head(&self) -> &SnapshotHead {
        &self.head
    }

    /// The place from which on it is still missing: where a sender goes on after a broken stream.
    #[must_use]
    pub fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// Takes a chunk. What is here already is skipped, so a chunk may come twice.
    ///
    /// # Errors
    /// `InvalidData` if the chunk is malformed, of another snapshot, or leaves a hole: nothing of it is taken then. Any
    /// other: the disk or the state failed.
    pub fn accept(&mut self, bytes: Bytes) -> io::Result<()> {
        let chunk = Chunk::decode(bytes)?;
        if chunk.last != self.head.last {
            return Err(self.invalid(&format!("a chunk belongs to the snapshot at {}", chunk.last)));
        }
        if chunk.next <= self.cursor {
            return Ok(());
        }
        if chunk.from > self.cursor {
            return Err(self.invalid("a chunk is missing"));
        }
        let wanted_from = self.wanted_from;
        let frames: Vec<StoredFrame> =
            chunk.frames.into_iter().filter(|frame| frame.header.log_id.index >= wanted_from).collect();
        if frames.iter().any(|frame| frame.header.last_index > self.head.last.index) {
            return Err(self.invalid("a chunk holds entries behind its end"));
        }
        self.write_rows(chunk.rows)?;
        self.write_frames(frames)?;
        self.cursor = match chunk.next {
            Cursor::Frames { from_index } => {
                self.wanted_from = self.wanted_from.max(from_index);
                Cursor::Frames { from_index: self.wanted_from }
            }
            next => next,
        };
        Ok(())
    }

    /// Makes what was received durable.
    ///
    /// # Errors
    /// If it is not complete, or cannot be made durable.
    pub fn finish(mut self) -> io::Result<ReceivedSnapshot> {
        if self.cursor != Cursor::End {
            return Err(self.invalid("it is not complete"));
        }
        self.writer.skip_through(self.head.last).map_err(io::Error::other)?;
        self.writer.sync().map_err(io::Error::other)?;
        let mut batch = WriteBatch::default();
        batch.put(self.keys.membership(), self.head.membership.to_vec());
        batch.put(self.keys.applied(), GroupKeys::encode_log_id(self.head.last));
        self.lives.state().write(batch).map_err(io::Error::other)?;
        self.lives.state().flush().map_err(io::Error::other)?;
        Ok(ReceivedSnapshot { head: self.head, incarnation: self.incarnation, segments: (self.writer, self.reader) })
    }

    /// Deletes what was received.
    ///
    /// # Errors
    /// If the disk refuses; the next start deletes it then.
    pub fn discard(self) -> io::Result<()> {
        let Self { head, lives, incarnation, writer, .. } = self;
        drop(writer);
        lives.delete(head.group, incarnation)
    }

    /// Entries that are applied are the same everywhere: the live ones that lie here need not be sent.
    fn copy_from(&mut self, held: &SegmentReader) -> io::Result<()> {
        let Some(mut from) = held.first_index() else { return Ok(()) };
        let end = held.last().map_or(0, |last| last.index.min(self.head.last.index) + 1);
        while from < end {
            let frames = match held.frames(from, end, COPY_BYTES) {
                Ok(frames) => frames,
                Err(SegmentError::Damaged(damage)) => {
                    tracing::error!(group = %self.head.group, %damage, "damaged data is not taken over, but copied from the peer");
                    return Ok(());
                }
                Err(error) => return Err(io::Error::other(error)),
            };
            let Some(next) = frames.last().map(|frame| frame.header.last_index + 1) else { return Ok(()) };
            self.write_frames(frames.into_iter().filter(|frame| is_live(frame, self.head.live_from)).collect())?;
            (from, self.wanted_from) = (next, next);
        }
        Ok(())
    }

    fn write_rows(&mut self, rows: Vec<(Vec<u8>, Vec<u8>)>) -> io::Result<()> {
        let mut batch = WriteBatch::default();
        for (key, value) in rows {
            let Some((table, key)) = key.split_first() else { continue };
            batch.put(self.keys.row(*table, key), value);
        }
        if batch.is_empty() { Ok(()) } else { self.lives.state().write(batch).map_err(io::Error::other) }
    }

    fn write_frames(&mut self, frames: Vec<StoredFrame>) -> io::Result<()> {
        if frames.is_empty() {
            return Ok(());
        }
        self.writer.append_stored(frames).map_err(|error| match error {
            SegmentError::Rejected { .. } => io::Error::new(io::ErrorKind::InvalidData, error),
            other => io::Error::other(other),
        })
    }

    fn invalid(&self, reason: &str) -> io::Error {
        let SnapshotHead { group, last, .. } = &self.head;
        io::Error::new(io::ErrorKind::InvalidData, format!("group {group}: the snapshot at {last}: {reason}"))
    }
}

impl ReceivedSnapshot {
    pub(crate) fn head(&self) -> &SnapshotHead {
        &self.head
    }

    /// Whose group it is, and the incarnation under which it lies.
    pub(crate) fn place(&self) -> (GroupId, Incarnation) {
        (self.head.group, self.incarnation)
    }

    pub(crate) fn into_life(self) -> NewLife {
        let SnapshotHead { last, membership, .. } = self.head;
        NewLife { incarnation: self.incarnation, segments: self.segments, snapshot: last, membership }
    }
}

impl fmt::Debug for IncomingSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { head, cursor, .. } = self;
        write!(f, "incoming snapshot of group {} at {}, {cursor:?}", head.group, head.last)
    }
}

impl fmt::Debug for ReceivedSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "received snapshot of group {} at {}", self.head.group, self.head.last)
    }
}
