//! State: the rows of all groups' machines on this node, and what each group has applied, written together.
//!
//! A [`State`] is an ordered map of bytes. A write is atomic and visible at once, and durable only after a flush:
//! after a crash the map is what it was after *some* earlier write, never a mixture, and at least what was last
//! flushed. Since a group's applied log id rides in the same write as the rows, a restart applies the rest of the
//! log again and arrives where it was.
//!
//! Providers: [`RocksState`] (RocksDB without a write-ahead log) and [`OrderedState`] (an ordered map for
//! simulations). A broken RocksDB is replaced by an empty one (`replace.rs`). Both run the contract suite in `contract.rs`. All keys are listed in [`keys`].

mod batch;
#[cfg(test)]
mod contract;
pub mod keys;
mod ordered;
mod replace;
mod rocks;
mod watched;

use std::path::PathBuf;

pub use batch::WriteBatch;
pub(crate) use batch::{Change, prefix_end};
pub use ordered::OrderedState;
pub use rocks::{RocksOptions, RocksState};
pub(crate) use watched::WatchedState;

/// A key and its value.
pub type KeyValue = (Vec<u8>, Vec<u8>);

/// The node's rows. All calls may block on the disk.
pub trait State: Send + Sync {
    /// The value of `key`.
    ///
    /// # Errors
    /// [`StateError::Damaged`] instead of a value that is not what was written.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError>;

    /// Up to `limit` rows whose key starts with `prefix` and is not below `from`, in the order of their keys.
    ///
    /// # Errors
    /// [`StateError::Damaged`] instead of rows that are not what was written.
    fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<KeyValue>, StateError>;

    /// Applies all changes of `batch` in order, atomically. Durable after the next flush.
    ///
    /// # Errors
    /// If the store stopped after an earlier failure.
    fn write(&self, batch: WriteBatch) -> Result<(), StateError>;

    /// Makes everything that was written before durable; returns when it is.
    ///
    /// # Errors
    /// If it could not be made durable: then nothing written since the last flush may be relied on.
    fn flush(&self) -> Result<(), StateError>;

    /// Bytes of keys and values written since the last successful flush: lets the owner flush by volume.
    fn unflushed_bytes(&self) -> u64;

    /// The rows as they are now, for as long as the view is held.
    fn snapshot(&self) -> Box<dyn StateView>;
}

/// A consistent view of the rows as of one moment.
pub trait StateView: Send + Sync {
    /// Like [`State::get`].
    ///
    /// # Errors
    /// Like [`State::get`].
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError>;

    /// Like [`State::scan`].
    ///
    /// # Errors
    /// Like [`State::scan`].
    fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<KeyValue>, StateError>;
}

/// Why the state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The store does not hold what was written.
    #[error(
        "the state in {dir} is damaged: {reason}; it is set aside when the node opens its data again, and the rows are made anew from \
         logs and peers"
    )]
    Damaged {
        /// The directory of the store.
        dir: PathBuf,
        /// What the store found.
        reason: String,
    },
    /// The store could not do what was asked.
    #[error("the state in {dir} failed: {reason}; {}", crate::disk::error::advice_in_words(.reason))]
    Failed {
        /// The directory of the store.
        dir: PathBuf,
        /// What the store answered.
        reason: String,
    },
}
