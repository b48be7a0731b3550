//! Why a group does not take or give something.

use std::io;

use crate::segments::SegmentError;
use crate::types::{GroupId, NodeId};

/// Why a proposal has no outcome.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProposeError {
    /// Not appended: another node leads the group.
    #[error("this node does not lead group {group}")]
    NotLeader {
        /// The group.
        group: GroupId,
        /// The node that leads it, if that is known.
        leader: Option<NodeId>,
    },
    /// It may or may not be committed, now or later. Retry with the same producer sequence to find out.
    #[error("group {group} lost its leader or stopped while the proposal was on its way: {reason}")]
    Unknown {
        /// The group.
        group: GroupId,
        /// What happened.
        reason: String,
    },
    /// Not appended: most of the group's replicas cannot be reached, so that it would only wait.
    #[error("group {group} has no majority: its replicas on {offline:?} are out of reach")]
    NoQuorum {
        /// The group.
        group: GroupId,
        /// Those that are missing.
        offline: Vec<NodeId>,
    },
    /// Not appended: the group's replicas contradict each other. See [`crate::tripwire`].
    #[error("group {group} takes nothing: {reason}")]
    Halted {
        /// The group.
        group: GroupId,
        /// How, and what to do.
        reason: String,
    },
    /// Not appended: the group does not run any more.
    #[error("group {group} is stopped")]
    Stopped {
        /// The group.
        group: GroupId,
    },
}

/// Why a group could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The stored data is damaged or cannot be read.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// The read was broken off: the node is closing.
    #[error("reading was broken off: {0}")]
    Stopped(io::Error),
    /// The group's replicas contradict each other. See [`crate::tripwire`].
    #[error("group {group} gives nothing: {reason}")]
    Halted {
        /// The group.
        group: GroupId,
        /// How, and what to do.
        reason: String,
    },
    /// This node cannot confirm that it leads the group.
    #[error("group {group}: leadership could not be confirmed: {reason}")]
    NotLeader {
        /// The group.
        group: GroupId,
        /// The node that leads it, if that is known.
        leader: Option<NodeId>,
        /// What openraft said.
        reason: String,
    },
}
