//! Between openraft's types and ours. Stored bytes decode with `Result`: what comes from a disk is checked.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use bytes::Bytes;
use openraft::entry::RaftEntry as _;
use openraft::vote::{RaftLeaderId as _, RaftVote as _};
use openraft::{EntryPayload, Membership};
use prost::Message;

use super::type_config::{Command, OnNode, RaftEntry, RaftLogId, RaftMembership, RaftVote, TypeConfig};
use crate::types::{Body, Entry, LogId, Replica, ReplicaId, Vote};

type LeaderId = openraft::type_config::alias::LeaderIdOf<TypeConfig>;
type CommittedLeaderId = openraft::type_config::alias::CommittedLeaderIdOf<TypeConfig>;

/// openraft's membership under our configuration.
type Members = Membership<ReplicaId, OnNode>;

/// A stored membership: joint configurations and all replicas, learners included.
#[derive(Clone, PartialEq, prost::Message)]
struct MembershipValue {
    #[prost(message, repeated, tag = "1")]
    configs: Vec<Voters>,
    /// Of older versions, in which a replica had the id of its node. Not written any more.
    #[prost(uint64, repeated, tag = "2")]
    nodes: Vec<u64>,
    /// Log id of the entry that carries it; absent inside that entry itself.
    #[prost(uint64, optional, tag = "3")]
    term: Option<u64>,
    #[prost(uint64, optional, tag = "4")]
    index: Option<u64>,
    #[prost(message, repeated, tag = "5")]
    replicas: Vec<ReplicaValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Voters {
    #[prost(uint64, repeated, tag = "1")]
    replica_ids: Vec<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ReplicaValue {
    #[prost(uint64, tag = "1")]
    replica_id: u64,
    #[prost(uint64, tag = "2")]
    node_id: u64,
}

pub(crate) fn log_id_to_raft(id: LogId) -> RaftLogId {
    RaftLogId::new(CommittedLeaderId::new(id.term), id.index)
}

pub(crate) fn log_id_from_raft(id: &RaftLogId) -> LogId {
    LogId { term: id.committed_leader_id().term, index: id.index }
}

pub(crate) fn vote_to_raft(vote: Vote) -> RaftVote {
    let leader = LeaderId::new(vote.term, vote.voted_for.unwrap_or_default());
    RaftVote::from_leader_id(leader, vote.committed)
}

pub(crate) fn vote_from_raft(vote: &RaftVote) -> Vote {
    let leader = vote.leader_id();
    Vote { term: leader.term, voted_for: Some(leader.voted_for), committed: vote.is_committed() }
}

pub(crate) fn entry_from_raft(entry: RaftEntry) -> Entry {
    let log_id = log_id_from_raft(&entry.log_id);
    let body = match entry.payload {
        EntryPayload::Blank => Body::Blank,
        EntryPayload::Normal(Command(items)) => Body::Items(items),
        EntryPayload::Membership(membership) => Body::Membership(encode_membership(&membership, None)),
    };
    Entry { log_id, body }
}

pub(crate) fn entry_to_raft(entry: &Entry) -> io::Result<RaftEntry> {
    let payload = match &entry.body {
        Body::Blank => EntryPayload::Blank,
        Body::Items(items) => EntryPayload::Normal(Command(items.clone())),
        Body::Membership(bytes) => EntryPayload::Membership(decode_membership(bytes)?.membership().clone()),
    };
    Ok(RaftEntry::new(log_id_to_raft(entry.log_id), payload))
}

pub(crate) fn encode_stored_membership(stored: &RaftMembership) -> Bytes {
    encode_membership(stored.membership(), stored.log_id().as_ref().map(log_id_from_raft))
}

/// The entry with which a group begins: no leader proposed it, and it is the same on each of `voters`.
pub(crate) fn first_entry(voters: &[Replica]) -> io::Result<Entry> {
    let membership = all_voters(voters)?;
    Ok(Entry { log_id: LogId::default(), body: Body::Membership(encode_membership(&membership, None)) })
}

/// A stored membership as of `last`: `replica` alone.
pub(crate) fn sole_voter(replica: Replica, last: LogId) -> io::Result<Bytes> {
    Ok(encode_membership(&all_voters(&[replica])?, Some(last)))
}

fn all_voters(voters: &[Replica]) -> io::Result<Members> {
    let ids = voters.iter().map(|replica| replica.id).collect();
    Membership::new(vec![ids], members(voters)).map_err(io::Error::other)
}

/// Replicas as openraft is told of them.
pub(crate) fn members(replicas: &[Replica]) -> BTreeMap<ReplicaId, OnNode> {
    replicas.iter().map(|replica| (replica.id, OnNode(replica.node))).collect()
}

fn encode_membership(membership: &Members, log_id: Option<LogId>) -> Bytes {
    let configs = membership.get_joint_config().iter();
    let value = MembershipValue {
        configs: configs.map(|voters| Voters { replica_ids: voters.iter().map(|id| id.0).collect() }).collect(),
        nodes: Vec::new(),
        term: log_id.map(|id| id.term),
        index: log_id.map(|id| id.index),
        replicas: membership.nodes().map(|(id, node)| ReplicaValue { replica_id: id.0, node_id: node.0 }).collect(),
    };
    Bytes::from(value.encode_to_vec())
}

pub(crate) fn decode_membership(bytes: &Bytes) -> io::Result<RaftMembership> {
    let invalid = |reason: String| io::Error::new(io::ErrorKind::InvalidData, format!("stored membership: {reason}"));
    let value = MembershipValue::decode(bytes.clone()).map_err(|error| invalid(error.to_string()))?;
    let ids = |voters: Voters| voters.replica_ids.into_iter().map(ReplicaId).collect();
    let configs: Vec<BTreeSet<ReplicaId>> = value.configs.into_iter().map(ids).collect();
    let of_before = value.nodes.into_iter().map(|node_id| (ReplicaId(node_id), OnNode(node_id)));
    let replicas = value.replicas.into_iter().map(|replica| (ReplicaId(replica.replica_id), OnNode(replica.node_id)));
    let members: BTreeMap<ReplicaId, OnNode> = of_before.chain(replicas).collect();
    let membership = Membership::new(configs, members).map_err(|error| invalid(error.to_string()))?;
    let log_id = value.term.zip(value.index).map(|(term, index)| log_id_to_raft(LogId { term, index }));
    Ok(RaftMembership::new(log_id, membership))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    /// Voters 1 and 2, learner 7, in entry T3-300: bytes that the version before replica ids wrote.
    const OF_BEFORE: &[u8] = &[10, 4, 10, 2, 1, 2, 18, 3, 1, 2, 7, 24, 3, 32, 172, 2];

    #[test]
    fn a_membership_of_before_names_replicas_as_their_nodes() {
        let stored = decode_membership(&Bytes::from_static(OF_BEFORE)).unwrap();
        let membership = stored.membership();
        let found: Vec<(u64, u64)> = membership.nodes().map(|(id, node)| (id.0, node.0)).collect();
        assert_eq!(found, [(1, 1), (2, 2), (7, 7)]);
        assert!(membership.voter_ids().eq([ReplicaId(1), ReplicaId(2)]));
        assert_eq!(stored.log_id().as_ref().map(log_id_from_raft), Some(LogId { term: 3, index: 300 }));
        let again = decode_membership(&encode_stored_membership(&stored)).unwrap();
        assert_eq!(again, stored, "it is written in the form of now");
    }

    #[test]
    fn a_membership_says_where_its_replicas_live() {
        let voters = [Replica { id: ReplicaId(41), node: 3 }, Replica { id: ReplicaId(1), node: 1 }];
        let Body::Membership(bytes) = first_entry(&voters).unwrap().body else { unreachable!("it is a membership") };
        let stored = decode_membership(&bytes).unwrap();
        assert_eq!(stored.membership().get_node(&ReplicaId(41)), Some(&OnNode(3)));
        assert_eq!(encode_membership(stored.membership(), None), bytes);
    }
}
