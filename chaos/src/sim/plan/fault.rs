//! What can be done to a simulated cluster.

#![allow(missing_docs, reason = "what the fields are is said with the faults")]

use serde::{Deserialize, Serialize};

use crate::sim::disk::{Op, Place, Rule};
use crate::sim::rows::RowsOp;

/// One fault, or one order of an operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// A process ends; its machine goes on.
    Kill { node: u64 },
    /// A machine loses its power.
    PowerCut { node: u64 },
    /// All of them do, at the same moment.
    PowerCutAll,
    /// A machine loses its power during the write to its disk after so many others.
    TornWrite { node: u64, after: u64 },
    /// A process is killed during an operation of its disk.
    DiesDuring { node: u64, op: Op, place: Place, after: u32 },
    /// A process ends, and while it is down, something becomes of its files.
    Corrupt { node: u64, place: Place, what: Corruption, pick: u64 },
    /// A node reaches nobody, and nobody reaches it.
    Isolate { node: u64 },
    /// Two nodes do not reach each other.
    Cut { one: u64, other: u64 },
    /// What the first sends does not reach the second.
    CutOneWay { from: u64, to: u64 },
    /// Every message takes up to so many milliseconds.
    SlowNetwork { ms: u64 },
    /// Whatever the disk of a node does takes so many milliseconds longer.
    SlowDisk { node: u64, ms: u64 },
    /// Operations of a node's disk fail.
    DiskFails { node: u64, rule: Rule },
    /// A sector of a node's disk cannot be read.
    Unreadable { node: u64, place: Place, pick: u64 },
    /// What was written last to a node's journal cannot be read.
    UnreadableTail { node: u64 },
    /// No file of a node can grow; or it is the user's quota that is used up.
    DiskFull { node: u64, quota: bool },
    /// Operations of a node's rows fail.
    RowsFail { node: u64, op: RowsOp, after: u32, times: u32 },
    /// A node's time of day is so many milliseconds off.
    ClockJump { node: u64, off_ms: i64 },
    /// The partition (counted over all topics) shall have these replicas, or as many of them as it has.
    Move { partition: usize, to: Vec<u64> },
    /// The partition's move shall not go on.
    Cancel { partition: usize },
    /// Another replica of the partition shall lead.
    Lead { partition: usize, node: u64 },
    /// A topic with so many replicas is wanted.
    CreateTopic { number: u32, replicas: u32 },
    /// It is wanted no more.
    DeleteTopic { number: u32 },
}

/// What becomes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Corruption {
    /// Bits flip.
    Flip,
    /// Its end is missing.
    Cut,
}

/// A fault, when it begins and how long it lasts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// Milliseconds since the time of faults began.
    pub at_ms: u64,
    /// Milliseconds until it is undone, where it can be.
    pub lasts_ms: u64,
    /// What.
    pub fault: Fault,
}

impl Fault {
    /// Whether it is an order of an operator, which does no harm.
    #[must_use]
    pub fn is_order(&self) -> bool {
        matches!(
            self,
            Self::Move { .. } | Self::Cancel { .. } | Self::Lead { .. } | Self::CreateTopic { .. } | Self::DeleteTopic { .. }
        )
    }
}
