//! What the journal tells its owner on its own account: figures of each batch, and which files it wants back.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::types::{GroupId, Incarnation};

/// The figures of one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchStats {
    /// Bytes written, padding included.
    pub bytes: u64,
    /// Records inside.
    pub records: usize,
    /// Submissions that it completed; 0 for a seal.
    pub submissions: usize,
    /// Groups inside.
    pub groups: usize,
    /// Time that write and sync took together.
    pub duration: Duration,
}

/// A wish: the entries of this group up to `upto` keep a file from being recycled. Flush what is applied to segments
/// and announce it; hand in the others again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recycle {
    /// The group.
    pub group: GroupId,
    /// The life of its data.
    pub incarnation: Incarnation,
    /// Index of the last entry in the way.
    pub upto: u64,
}

/// Told by the writer, on its thread: must not block and must not call the journal back for an answer.
pub trait JournalObserver: fmt::Debug + Send + Sync {
    /// A batch is durable.
    fn batch(&self, _stats: &BatchStats) {}
    /// Files are running out. Said again when something else is in the way, and now and then while writes wait.
    fn recycle(&self, _wishes: &[Recycle]) {}
    /// What is submitted waits, because no file can be had, for this reason; said again and again. `None`: it waits no more.
    fn waiting(&self, _reason: Option<&io::Error>) {}
    /// A write or sync failed: nothing will be acknowledged any more. Restart the store from disk.
    fn failed(&self, _error: &io::Error) {}
}
