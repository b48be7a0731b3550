//! The receiver's side: rows and frames collected under an incarnation of their own, invisible until the journal
//! names it. All calls block on the disk.

use std::fmt;
use std::io;

use bytes::Bytes;

use super::view::is_live;
use super::{Chunk, Cursor, SnapshotHead};
use crate::driver::Driver;
use crate::log::group_log::GroupLog;
use crate::log::life_writer::{LifeWriter, NewLife};
use crate::planted::{Bug, is_planted};
use crate::segments::{SegmentError, SegmentReader};
use crate::types::{GroupId, Incarnation};

/// The table of producers among a partition's rows.
const PRODUCERS: u8 = 2;
/// Payload bytes that are copied at once from the data that is here already.
const COPY_BYTES: usize = 1 << 20;

/// A snapshot that is being received.
pub struct IncomingSnapshot {
    head: SnapshotHead,
    life: LifeWriter,
    cursor: Cursor,
    /// The first raft index whose frame did not lie here already.
    wanted_from: u64,
}

/// A snapshot that is here completely and durably, and not valid yet.
pub struct ReceivedSnapshot {
    head: SnapshotHead,
    life: NewLife,
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
        let life = LifeWriter::begin(log.lives().clone(), group)?;
        let mut incoming = Self { head, life, cursor: Cursor::start(), wanted_from: 0 };
        incoming.copy_from(&log.reader().pin())?;
        Ok(incoming)
    }

    /// Does what blocks.
    pub(crate) fn driver(&self) -> Driver {
        self.life.lives().driver().clone()
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
        let frames = chunk.frames.into_iter().filter(|frame| frame.header.log_id.index >= wanted_from).collect::<Vec<_>>();
        if frames.iter().any(|frame| frame.header.last_index > self.head.last.index) {
            return Err(self.invalid("a chunk holds entries behind its end"));
        }
        // The first byte of a key is its table.
        let row = |(key, value): (Vec<u8>, Vec<u8>)| key.split_first().map(|(table, key)| (*table, key.to_vec(), value));
        // Of a partition's machine, the first table holds the producers.
        let stays = |(table, ..): &(u8, Vec<u8>, Vec<u8>)| !(is_planted(Bug::ProducersNotInSnapshot) && *table == PRODUCERS);
        self.life.write_rows(chunk.rows.into_iter().filter_map(row).filter(stays))?;
        let skipped = usize::from(is_planted(Bug::SnapshotSkipsFrame) && frames.len() > 1);
        self.life.write_frames(frames.into_iter().skip(skipped).collect())?;
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
    pub fn finish(self) -> io::Result<ReceivedSnapshot> {
        if self.cursor != Cursor::End {
            return Err(self.invalid("it is not complete"));
        }
        let life = self.life.finish(self.head.last, self.head.membership.clone(), self.head.chain)?;
        Ok(ReceivedSnapshot { head: self.head, life })
    }

    /// Deletes what was received.
    pub fn discard(self) {
        self.life.discard();
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
            self.life.write_frames(frames.into_iter().filter(|frame| is_live(frame, self.head.live_from)).collect())?;
            (from, self.wanted_from) = (next, next);
        }
        Ok(())
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
        (self.head.group, self.life.incarnation)
    }

    pub(crate) fn into_life(self) -> NewLife {
        self.life
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
