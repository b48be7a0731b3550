//! The types with which openraft is used here.

use std::fmt;
use std::sync::Arc;

use openraft::impls::leader_id_std;

use crate::machine::Outcome;
use crate::types::{Item, NodeId, ReplicaId};

openraft::declare_raft_types!(
    /// One leader per term (`leader_id_std`), so that term and index name an entry.
    pub TypeConfig:
        D = Command,
        R = Outcomes,
        NodeId = ReplicaId,
        Node = OnNode,
        Term = u64,
        LeaderId = leader_id_std::LeaderId<u64, ReplicaId>,
);

/// Where a replica lives, in openraft's memberships: so a group knows by itself over which link each of its replicas is
/// reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnNode(pub NodeId);

/// The application data of an entry: its items, shared between log, replication and apply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command(pub Arc<[Item]>);

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: usize = self.0.iter().map(|item| item.payload.len()).sum();
        write!(f, "{} items, {bytes} bytes", self.0.len())
    }
}

/// What apply answers to an entry's proposer: one outcome for each item, in order.
pub struct Outcomes(pub Vec<Outcome>);

impl fmt::Debug for Outcomes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} outcomes", self.0.len())
    }
}

/// openraft's log id under our configuration.
pub(crate) type RaftLogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
/// openraft's vote under our configuration.
pub(crate) type RaftVote = openraft::type_config::alias::VoteOf<TypeConfig>;
/// openraft's entry under our configuration.
pub(crate) type RaftEntry = openraft::type_config::alias::EntryOf<TypeConfig>;
/// openraft's membership with the log id of its entry.
pub(crate) type RaftMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
