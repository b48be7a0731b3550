//! What a registry is opened and a group is started with, and why either may fail.

use std::io;
use std::time::Duration;

use super::states::{Cause, Outage};
use crate::disk::error::{Class, advice};
use crate::driver::Driver;
use crate::journal::{JournalError, JournalOptions};
use crate::network::Peers;
use crate::segments::SegmentOptions;
use crate::state::StateError;
use crate::types::{GroupId, NodeId, Replica};

/// What a registry may use.
#[derive(Debug, Clone)]
pub struct RegistryOptions {
    /// This node.
    pub node_id: NodeId,
    /// The journal's files.
    pub journal: JournalOptions,
    /// How segments are cut.
    pub segments: SegmentOptions,
    /// Bytes of proposals that may wait or be on their way, over all groups.
    pub proposal_bytes_max: usize,
    /// Bytes of memory that applied entries may take before they are in segments; proposals wait when it is used up.
    pub tail_bytes_max: u64,
    /// The links to other nodes; [`Peers::alone`] if there are none.
    pub peers: Peers,
    /// How snapshots are sent to other nodes, and taken from them.
    pub transfers: TransferOptions,
    /// Who does the work that blocks.
    pub driver: Driver,
}

/// How much of a node's disks and network snapshots may take.
#[derive(Debug, Clone, Copy)]
pub struct TransferOptions {
    /// Bytes that this node sends in a second, over all snapshots.
    pub bytes_per_second: u64,
    /// Snapshots that this node sends at once, and that it receives at once.
    pub at_once: usize,
    /// How long what was received of a broken transfer, and what was to be sent of it, is kept.
    pub kept_for: Duration,
}

/// What becomes of a group that has no data here yet. One that has some goes on with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begin {
    /// Nobody counts on it yet: it begins with nothing, and waits until a leader sends it entries or a snapshot.
    Wait,
    /// The group counts on it: it had data here, and was lost.
    Resume,
    /// Nobody counts on it yet, nor on anybody else of its group: it begins with these voters, and is offered the same list on each of them. The first begins at once, the others
    /// a while later, if nobody has begun by then.
    Initialize(Vec<Replica>),
}

/// Why a node's storage did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The state.
    #[error(transparent)]
    State(#[from] StateError),
    /// A thread or directory.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Why a group did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Something that was once durable is missing or altered. The data is kept as it is.
    #[error("group {group} is damaged and stays down: {reason}")]
    Damaged {
        /// The group.
        group: GroupId,
        /// Which file, which range, and what is wrong there.
        reason: String,
    },
    /// Nobody knows how far something came that was broken off. The data is kept as it is.
    #[error("group {group} is down: {reason}")]
    Down {
        /// The group.
        group: GroupId,
        /// What happened, and what helps.
        reason: String,
    },
    /// It runs already.
    #[error("group {0} runs already")]
    Running(GroupId),
    /// Somebody starts, stops or removes it just now.
    #[error("group {group} is {doing}")]
    Busy {
        /// The group.
        group: GroupId,
        /// What is being done with it, in words.
        doing: &'static str,
    },
    /// The node closes.
    #[error("the node is closing")]
    Closed,
    /// Reading or writing failed.
    #[error("group {group}: {source}; {}", advice(.source))]
    Io {
        /// The group.
        group: GroupId,
        /// What failed.
        source: io::Error,
    },
}

impl StartError {
    /// What is to be thought of it. [`Class::Damage`] is said of what was read alone: anything else may be tried again.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Damaged { .. } => Class::Damage,
            Self::Io { source, .. } => Class::of(source),
            Self::Down { .. } => Class::Final,
            Self::Running(_) | Self::Busy { .. } | Self::Closed => Class::Passing,
        }
    }

    /// What it means for the group.
    #[must_use]
    pub fn outage(&self) -> Outage {
        let cause = match self {
            Self::Damaged { .. } => Cause::Damaged,
            Self::Down { .. } => Cause::Unknown,
            Self::Io { .. } | Self::Running(_) | Self::Busy { .. } | Self::Closed => Cause::Passing,
        };
        Outage { reason: self.reason(), cause }
    }

    /// What is wrong and what to do, in words, without the group's name.
    pub(super) fn reason(&self) -> String {
        match self {
            Self::Damaged { reason, .. } | Self::Down { reason, .. } => reason.clone(),
            Self::Io { source, .. } => format!("{source}; {}", advice(source)),
            other => other.to_string(),
        }
    }
}

impl Default for TransferOptions {
    fn default() -> Self {
        Self { bytes_per_second: 128 << 20, at_once: 2, kept_for: Duration::from_secs(300) }
    }
}
