//! A new life of a group's data that is being made: rows and segments that nobody sees until the journal names their
//! incarnation. All calls block on the disk.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::lives::Lives;
use crate::segments::{SegmentError, SegmentReader, SegmentWriter, StoredFrame};
use crate::state::WriteBatch;
use crate::state::keys::GroupKeys;
use crate::tripwire::ChainEnd;
use crate::tripwire::chain::Chain;
use crate::types::{GroupId, Incarnation, LogId};

/// See the module.
pub(crate) struct LifeWriter {
    group: GroupId,
    lives: Arc<Lives>,
    incarnation: Incarnation,
    keys: GroupKeys,
    writer: SegmentWriter,
    reader: SegmentReader,
}

/// A new life of a group's data, complete and durable: rows under its incarnation, segments through `snapshot`.
pub(crate) struct NewLife {
    pub(crate) incarnation: Incarnation,
    pub(crate) segments: (SegmentWriter, SegmentReader),
    pub(crate) snapshot: LogId,
    /// As the journal keeps it; see [`super::convert::encode_stored_membership`].
    pub(crate) membership: Bytes,
}

impl LifeWriter {
    /// Begins an empty one beside the one that is valid.
    ///
    /// # Errors
    /// If the disk refuses.
    pub(crate) fn begin(lives: Arc<Lives>, group: GroupId) -> io::Result<Self> {
        let incarnation = lives.next();
        let segments = lives.open_segments(group, incarnation, None).map_err(io::Error::other)?;
        Ok(Self::new(lives, group, incarnation, segments))
    }

    /// Begins an empty one where none is valid: nobody takes it for one before [`Lives::finish`].
    ///
    /// # Errors
    /// If the disk refuses.
    pub(crate) fn begin_unfinished(lives: Arc<Lives>, group: GroupId) -> io::Result<Self> {
        let incarnation = lives.next();
        let segments = lives.open_unfinished(group, incarnation).map_err(io::Error::other)?;
        Ok(Self::new(lives, group, incarnation, segments))
    }

    fn new(
        lives: Arc<Lives>,
        group: GroupId,
        incarnation: Incarnation,
        (writer, reader): (SegmentWriter, SegmentReader),
    ) -> Self {
        Self { group, lives, incarnation, keys: GroupKeys::new(group, incarnation), writer, reader }
    }

    /// Under which it lies.
    pub(crate) fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Where it lies.
    pub(crate) fn lives(&self) -> &Arc<Lives> {
        &self.lives
    }

    /// Adds rows of the machine: table, key, value.
    ///
    /// # Errors
    /// If the state refuses.
    pub(crate) fn write_rows(&mut self, rows: impl IntoIterator<Item = (u8, Vec<u8>, Vec<u8>)>) -> io::Result<()> {
        let mut batch = WriteBatch::default();
        for (table, key, value) in rows {
            batch.put(self.keys.row(table, &key), value);
        }
        if batch.is_empty() { Ok(()) } else { self.lives.state().write(batch).map_err(io::Error::other) }
    }

    /// Adds frames, in order of raft index. What is missing between them counts as removed.
    ///
    /// # Errors
    /// `InvalidData` if a frame is not intact or out of order; any other: the disk refuses.
    pub(crate) fn write_frames(&mut self, frames: Vec<StoredFrame>) -> io::Result<()> {
        if frames.is_empty() {
            return Ok(());
        }
        self.writer.append_stored(frames).map_err(|error| match error {
            SegmentError::Rejected { .. } => io::Error::new(io::ErrorKind::InvalidData, error),
            other => io::Error::other(other),
        })
    }

    /// Makes it complete through `last`, and durable. `chain` is the hash chain through there, where it is known.
    ///
    /// # Errors
    /// If disk or state refuse.
    pub(crate) fn finish(mut self, last: LogId, membership: Bytes, chain: Option<ChainEnd>) -> io::Result<NewLife> {
        self.writer.skip_through(last).map_err(io::Error::other)?;
        self.writer.sync().map_err(io::Error::other)?;
        let mut batch = WriteBatch::default();
        batch.put(self.keys.membership(), membership.to_vec());
        let chain = chain.unwrap_or_else(|| Chain::resume(Some(last), None, 0).end());
        batch.put(self.keys.applied(), GroupKeys::encode_applied(last, chain));
        self.lives.state().write(batch).map_err(io::Error::other)?;
        self.lives.state().flush().map_err(io::Error::other)?;
        let segments = (self.writer, self.reader);
        Ok(NewLife { incarnation: self.incarnation, segments, snapshot: last, membership })
    }

    /// Deletes it.
    pub(crate) fn discard(self) {
        let Self { group, lives, incarnation, writer, .. } = self;
        drop(writer);
        lives.delete(group, incarnation);
    }
}
