//! Deterministic state machines: what a log entry means for a partition and for the controller.
//!
//! A machine takes an entry's items one by one and answers each with an outcome, a [`Decision`] about its payload, and
//! changes of [`Rows`]. The rows are all of its state: from them it is restored, and they are what a snapshot ships.
//! Nothing here waits, does I/O or reads a clock: time arrives as an [item], and the same items give the same rows,
//! outcomes and decisions on every replica. Refusals are outcomes too; a refused item changes nothing.

pub mod controller;
pub mod item;
pub mod name;
pub mod partition;
mod rows;
pub mod time;

pub use item::Malformed;
pub use rows::{RestoreError, Rows, table};

/// What applying one item gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied<O> {
    /// The answer to whoever proposed the item.
    pub outcome: O,
    /// What becomes of the item's payload.
    pub decision: Decision,
}

impl<O> Applied<O> {
    /// An item whose payload is dead: its effect, if any, is in rows.
    pub(crate) fn dropped(outcome: O) -> Self {
        Self { outcome, decision: Decision::Drop }
    }
}

/// Whether an item's payload stays readable, and under which offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The payload is dead.
    Drop,
    /// The payload is part of the log.
    Keep {
        /// Offset of its first record.
        base_offset: u64,
        /// Number of offsets it covers, at least 1.
        offset_count: u32,
        /// As of when it is kept and looked up, in milliseconds since the Unix epoch: the largest timestamp of a record in it,
        /// or its arrival, if that is no date or lies too far ahead.
        max_timestamp_ms: i64,
    },
}
