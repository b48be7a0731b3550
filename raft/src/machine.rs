//! What a hosted state machine implements. This crate drives it; it knows nothing of Raft.

use std::any::Any;
use std::fmt;
use std::ops::Range;

use crate::types::{Decision, GroupId, Item, LogId};

/// What an item's proposer is told: a value of the machine's own type, downcast by whoever proposed.
pub type Outcome = Box<dyn Any + Send + Sync>;

/// What apply says about one item.
pub struct Applied {
    /// For the proposer, on the node that proposed; dropped elsewhere.
    pub outcome: Outcome,
    /// Whether the payload stays readable.
    pub decision: Decision,
}

/// Changes to the machine's rows, written atomically with the applied log id.
pub trait Rows {
    /// Sets a row. `table` is 1 or more; 0 belongs to this crate.
    fn put(&mut self, table: u8, key: &[u8], value: Vec<u8>);
    /// Removes a row.
    fn delete(&mut self, table: u8, key: &[u8]);
}

/// One stored row of a machine: table, key, value.
pub type Row = (u8, Vec<u8>, Vec<u8>);

/// A deterministic state machine: the same items give the same decisions, outcomes and rows on every replica.
/// No clock, no randomness and no I/O inside; time arrives in items.
pub trait Machine: Send + Sync + 'static {
    /// Forgets everything and loads the state that `rows` hold: at start, and after a snapshot was installed.
    ///
    /// # Errors
    /// If a row cannot be decoded. The group does not start then.
    fn restore(&mut self, rows: Vec<Row>) -> Result<(), RestoreError>;

    /// Applies the items of one entry, in order; returns one [`Applied`] for each.
    fn apply(&mut self, log_id: LogId, items: &[Item], rows: &mut dyn Rows) -> Vec<Applied>;

    /// Takes over an entry behind a loss (see [`Registry::accept_loss`](crate::registry::Registry::accept_loss)). What was
    /// decided about its items when more of the log was there stays so; where that is not known, it is decided now, and an
    /// item is not refused for what may be lost. Returns the decisions.
    fn adopt(&mut self, log_id: LogId, items: &[Item], decisions: Option<&[Decision]>, rows: &mut dyn Rows) -> Vec<Decision> {
        let _ = decisions;
        self.apply(log_id, items, rows).into_iter().map(|applied| applied.decision).collect()
    }

    /// Notes that what was kept under `offsets` may be lost. Those from [`Machine::next_offset`] on are not given out again.
    fn lose(&mut self, offsets: Range<u64>, rows: &mut dyn Rows) {
        let _ = (offsets, rows);
    }

    /// The offset of what is kept next; 0 where nothing ever is.
    fn next_offset(&self) -> u64 {
        0
    }

    /// Called when the effects of everything applied so far can be read (rows written, payloads in place).
    fn published(&mut self) {}

    /// The first offset whose payload may still be asked for. What lies below may be removed.
    fn live_from(&self) -> u64;
}

/// A stored row that the machine cannot read.
#[derive(Debug, thiserror::Error)]
#[error("group {group}: {reason}")]
pub struct RestoreError {
    /// The group whose rows they are.
    pub group: GroupId,
    /// What is wrong with which row.
    pub reason: String,
}

impl fmt::Debug for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Applied").field("decision", &self.decision).finish_non_exhaustive()
    }
}
