//! One error for each operation. The server maps them to the wire in one file of its own.

use std::io;

use flotilla_machines::controller::{ControllerRefusal, TopicId};
use flotilla_machines::partition::PartitionRefusal;
use flotilla_raft::group::{ProposeError, ReadError};
use flotilla_raft::registry::{Cause, Outage};
use flotilla_records::BatchError;

/// Why the broker did not start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The data directory.
    #[error(transparent)]
    DataDir(#[from] flotilla_raft::data_dir::DataDirError),
    /// The data directory of another node.
    #[error("{path} belongs to node {found}, not to node {expected}; check --data-dir and --node-id")]
    ForeignNode {
        /// The data directory.
        path: std::path::PathBuf,
        /// The node it belongs to.
        found: u64,
        /// This node.
        expected: u64,
    },
    /// Journal, segments or state.
    #[error(transparent)]
    Storage(#[from] flotilla_raft::registry::OpenError),
    /// Reading or writing failed while the node started, or the state was found to be damaged: trying again may help.
    #[error("storage failed: {0}")]
    StorageFailed(String),
    /// The controller's group.
    #[error("the controller did not start: {0}")]
    Controller(String),
    /// The cluster goes on without this node.
    #[error(
        "node {node_id} was removed from its cluster, and node ids are never used again: start a new one with an empty data directory \
         and another --node-id"
    )]
    Removed {
        /// This node.
        node_id: u64,
    },
    /// Told to stop before it belonged to a cluster.
    #[error("stopped while waiting for the cluster to form")]
    Stopped,
    /// Anything else from the system.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Why a partition (or the controller) cannot serve at the moment, whatever the request.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NotServing {
    /// Another node leads it.
    #[error("this node does not lead {what}: send the request to its leader")]
    NotLeader {
        /// Partition or controller, in words.
        what: String,
        /// The leader's node id and address, if known.
        leader: Option<(u64, String)>,
    },
    /// It has no leader, or has just started.
    #[error("{what} is not ready yet: retry in a moment")]
    NotReady {
        /// Partition or controller, in words.
        what: String,
    },
    /// Most of its replicas cannot be reached: until they are back, nothing can be written, nor its end be confirmed.
    #[error("{what} has no majority: most of its replicas are out of reach ({}); start these nodes again", names(.offline))]
    NoQuorum {
        /// Partition or controller, in words.
        what: String,
        /// The nodes that are missing.
        offline: Vec<u64>,
    },
    /// This node believes that it leads, and no majority confirms it in time.
    #[error("no majority of the replicas of {what} confirms that this node leads it, so that it cannot say where it ends: retry")]
    Unconfirmed {
        /// Partition or controller, in words.
        what: String,
    },
    /// Stored data is damaged; nothing of it is served.
    #[error(
        "{what} is damaged: {reason}; if no other node has it, \"flotilla partition recover\" begins it again from what is left"
    )]
    Damaged {
        /// Partition, in words.
        what: String,
        /// File, range, and what is wrong there.
        reason: String,
    },
    /// Its data could not be opened, or not be closed; it may be whole.
    #[error("{what} is down on this node: {reason}")]
    Down {
        /// Partition, in words.
        what: String,
        /// What failed, and what helps.
        reason: String,
    },
    /// A write or sync failed; nothing is acknowledged until the storage is opened again.
    #[error("this node's storage failed: {reason}")]
    StorageFailed {
        /// What failed.
        reason: String,
    },
    /// The node is closing.
    #[error("this node is shutting down: send the request to another one, or retry")]
    ShuttingDown,
}

impl NotServing {
    /// Of a partition that does not run here.
    pub(crate) fn down(what: String, outage: &Outage) -> Self {
        let reason = outage.reason.clone();
        match outage.cause {
            Cause::Damaged => Self::Damaged { what, reason },
            Cause::Passing => Self::Down { what, reason: format!("{reason}; it is tried again by itself") },
            Cause::Unknown => Self::Down { what, reason },
        }
    }
}

fn names(nodes: &[u64]) -> String {
    let names: Vec<String> = nodes.iter().map(|node| format!("node {node}")).collect();
    names.join(", ")
}

/// The topic or partition asked for is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicMissing {
    /// No such topic.
    #[error("topic {topic:?} does not exist: create it, or check its name")]
    UnknownTopic {
        /// Its name.
        topic: String,
    },
    /// The topic that was asked for is gone, and another one has its name.
    #[error(
        "topic {topic:?} was deleted and created again (its id is {topic_id} now): the request was meant for the old one, whose \
         offsets mean nothing in the new one; begin again, from earliest or latest"
    )]
    Recreated {
        /// The name.
        topic: String,
        /// The topic that has it now.
        topic_id: TopicId,
    },
    /// No such partition.
    #[error("topic {topic:?} has no partition {partition}: its last one is {last}", last = partition_count - 1)]
    UnknownPartition {
        /// Its topic.
        topic: String,
        /// The partition asked for.
        partition: u32,
        /// How many there are; at least 1.
        partition_count: u32,
    },
}

pub(crate) fn unknown_partition(topic: &crate::Topic, partition: u32) -> TopicMissing {
    TopicMissing::UnknownPartition {
        topic: topic.name.to_string(),
        partition,
        partition_count: u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX),
    }
}

/// Why records were not acknowledged.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProduceError {
    /// See [`TopicMissing`].
    #[error(transparent)]
    Missing(#[from] TopicMissing),
    /// See [`NotServing`].
    #[error(transparent)]
    NotServing(#[from] NotServing),
    /// The records do not make a valid batch, or the batch is not one.
    #[error("the record batch is refused: {0}")]
    InvalidBatch(#[from] BatchError),
    /// Larger than the topic allows.
    #[error(
        "the record batch has {bytes} bytes, topic {topic:?} accepts {bytes_max}: send smaller batches, or raise batch_bytes_max"
    )]
    BatchTooLarge {
        /// The topic.
        topic: String,
        /// Size of the batch.
        bytes: usize,
        /// What the topic accepts.
        bytes_max: u64,
    },
    /// No records in the request.
    #[error("the request has no records: send at least one")]
    Empty,
    /// An encoded batch says nothing about keys.
    #[error("an encoded batch needs a partition: topic {topic:?} has {partition_count}")]
    PartitionRequired {
        /// The topic.
        topic: String,
        /// How many partitions it has.
        partition_count: u32,
    },
    /// One producer sequence cannot cover several partitions.
    #[error(
        "an idempotent request must go to one partition, its records belong to several: name the partition, or send a request for each"
    )]
    SeveralPartitions,
    /// The partition refused it: sequence, fence, offsets.
    #[error(transparent)]
    Refused(#[from] PartitionRefusal),
    /// It may or may not have been appended.
    #[error("whether the records were appended is unknown: {reason}; an idempotent producer may retry safely")]
    Unknown {
        /// What happened.
        reason: String,
    },
}

/// Why nothing could be read.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// See [`TopicMissing`].
    #[error(transparent)]
    Missing(#[from] TopicMissing),
    /// See [`NotServing`].
    #[error(transparent)]
    NotServing(#[from] NotServing),
    /// The position is not in the log.
    #[error(
        "offset {offset} is out of range: partition {partition} of topic {topic:?} holds {log_start_offset} to {high_watermark}; start \
         from earliest or latest"
    )]
    OffsetOutOfRange {
        /// The topic.
        topic: String,
        /// Its partition.
        partition: u32,
        /// Asked for.
        offset: u64,
        /// First offset that is still there.
        log_start_offset: u64,
        /// One behind the last.
        high_watermark: u64,
    },
    /// A stored batch does not decode. It was valid when it was accepted.
    #[error("the record batch at offset {offset} cannot be decoded: {reason}")]
    Corrupt {
        /// Offset of its first record.
        offset: u64,
        /// What is wrong.
        reason: BatchError,
    },
    /// The disk failed, or holds damaged data in this range.
    #[error("reading failed: {0}")]
    Read(String),
}

/// Why an offset was not committed.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// See [`TopicMissing`].
    #[error(transparent)]
    Missing(#[from] TopicMissing),
    /// See [`NotServing`].
    #[error(transparent)]
    NotServing(#[from] NotServing),
    /// The partition refused it: fence, range, names.
    #[error(transparent)]
    Refused(#[from] PartitionRefusal),
    /// It may or may not have been committed.
    #[error("whether the offset was committed is unknown: {reason}; commit it again")]
    Unknown {
        /// What happened.
        reason: String,
    },
}

/// Why committed offsets could not be told.
#[derive(Debug, thiserror::Error)]
pub enum CommittedError {
    /// See [`TopicMissing`].
    #[error(transparent)]
    Missing(#[from] TopicMissing),
    /// See [`NotServing`].
    #[error(transparent)]
    NotServing(#[from] NotServing),
    /// Not a name for a group.
    #[error("group name {name:?} is invalid: {why}")]
    InvalidGroup {
        /// The name.
        name: String,
        /// What is wrong with it.
        why: flotilla_machines::name::NameError,
    },
}

/// Why a topic was not created, changed or described.
#[derive(Debug, thiserror::Error)]
pub enum TopicError {
    /// See [`TopicMissing`].
    #[error(transparent)]
    Missing(#[from] TopicMissing),
    /// See [`NotServing`].
    #[error(transparent)]
    NotServing(#[from] NotServing),
    /// The controller refused it.
    #[error(transparent)]
    Refused(#[from] ControllerRefusal),
    /// A partition refused it.
    #[error(transparent)]
    PartitionRefused(#[from] PartitionRefusal),
    /// The topic exists, and that would be welcome if it were as asked for.
    #[error(
        "topic {name:?} exists with another number of partitions (it has {partition_count}, asked for: {requested}): ask for as many, or choose another name"
    )]
    OtherPartitionCount {
        /// Its name.
        name: String,
        /// Partitions that it has.
        partition_count: usize,
        /// Partitions asked for.
        requested: u32,
    },
    /// More replicas than nodes.
    #[error(
        "replication factor {replication_factor} needs as many active nodes, the cluster has {node_count}: use a smaller one, add \
         nodes, or take drained ones back"
    )]
    TooFewNodes {
        /// Asked for.
        replication_factor: u32,
        /// Active nodes there are.
        node_count: usize,
    },
    /// It may or may not have happened.
    #[error("whether the change was made is unknown: {reason}; describe the topic to find out")]
    Unknown {
        /// What happened.
        reason: String,
    },
}

/// Why there is no producer id.
#[derive(Debug, thiserror::Error)]
pub enum InitProducerError {
    /// See [`NotServing`].
    #[error(transparent)]
    NotServing(#[from] NotServing),
    /// The controller refused it.
    #[error(transparent)]
    Refused(#[from] ControllerRefusal),
}

/// Why a damaged partition does not begin again.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// Nothing is known to be wrong with it.
    #[error("no damage is known of it; damage is found when somebody reads it, and by the background verification")]
    NotDamaged,
    /// What is lost here may be there.
    #[error(
        "it has replicas on other nodes ({}): the damaged one copies from them by itself; start these nodes, or remove those that \
         will not come back",
        names(.nodes)
    )]
    HasReplicas {
        /// The other nodes.
        nodes: Vec<u64>,
    },
    /// The disk refused. Asking again goes on where it was.
    #[error("the storage failed: {0}")]
    Storage(io::Error),
}

/// What a failed proposal means: not appended (so it may be sent again as it is), or unknown.
pub(crate) enum Failed {
    NotServing(NotServing),
    Unknown { reason: String },
}

impl Failed {
    pub(crate) fn of(error: ProposeError, what: impl FnOnce() -> String, storage: Option<String>) -> Self {
        match error {
            ProposeError::NotLeader { leader, .. } => {
                let leader = leader.map(|node| (node, String::new()));
                Self::NotServing(NotServing::NotLeader { what: what(), leader })
            }
            ProposeError::Halted { reason, .. } => Self::NotServing(NotServing::Down { what: what(), reason }),
            ProposeError::NoQuorum { offline, .. } => Self::NotServing(NotServing::NoQuorum { what: what(), offline }),
            ProposeError::Stopped { .. } => Self::NotServing(match storage {
                Some(reason) => NotServing::StorageFailed { reason },
                None => NotServing::ShuttingDown,
            }),
            ProposeError::Unknown { reason, .. } => Self::Unknown { reason: storage.unwrap_or(reason) },
        }
    }
}

/// Implements `From<Failed>` for an error with the variants `NotServing` and `Unknown { reason }`.
macro_rules! from_failed {
    ($($error:ident),*) => {$(
        impl From<Failed> for $error {
            fn from(failed: Failed) -> Self {
                match failed {
                    Failed::NotServing(not_serving) => Self::NotServing(not_serving),
                    Failed::Unknown { reason } => Self::Unknown { reason },
                }
            }
        }
    )*};
}

from_failed!(ProduceError, CommitError, TopicError);

impl From<Failed> for InitProducerError {
    /// An unknown outcome costs nothing here: a block of ids may stay unused.
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::NotServing(not_serving) => Self::NotServing(not_serving),
            Failed::Unknown { .. } => Self::NotServing(NotServing::NotReady { what: "the controller".into() }),
        }
    }
}

pub(crate) fn not_leader(error: ReadError, what: impl FnOnce() -> String) -> Result<NotServing, String> {
    match error {
        ReadError::NotLeader { leader, .. } => {
            Ok(NotServing::NotLeader { what: what(), leader: leader.map(|node| (node, String::new())) })
        }
        ReadError::Halted { reason, .. } => Ok(NotServing::Down { what: what(), reason }),
        ReadError::Segment(error) => Err(error.to_string()),
        ReadError::Stopped(_) => Ok(NotServing::ShuttingDown),
    }
}

#[cfg(test)]
mod tests {
    use flotilla_raft::types::GroupId;

    use super::*;

    #[test]
    fn a_group_whose_replicas_contradict_each_other_is_unavailable_and_says_why() {
        let (group, reason) = (GroupId(7), "they differ".to_owned());
        let said = |not_serving: &NotServing| matches!(not_serving, NotServing::Down { reason, .. } if reason == "they differ");
        let written = Failed::of(ProposeError::Halted { group, reason: reason.clone() }, String::new, None);
        assert!(matches!(written, Failed::NotServing(not_serving) if said(&not_serving)));
        let read = not_leader(ReadError::Halted { group, reason }, String::new);
        assert!(matches!(read, Ok(not_serving) if said(&not_serving)));
    }
}
