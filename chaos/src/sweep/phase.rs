//! When in a node's life harm is done, and what the node is doing then.

use std::fmt;
use std::str::FromStr;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// It starts on an empty directory.
    FirstStart,
    /// It starts after a clean stop.
    Restart,
    /// It starts after `kill -9` under load.
    RestartAfterKill,
    /// A topic is created.
    Create,
    /// Records are written.
    Write,
    /// Old records are read.
    Read,
    /// Records are deleted from the start of a partition.
    Retain,
    /// A topic is deleted.
    Delete,
    /// It stops.
    Stop,
    /// It sends a replica to another node and gives its own up.
    MoveFrom,
    /// It receives a replica.
    MoveTo,
    /// A read of it failed while it sent a replica, and the group is opened again within the process.
    Reopen,
}

impl Phase {
    /// All of them, in the order of a node's life.
    pub const ALL: [(Self, &'static str); 12] = [
        (Self::FirstStart, "first-start"),
        (Self::Restart, "restart"),
        (Self::RestartAfterKill, "restart-after-kill"),
        (Self::Create, "create"),
        (Self::Write, "write"),
        (Self::Read, "read"),
        (Self::Retain, "retain"),
        (Self::Delete, "delete"),
        (Self::Stop, "stop"),
        (Self::MoveFrom, "move-from"),
        (Self::MoveTo, "move-to"),
        (Self::Reopen, "reopen"),
    ];

    /// Nodes in the cluster.
    #[must_use]
    pub fn nodes(self) -> u64 {
        if self.moves() { 2 } else { 1 }
    }

    /// The node that is harmed.
    #[must_use]
    pub fn victim(self) -> u64 {
        if self == Self::MoveTo { 2 } else { 1 }
    }

    /// Whether a replica moves.
    #[must_use]
    pub fn moves(self) -> bool {
        matches!(self, Self::MoveFrom | Self::MoveTo | Self::Reopen)
    }

    /// Whether the node starts: then it may end with a clear message instead, and must be fine when it is started again.
    #[must_use]
    pub fn starts(self) -> bool {
        matches!(self, Self::FirstStart | Self::Restart | Self::RestartAfterKill)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::ALL.iter().find(|(phase, _)| phase == self).map_or("", |(_, name)| name))
    }
}

impl FromStr for Phase {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.iter().find(|(_, name)| *name == text).map(|(phase, _)| *phase);
        known.ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|(_, name)| *name).collect();
            format!("{text:?} is no phase: use one of {}", names.join(", "))
        })
    }
}
