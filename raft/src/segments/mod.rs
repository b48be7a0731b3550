//! Segments: where a group's applied entries live for as long as the machine wants them.
//!
//! One directory per (group, incarnation) holds append-only files `<first raft index>.segment`, each with a sparse
//! index beside it, and `log-start`, which says where the first of them starts. The flusher owns the one
//! [`SegmentWriter`] and copies *applied* entries into it; so Raft never truncates a segment, and a frame carries what
//! apply decided. Any number of [`SegmentReader`]s read meanwhile, also what is not synced yet.
//!
//! What is synced through is the journal's to remember: it is handed to [`SegmentWriter::open`], which discards
//! everything behind it (it will be flushed again) and reports everything missing before it as [`Damage`].
//!
//! - `frame.rs` the format of a frame · `index.rs` of the sparse index · `mark.rs` of `log-start`
//! - `segment.rs` one file and the cursor that reads it · `open.rs` recovery · `writer.rs` · `reader.rs` · `rewrite.rs` · `salvage.rs`
//!   what is left of damaged ones

mod error;
mod frame;
mod index;
mod mark;
mod open;
mod reader;
mod rewrite;
mod salvage;
mod segment;
mod write;
mod writer;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use bytes::Bytes;

pub use error::{Damage, SegmentError};
pub use frame::{BodyKind, FRAME_ITEMS_MAX, FRAME_PAYLOAD_BYTES_MAX, Frame, FrameHeader, ItemHeader, StoredFrame};
pub use reader::SegmentReader;
pub use rewrite::Rewritten;
pub(crate) use salvage::{FoundFrame, salvage};
pub use writer::SegmentWriter;

use crate::types::{GroupId, Incarnation, Kept, LogId};

/// How segments are cut and indexed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentOptions {
    /// A segment is closed when it is at least this long, in bytes. One open file per segment: larger segments mean
    /// fewer of them, smaller ones a finer retention.
    pub segment_bytes_max: u64,
    /// Distance of the points in the sparse index, in bytes of segment.
    pub index_interval_bytes: u64,
    /// What one write takes at most, in bytes (more only if a single frame is larger).
    pub write_bytes_max: u64,
    /// The index of the open segment is saved when this many bytes were synced since: a restart after a crash scans
    /// at most about this much of it.
    pub index_save_bytes: u64,
}

impl Default for SegmentOptions {
    fn default() -> Self {
        SegmentOptions {
            segment_bytes_max: 128 * 1024 * 1024,
            index_interval_bytes: 32 * 1024,
            write_bytes_max: 1024 * 1024,
            index_save_bytes: 8 * 1024 * 1024,
        }
    }
}

/// The directory of one life of a group's segments, below the node's `groups` directory.
#[must_use]
pub fn segments_dir(groups_dir: &Path, group: GroupId, incarnation: Incarnation) -> PathBuf {
    groups_dir.join(format!("{group}-{incarnation}"))
}

/// A kept item, read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredItem {
    /// The entry that it came with.
    pub log_id: LogId,
    /// Machine-defined kind.
    pub kind: u8,
    /// Its offsets and timestamp.
    pub kept: Kept,
    /// The payload: a slice of one buffer that all items of a read share.
    pub payload: Bytes,
}

/// What a segment holds, for retention and for the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Raft index of the first entry; names the segment.
    pub first_index: u64,
    /// The last entry; `None` while it is empty.
    pub last: Option<LogId>,
    /// First offset of the first kept item; `None` if it keeps nothing.
    pub first_offset: Option<u64>,
    /// The offset behind the last kept item of this or an earlier segment; 0 if there was none.
    pub next_offset: u64,
    /// Largest timestamp of a kept item, in milliseconds since the Unix epoch.
    pub max_timestamp_ms: Option<i64>,
    /// Length in bytes.
    pub bytes: u64,
    /// Whether it is immutable, so that it can be unlinked, rewritten and verified.
    pub closed: bool,
}
