//! What the controller answers to an item.

mod moves;
mod node;
mod renewals;

use std::sync::Arc;

pub use moves::MoveRefusal;
pub use node::NodeRefusal;
pub use renewals::RenewRefusal;

use super::config::ConfigError;
use super::image::Topic;
use super::limits::{PRODUCER_IDS_PER_BLOCK_MAX, REPLICATION_FACTOR_MAX};
use super::node::NodeState;
use crate::item::Malformed;
use crate::name::NameError;

/// The answer to one item, or why it was refused.
pub type ControllerOutcome = Result<ControllerAnswer, ControllerRefusal>;

/// What an accepted item did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControllerAnswer {
    /// The node is known under its address.
    NodeRegistered,
    /// The node is in this state.
    NodeStateSet {
        /// The node.
        node_id: u64,
        /// What it is meant to do.
        state: NodeState,
    },
    /// There is no such node any more.
    NodeRemoved {
        /// The node that it was.
        node_id: u64,
    },
    /// The partition has a target; its leader takes it there.
    MoveStarted {
        /// Its Raft group.
        group_id: u64,
    },
    /// The partition has no target any more; its replicas are as before the move.
    MoveCancelled {
        /// Its Raft group.
        group_id: u64,
    },
    /// The partition's replicas are as asked for.
    MoveFinished {
        /// Its Raft group.
        group_id: u64,
    },
    /// Each placement gets a replica id of its own.
    ReplicaIdsBegun,
    /// The replicas are counted on.
    ReplicasEstablished,
    /// The replica is none any more.
    ReplicaRenewed {
        /// Who is in its place. `None`: nobody needs to be.
        replica_id: Option<u64>,
    },
    /// A new topic.
    TopicCreated(Arc<Topic>),
    /// The topic as it is now.
    TopicAltered(Arc<Topic>),
    /// The topic as it is now.
    PartitionsAdded(Arc<Topic>),
    /// The topic as it was.
    TopicDeleted(Arc<Topic>),
    /// Producer ids that nobody got before or will get after.
    ProducerIds {
        /// The first of them.
        first: u64,
        /// How many, one after the other.
        count: u32,
    },
    /// The machine's time.
    Time {
        /// Milliseconds since the Unix epoch.
        now_ms: i64,
    },
}

/// Why an item was refused. Nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControllerRefusal {
    /// The name is taken.
    #[error("topic {name:?} exists already (number of partitions: {partition_count}): choose another name")]
    TopicExists {
        /// The name.
        name: String,
        /// Partitions of the existing topic.
        partition_count: usize,
        /// Whether the existing topic has as many partitions as asked for.
        same_layout: bool,
    },
    /// No such topic.
    #[error("topic {name:?} does not exist: create it, or check its name")]
    UnknownTopic {
        /// The name.
        name: String,
    },
    /// Not a name for a topic.
    #[error("topic name {name:?} is invalid: {why}")]
    InvalidName {
        /// The name.
        name: String,
        /// What is wrong with it.
        why: NameError,
    },
    /// Not 16 bytes, or the id of another topic.
    #[error("topic id {topic_id:02x?} is not a new UUID of 16 bytes: try again")]
    InvalidTopicId {
        /// The bytes found.
        topic_id: Vec<u8>,
    },
    /// A value that a topic cannot have.
    #[error("topic configuration: {0}")]
    InvalidConfig(#[from] ConfigError),
    /// Fewer than one partition, or more than a topic may have.
    #[error("a topic has 1 to {partitions_max} partitions, not {partitions}: choose a number between")]
    InvalidPartitionCount {
        /// The number asked for.
        partitions: usize,
        /// Limit.
        partitions_max: usize,
    },
    /// Partitions are added, never removed.
    #[error(
        "topic {name:?} cannot go from {partition_count} to {requested} partitions: they are only ever added, so ask for a larger total"
    )]
    NotMorePartitions {
        /// The name.
        name: String,
        /// Partitions that the topic has.
        partition_count: usize,
        /// The total asked for.
        requested: usize,
    },
    /// The topic got partitions since the leader chose the replicas.
    #[error("topic {name:?} was changed meanwhile (number of partitions: {partition_count}): try again")]
    PlanOutdated {
        /// The name.
        name: String,
        /// Partitions that the topic has.
        partition_count: usize,
    },
    /// Fewer than one copy, or more than allowed.
    #[error("replication factor {replication_factor} is not in 1 to {REPLICATION_FACTOR_MAX}: choose a number between")]
    InvalidReplicationFactor {
        /// The number asked for.
        replication_factor: u32,
    },
    /// The nodes chosen for a partition are too few, too many or the same twice.
    #[error("partition {partition} needs {replication_factor} different nodes, chosen were {nodes:?}: try again")]
    InvalidReplicas {
        /// Number of the partition.
        partition: usize,
        /// Copies that it needs.
        replication_factor: u32,
        /// The nodes chosen.
        nodes: Vec<u64>,
    },
    /// No such node.
    #[error("node {node_id} is not registered: start it, or choose another one")]
    UnknownNode {
        /// The node.
        node_id: u64,
    },
    /// It gets no new replicas.
    #[error("node {node_id} is {state} and gets no new replicas: try again")]
    NodeNotActive {
        /// The node.
        node_id: u64,
        /// What it is meant to do.
        state: NodeState,
    },
    /// A node is not registered, changed or removed.
    #[error(transparent)]
    Node(#[from] NodeRefusal),
    /// A partition does not get other replicas.
    #[error(transparent)]
    Move(#[from] MoveRefusal),
    /// A replica is not replaced.
    #[error(transparent)]
    Renew(#[from] RenewRefusal),
    /// The metadata would outgrow a limit.
    #[error("this would make more than {max} {what}, the most that a cluster may have: delete some first")]
    LimitReached {
        /// What there is too much of.
        what: &'static str,
        /// Limit.
        max: usize,
    },
    /// No id, or more than allowed at once.
    #[error("a block has 1 to {PRODUCER_IDS_PER_BLOCK_MAX} producer ids, not {count}: ask for a number between")]
    InvalidBlock {
        /// The number asked for.
        count: u32,
    },
    /// There is no producer id left.
    #[error("producer ids are used up: produce without a producer id")]
    ProducerIdsExhausted,
    /// The item means nothing here.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}
