//! Why a move of a partition was refused.

use crate::controller::node::NodeState;

/// Why a partition does not get other replicas.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MoveRefusal {
    /// No such partition: perhaps its topic was deleted.
    #[error("no partition has Raft group {group_id}: check the topic and the partition's number")]
    UnknownGroup {
        /// The group.
        group_id: u64,
    },
    /// One move at a time.
    #[error(
        "the partition (Raft group {group_id}) moves to {target:?} already: wait until it is there, or cancel that move first"
    )]
    Moving {
        /// The group.
        group_id: u64,
        /// Where it moves to.
        target: Vec<u64>,
    },
    /// Nothing to cancel or to finish.
    #[error("the partition (Raft group {group_id}) does not move: its replicas are {replicas:?}")]
    NotMoving {
        /// The group.
        group_id: u64,
        /// Where it is.
        replicas: Vec<u64>,
    },
    /// It moves to other nodes than those that were reported, or to the same ones once more.
    #[error("the partition (Raft group {group_id}) moves to {target:?} now: that it had moved to {reported:?} is outdated")]
    OtherTarget {
        /// The group.
        group_id: u64,
        /// Where it moves to.
        target: Vec<u64>,
        /// Where it was said to be.
        reported: Vec<u64>,
    },
    /// Who is counted on must have been named before.
    #[error("the partition (Raft group {group_id}) has not moved: its replica {replica_id} may still begin with nothing")]
    NotEstablished {
        /// The group.
        group_id: u64,
        /// The replica.
        replica_id: u64,
    },
    /// It is there.
    #[error("the partition (Raft group {group_id}) is on {replicas:?} already, in this order")]
    AlreadyThere {
        /// The group.
        group_id: u64,
        /// Where it is.
        replicas: Vec<u64>,
    },
    /// Too few nodes, too many or the same twice.
    #[error(
        "the partition needs {replication_factor} different nodes, as its topic was created with so many copies; chosen were \
         {nodes:?}: choose as many, each once"
    )]
    InvalidReplicas {
        /// Copies that it needs.
        replication_factor: u32,
        /// The nodes chosen.
        nodes: Vec<u64>,
    },
    /// No such node.
    #[error("there is no node {node_id}: choose others (see flotilla node list)")]
    UnknownNode {
        /// The node.
        node_id: u64,
    },
    /// It gets no new replicas.
    #[error(
        "node {node_id} is {state} and gets no new replicas: choose another one, or take it back (flotilla node undrain {node_id})"
    )]
    NodeNotActive {
        /// The node.
        node_id: u64,
        /// What it is meant to do.
        state: NodeState,
    },
}
