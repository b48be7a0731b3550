//! What can go wrong with segments, in words that say what to do.

use std::fmt;
use std::io;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};

use crate::disk::error::{Class, advice};
use crate::types::GroupId;

/// Why an operation on segments failed.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// The operating system refused.
    #[error("{operation} {path} failed: {source}; {}", advice(.source))]
    Io {
        /// What was being done.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// A file does not hold what was once made durable.
    #[error(transparent)]
    Damaged(Box<Damage>),
    /// The entries asked for were removed (retention, snapshot, rewrite).
    #[error("raft entry {index} of group {group} is no longer in its segments; send a snapshot instead")]
    Removed {
        /// The group.
        group: GroupId,
        /// The raft index asked for.
        index: u64,
    },
    /// The caller broke the contract; nothing was written.
    #[error("raft entry {index} of group {group} cannot be written to a segment: {reason}")]
    Rejected {
        /// The group.
        group: GroupId,
        /// The raft index of the frame.
        index: u64,
        /// The rule that it breaks.
        reason: &'static str,
    },
    /// An earlier write or sync failed; what reached the disk is unknown until the segments are opened again.
    #[error("the segments of group {group} stopped after a failed write; restart the group from disk")]
    Failed {
        /// The group.
        group: GroupId,
    },
    /// No segment starts with this index (it was removed meanwhile, or is still being written).
    #[error("group {group} has no closed segment that starts with raft entry {first_index}")]
    NoSuchSegment {
        /// The group.
        group: GroupId,
        /// The first index asked for.
        first_index: u64,
    },
}

/// Bytes that are not what was made durable, and what is lost with them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The group.
    pub group: GroupId,
    /// The file.
    pub file: PathBuf,
    /// The suspect bytes of the file.
    pub bytes: Range<u64>,
    /// The raft entries that may be affected.
    pub indexes: RangeInclusive<u64>,
    /// The offsets that may be affected, if known.
    pub offsets: Option<Range<u64>>,
    /// What is wrong.
    pub reason: &'static str,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Damage { group, file, bytes, indexes, offsets, reason } = self;
        let (from, to) = (indexes.start(), indexes.end());
        write!(f, "{}: bytes {}..{} are damaged: {reason}; ", file.display(), bytes.start, bytes.end)?;
        write!(f, "affected: group {group}, raft entries {from} to {to}")?;
        if let Some(offsets) = offsets {
            write!(f, ", offsets {}..{}", offsets.start, offsets.end)?;
        }
        write!(f, "; the replica copies from the others where these are a majority; without them, restore the file")
    }
}

impl std::error::Error for Damage {}

impl Damage {
    /// What it means that `bytes` of `file` could not be read: damage, if that stays so, and nothing about the data otherwise.
    pub(super) fn or_io(
        (group, file): (GroupId, &Path),
        bytes: Range<u64>,
        indexes: RangeInclusive<u64>,
        error: io::Error,
    ) -> SegmentError {
        let reason = match error.kind() {
            io::ErrorKind::UnexpectedEof => "the file is shorter than what was written",
            _ if Class::of(&error) == Class::Damage => "the device cannot read it",
            _ => return io_error("reading", file)(error),
        };
        SegmentError::Damaged(Box::new(Self { group, file: file.to_owned(), bytes, indexes, offsets: None, reason }))
    }
}

/// Turns an I/O error into a [`SegmentError::Io`].
pub(super) fn io_error(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SegmentError {
    move |source| SegmentError::Io { operation, path: path.to_owned(), source }
}
