//! The broker as plain Rust: produce, fetch, groups, topics and cluster over Raft groups and deterministic machines.
//!
//! Wire types stop at the edge of the server; openraft stays inside flotilla-raft. This crate is where raft and
//! machines meet ([`hosts`]), and what any front end (gRPC today) is built on.

mod broker;
mod clock;
mod cluster;
mod control;
mod describe;
mod enrol;
mod error;
mod establish;
mod fetch;
mod founding;
mod groups;
mod hand_over;
mod heal;
mod hosts;
mod leaders;
mod moves;
mod open;
mod partition;
mod peer_calls;
mod peer_service;
mod produce;
mod producer_ids;
mod reader;
mod reconcile;
mod recover;
mod release;
mod retention;
mod revive;
mod scrub;
mod stats;
mod steward;
mod surroundings;
#[cfg(test)]
mod test_node;
mod topic_ref;
mod topics;
mod troubles;
mod verify;

pub use broker::Broker;
pub use cluster::{ClusterDescription, NodeDescription, PartitionHealth};
pub use error::{
    CommitError, CommittedError, FetchError, InitProducerError, NotServing, OpenError, ProduceError, RecoverError, TopicError,
    TopicMissing,
};
pub use fetch::{Fetched, FetchedBatch, FetchedRecord, PartitionOffset, Position, Room, Stop};
pub use flotilla_machines::controller::{ControllerRefusal, MoveRefusal, NodeRefusal, RenewRefusal};
pub use flotilla_machines::controller::{Image, NodeState, Topic, TopicConfig, TopicId};
pub use flotilla_machines::partition::PartitionRefusal;
pub use flotilla_raft::disk::error::Class;
pub use flotilla_raft::failure::Failure;
pub use flotilla_raft::figures::{Distribution, JournalFigures, TransferFigures};
pub use flotilla_raft::journal::JournalOptions;
pub use flotilla_raft::registry::Salvaged;
pub use flotilla_raft::segments::SegmentOptions;
pub use flotilla_raft::troubles::{Subject, Trouble, TroubleFigures, Troubles};
pub use flotilla_records::{Codec, Header, ProducerStamp, TimestampType};
pub use founding::{Home, Member, Newcomer};
pub use groups::{Commit, CommittedOffset};
pub use open::BrokerOptions;
pub use partition::Ends;
pub use peer_service::PeerService;
pub use produce::{Part, Payload, Prepared, Produce, ProduceLimits, ProducedRecord, Submitted};
pub use reader::PartitionReader;
pub use stats::{BrokerStats, PartitionStats};
pub use surroundings::{Clock, OpenState, Surroundings};
pub use topic_ref::TopicRef;
pub use topics::{ConfigChange, CreateTopic, CreatedTopic, PartitionDescription, PartitionTime, TopicDescription};
pub use troubles::{ClusterTroubles, NodeTrouble};
pub use verify::{Finding, VerifiedGroup};

/// A record as a client sends it: plain, not yet part of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewRecord {
    /// Chooses the partition where none is given.
    pub key: Option<bytes::Bytes>,
    /// Absent is a tombstone.
    pub value: Option<bytes::Bytes>,
    /// In order; names may repeat.
    pub headers: Vec<Header>,
    /// Milliseconds since the Unix epoch; the server's time where absent.
    pub timestamp_ms: Option<i64>,
}
