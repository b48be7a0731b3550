//! The one place where failures of the broker get the reason that clients see. The words are the broker's own.

use flotilla_broker::{
    CommitError, CommittedError, ControllerRefusal, FetchError, InitProducerError, MoveRefusal, NodeRefusal, NotServing,
    PartitionRefusal, ProduceError, RecoverError, TopicError, TopicMissing,
};
use flotilla_records::{BatchError, RecordError};

use super::problem::{Problem, Reason};
use crate::server::DiskFull;

impl From<DiskFull> for Problem {
    fn from(full: DiskFull) -> Self {
        Self::new(Reason::DiskFull, full.to_string()).with("free_bytes", full.free_bytes)
    }
}

impl From<TopicMissing> for Problem {
    fn from(error: TopicMissing) -> Self {
        let words = error.to_string();
        match error {
            TopicMissing::UnknownTopic { topic } => Self::new(Reason::UnknownTopic, words).with("topic", topic),
            TopicMissing::Recreated { topic, topic_id, .. } => {
                Self::new(Reason::TopicRecreated, words).with("topic", topic).with("topic_id", topic_id)
            }
            TopicMissing::UnknownPartition { topic, partition, partition_count } => Self::new(Reason::UnknownPartition, words)
                .with("topic", topic)
                .with("partition", partition)
                .with("partition_count", partition_count),
        }
    }
}

impl From<NotServing> for Problem {
    fn from(error: NotServing) -> Self {
        let words = error.to_string();
        match error {
            NotServing::NotLeader { leader: Some((node, address)), .. } => {
                Self::new(Reason::NotLeader, words).with("leader", node).with("leader_address", address)
            }
            NotServing::NotLeader { leader: None, .. } => Self::new(Reason::NotLeader, words),
            NotServing::NotReady { .. }
            | NotServing::NoQuorum { .. }
            | NotServing::Down { .. }
            | NotServing::Unconfirmed { .. }
            | NotServing::StorageFailed { .. } => Self::new(Reason::Unavailable, words),
            NotServing::Damaged { .. } => Self::new(Reason::Damaged, words),
            NotServing::ShuttingDown => Self::new(Reason::Draining, words),
        }
    }
}

impl From<BatchError> for Problem {
    fn from(error: BatchError) -> Self {
        let reason = match error {
            BatchError::CrcMismatch { .. } => Reason::CorruptBatch,
            BatchError::UnknownCodec { .. } => Reason::UnknownCodec,
            BatchError::TooManyRecords { .. } | BatchError::BatchFull { .. } => Reason::BatchTooLarge,
            BatchError::DecompressedTooLarge { .. } => Reason::DecompressedTooLarge,
            BatchError::NoMemory { .. } => Reason::Unavailable,
            BatchError::Record { reason: RecordError::TimestampOutOfRange { .. }, .. } => Reason::InvalidTimestamp,
            _ => Reason::InvalidBatch,
        };
        Self::new(reason, error.to_string())
    }
}

impl From<ProduceError> for Problem {
    fn from(error: ProduceError) -> Self {
        let words = error.to_string();
        match error {
            ProduceError::Missing(missing) => missing.into(),
            ProduceError::NotServing(not_serving) => not_serving.into(),
            ProduceError::InvalidBatch(invalid) => invalid.into(),
            ProduceError::BatchTooLarge { topic, bytes_max, .. } => {
                Self::new(Reason::BatchTooLarge, words).with("topic", topic).with("batch_bytes_max", bytes_max)
            }
            ProduceError::Empty => Self::new(Reason::InvalidRequest, words).at("payload"),
            ProduceError::PartitionRequired { .. } => Self::new(Reason::InvalidRequest, words).at("partition"),
            ProduceError::SeveralPartitions => Self::new(Reason::InvalidRequest, words).at("producer"),
            ProduceError::Refused(refused) => refused.into(),
            ProduceError::Unknown { .. } => Self::new(Reason::OutcomeUnknown, words),
        }
    }
}

impl From<FetchError> for Problem {
    fn from(error: FetchError) -> Self {
        let words = error.to_string();
        match error {
            FetchError::Missing(missing) => missing.into(),
            FetchError::NotServing(not_serving) => not_serving.into(),
            FetchError::OffsetOutOfRange { log_start_offset, high_watermark, .. } => Self::new(Reason::OffsetOutOfRange, words)
                .with("log_start_offset", log_start_offset)
                .with("high_watermark", high_watermark),
            FetchError::Corrupt { offset, reason: BatchError::NoMemory { .. } } => {
                Self::new(Reason::Unavailable, words).with("offset", offset)
            }
            FetchError::Corrupt { offset, .. } => Self::new(Reason::Damaged, words).with("offset", offset),
            FetchError::Read(_) => Self::new(Reason::Damaged, words),
        }
    }
}

impl From<CommitError> for Problem {
    fn from(error: CommitError) -> Self {
        let words = error.to_string();
        match error {
            CommitError::Missing(missing) => missing.into(),
            CommitError::NotServing(not_serving) => not_serving.into(),
            CommitError::Refused(refused) => refused.into(),
            CommitError::Unknown { .. } => Self::new(Reason::OutcomeUnknown, words),
        }
    }
}

impl From<CommittedError> for Problem {
    fn from(error: CommittedError) -> Self {
        let words = error.to_string();
        match error {
            CommittedError::Missing(missing) => missing.into(),
            CommittedError::NotServing(not_serving) => not_serving.into(),
            CommittedError::InvalidGroup { .. } => Self::new(Reason::InvalidName, words).at("group"),
        }
    }
}

impl From<TopicError> for Problem {
    fn from(error: TopicError) -> Self {
        let words = error.to_string();
        match error {
            TopicError::Missing(missing) => missing.into(),
            TopicError::NotServing(not_serving) => not_serving.into(),
            TopicError::Refused(refused) => refused.into(),
            TopicError::PartitionRefused(refused) => refused.into(),
            TopicError::OtherPartitionCount { name, partition_count, .. } => {
                Self::new(Reason::TopicExists, words).with("topic", name).with("partition_count", partition_count)
            }
            TopicError::TooFewNodes { .. } => Self::new(Reason::InvalidConfig, words).at("replication_factor"),
            TopicError::Unknown { .. } => Self::new(Reason::OutcomeUnknown, words),
        }
    }
}

impl From<RecoverError> for Problem {
    fn from(error: RecoverError) -> Self {
        let words = error.to_string();
        match error {
            RecoverError::NotDamaged | RecoverError::HasReplicas { .. } => Self::new(Reason::NotRecoverable, words),
            RecoverError::Storage(_) => Self::new(Reason::Internal, words),
        }
    }
}

impl From<InitProducerError> for Problem {
    fn from(error: InitProducerError) -> Self {
        match error {
            InitProducerError::NotServing(not_serving) => not_serving.into(),
            InitProducerError::Refused(refused) => refused.into(),
        }
    }
}

impl From<PartitionRefusal> for Problem {
    fn from(refusal: PartitionRefusal) -> Self {
        let words = refusal.to_string();
        match refusal {
            PartitionRefusal::ProducerFenced { current_epoch, .. } => {
                Self::new(Reason::ProducerFenced, words).with("current_epoch", current_epoch)
            }
            PartitionRefusal::OutOfOrderSequence { expected, got, .. } => {
                Self::new(Reason::OutOfOrderSequence, words).with("expected", expected).with("got", got)
            }
            PartitionRefusal::UnknownProducer { .. } => Self::new(Reason::UnknownProducer, words),
            PartitionRefusal::TooManyProducers { .. } => Self::new(Reason::TooManyProducers, words),
            PartitionRefusal::OffsetsExhausted | PartitionRefusal::TooManyGroups { .. } => Self::new(Reason::LimitReached, words),
            PartitionRefusal::OffsetOutOfRange { next_offset, .. } => {
                Self::new(Reason::OffsetOutOfRange, words).with("high_watermark", next_offset)
            }
            PartitionRefusal::Fenced { epoch, member, .. } => {
                Self::new(Reason::Fenced, words).with("epoch", epoch).with("member", member)
            }
            PartitionRefusal::GroupInUse { member, .. } => Self::new(Reason::GroupInUse, words).with("member", member),
            PartitionRefusal::InvalidGroup { .. } => Self::new(Reason::InvalidName, words).at("group"),
            PartitionRefusal::InvalidMember { .. } => Self::new(Reason::InvalidName, words).at("fence.member_id"),
            PartitionRefusal::MetadataTooLarge { .. } => Self::new(Reason::InvalidRequest, words).at("metadata"),
            PartitionRefusal::Malformed(_) => Self::new(Reason::Internal, words),
        }
    }
}

impl From<ControllerRefusal> for Problem {
    fn from(refusal: ControllerRefusal) -> Self {
        let words = refusal.to_string();
        match refusal {
            ControllerRefusal::TopicExists { name, partition_count, .. } => {
                Self::new(Reason::TopicExists, words).with("topic", name).with("partition_count", partition_count)
            }
            ControllerRefusal::UnknownTopic { name } => Self::new(Reason::UnknownTopic, words).with("topic", name),
            ControllerRefusal::InvalidName { .. } => Self::new(Reason::InvalidName, words).at("name"),
            ControllerRefusal::InvalidConfig(_) => Self::new(Reason::InvalidConfig, words).at("config"),
            ControllerRefusal::InvalidPartitionCount { .. } | ControllerRefusal::NotMorePartitions { .. } => {
                Self::new(Reason::InvalidConfig, words).at("partitions")
            }
            ControllerRefusal::InvalidReplicationFactor { .. } => {
                Self::new(Reason::InvalidConfig, words).at("replication_factor")
            }
            ControllerRefusal::LimitReached { .. } | ControllerRefusal::ProducerIdsExhausted => {
                Self::new(Reason::LimitReached, words)
            }
            // The metadata changed between plan and command: the same request makes a new plan.
            ControllerRefusal::PlanOutdated { .. }
            | ControllerRefusal::InvalidReplicas { .. }
            | ControllerRefusal::UnknownNode { .. }
            | ControllerRefusal::NodeNotActive { .. }
            | ControllerRefusal::InvalidTopicId { .. } => Self::new(Reason::Unavailable, words),
            ControllerRefusal::Node(NodeRefusal::Unknown { node_id } | NodeRefusal::Removed { node_id })
            | ControllerRefusal::Move(MoveRefusal::UnknownNode { node_id }) => {
                Self::new(Reason::UnknownNode, words).with("node_id", node_id)
            }
            ControllerRefusal::Node(_) | ControllerRefusal::Move(_) => Self::new(Reason::InvalidRequest, words),
            ControllerRefusal::InvalidBlock { .. } | ControllerRefusal::Renew(_) | ControllerRefusal::Malformed(_) => {
                Self::new(Reason::Internal, words)
            }
        }
    }
}
