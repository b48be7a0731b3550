//! Why a replica was not replaced by another one on its node.

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenewRefusal {
    /// It is no replica any more, or never was.
    #[error("Raft group {group_id} has no replica {replica_id}: it was replaced already, or moved away")]
    Unknown {
        /// The group.
        group_id: u64,
        /// The replica.
        replica_id: u64,
    },
    /// What it had would be lost.
    #[error(
        "replica {replica_id} is the last one of Raft group {group_id} that the group counts on: nobody else is known to have what \
         it had"
    )]
    Last {
        /// The group.
        group_id: u64,
        /// The replica.
        replica_id: u64,
    },
    /// Replicas have the ids of their nodes.
    #[error("replicas have no ids of their own yet: try again")]
    NoIdsYet,
}
