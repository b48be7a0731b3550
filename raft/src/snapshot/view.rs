//! The sender's side: a snapshot pinned, and read piece by piece.

use std::fmt;
use std::io;
use std::sync::Arc;

use openraft::storage::SnapshotMeta;
use openraft::type_config::alias::SnapshotOf;

use super::{Chunk, Cursor, SnapshotData, SnapshotHead};
use crate::driver::Driver;
use crate::log::convert::{encode_stored_membership, log_id_to_raft};
use crate::log::group_log::GroupLog;
use crate::log::type_config::{RaftMembership, TypeConfig};
use crate::segments::{Frame, ItemHeader, SegmentReader, StoredFrame};
use crate::state::keys::GroupKeys;
use crate::state::{State, StateView};
use crate::tripwire::ChainEnd;
use crate::types::{GroupId, LogId};

/// Rows read from the state at once.
const ROWS_AT_ONCE: usize = 1_000;
/// The first table of a machine; those before it are this crate's.
const FIRST_TABLE: u8 = GroupKeys::META_TABLE + 1;

/// The state as of one applied entry, and the frames that live then. Holding it keeps both readable, whatever is
/// applied, unlinked or switched meanwhile; building it copies nothing. Cheap to clone.
#[derive(Clone)]
pub(crate) struct SnapshotView {
    group: GroupId,
    applied: Option<LogId>,
    membership: RaftMembership,
    live_from: u64,
    chain: ChainEnd,
    keys: GroupKeys,
    rows: Arc<dyn StateView>,
    segments: SegmentReader,
    /// What was applied and not yet in segments: no more than the flusher lets pile up. Payloads are shared.
    recent: Arc<[Frame]>,
    driver: Driver,
}

impl SnapshotView {
    /// Pins what is applied now. Only while nothing is being applied: so that rows and frames are of the same moment.
    pub(crate) fn pin(
        state: &dyn State,
        log: &GroupLog,
        applied: Option<LogId>,
        membership: &RaftMembership,
        live_from: u64,
    ) -> Self {
        let (segments, recent) = log.pin();
        Self {
            group: log.group(),
            applied,
            membership: membership.clone(),
            live_from,
            chain: log.chain().end(),
            keys: GroupKeys::new(log.group(), log.incarnation()),
            rows: state.snapshot().into(),
            segments,
            recent: recent.into(),
            driver: log.lives().driver().clone(),
        }
    }

    /// The same for openraft.
    pub(crate) fn into_raft(self) -> SnapshotOf<TypeConfig, SnapshotData> {
        let meta = SnapshotMeta { last_log_id: self.applied.map(log_id_to_raft), last_membership: self.membership.clone() };
        SnapshotOf::<TypeConfig, SnapshotData> { meta, snapshot: SnapshotData::View(self) }
    }

    /// Does the reading.
    pub(crate) fn driver(&self) -> &Driver {
        &self.driver
    }

    /// Whether it is the very same, not only of the same entry.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.rows, &other.rows)
    }

    /// The last entry that is applied in it.
    pub(crate) fn last(&self) -> Option<LogId> {
        self.applied
    }

    /// What it is; `None` if nothing was applied yet.
    pub(crate) fn head(&self) -> Option<SnapshotHead> {
        let membership = encode_stored_membership(&self.membership);
        let Self { group, applied, live_from, chain, .. } = *self;
        Some(SnapshotHead { group, last: applied?, membership, live_from, chain: Some(chain) })
    }

    /// The piece that starts at `from`, of about `bytes_max` bytes: at least a row or a frame if there is one. Blocks.
    ///
    /// # Errors
    /// If state or segments cannot be read, or `from` is the end.
    pub(crate) fn chunk(&self, from: &Cursor, bytes_max: usize) -> io::Result<Chunk> {
        let last = self.applied.ok_or_else(|| io::Error::other("the snapshot is empty"))?;
        let mut chunk = Chunk { last, from: from.clone(), next: Cursor::End, rows: Vec::new(), frames: Vec::new() };
        chunk.next = match from {
            Cursor::Rows { after } => self.read_rows(after, bytes_max, &mut chunk.rows)?,
            Cursor::Frames { from_index } => self.read_frames(*from_index, last, bytes_max, &mut chunk.frames)?,
            Cursor::End => return Err(io::Error::other("the snapshot has ended")),
        };
        Ok(chunk)
    }

    fn read_rows(&self, after: &[u8], bytes_max: usize, into: &mut Vec<(Vec<u8>, Vec<u8>)>) -> io::Result<Cursor> {
        let prefix = self.keys.prefix();
        let mut from = prefix.clone();
        match after {
            [] => from.push(FIRST_TABLE),
            after => from.extend(after.iter().chain(&[0])),
        }
        let rows = self.rows.scan(&prefix, &from, ROWS_AT_ONCE).map_err(io::Error::other)?;
        let mut ended = rows.len() < ROWS_AT_ONCE;
        let mut bytes = 0;
        for (key, value) in rows {
            bytes += key.len() + value.len();
            if bytes > bytes_max && !into.is_empty() {
                ended = false;
                break;
            }
            let key = key.strip_prefix(prefix.as_slice()).unwrap_or_default().to_vec();
            into.push((key, value));
        }
        Ok(match into.last() {
            Some((key, _)) if !ended => Cursor::Rows { after: key.clone() },
            _ => Cursor::Frames { from_index: 0 },
        })
    }

    fn read_frames(&self, from: u64, last: LogId, bytes_max: usize, into: &mut Vec<StoredFrame>) -> io::Result<Cursor> {
        // The open segment may have taken entries since: what is recent here is not read from there.
        let recent_from = self.recent.first().map_or(last.index + 1, |frame| frame.entry.log_id.index);
        let in_segments = from.max(self.segments.first_index().unwrap_or(recent_from));
        if in_segments < recent_from {
            let frames = self.segments.frames(in_segments, recent_from, bytes_max).map_err(io::Error::other)?;
            let Some(next) = frames.last().map(|frame| frame.header.last_index + 1) else {
                let group = self.group;
                return Err(io::Error::other(format!("group {group}: the segments lack entry {in_segments} of a snapshot")));
            };
            into.extend(frames.into_iter().filter(|frame| is_live(frame, self.live_from)));
            return Ok(Cursor::Frames { from_index: next });
        }
        let mut bytes = 0;
        for frame in self.recent.iter().skip_while(|frame| frame.entry.log_id.index < from) {
            bytes += frame.entry.payload_bytes();
            if bytes > bytes_max && !into.is_empty() {
                return Ok(Cursor::Frames { from_index: frame.entry.log_id.index });
            }
            let stored = StoredFrame::of(frame).map_err(io::Error::other)?;
            into.extend(Some(stored).filter(|frame| is_live(frame, self.live_from)));
        }
        Ok(Cursor::End)
    }
}

/// Whether a frame keeps an item that reaches to `live_from` or beyond.
pub(super) fn is_live(frame: &StoredFrame, live_from: u64) -> bool {
    let kept = frame.header.items.iter().filter_map(ItemHeader::kept);
    kept.into_iter().any(|kept| kept.base_offset.saturating_add(u64::from(kept.offset_count)) > live_from)
}

impl fmt::Debug for SnapshotView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "snapshot of group {} at {:?}", self.group, self.applied)
    }
}
