//! Between openraft's types and ours. Stored bytes decode with `Result`: what comes from a disk is checked.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use bytes::Bytes;
use openraft::entry::RaftEntry as _;
use openraft::impls::EmptyNode;
use openraft::vote::{RaftLeaderId as _, RaftVote as _};
use openraft::{EntryPayload, Membership};
use prost::Message;

use super::type_config::{Command, RaftEntry, RaftLogId, RaftMembership, RaftVote, TypeConfig};
use crate::types::{Body, Entry, LogId, Vote};

type LeaderId = openraft::type_config::alias::LeaderIdOf<TypeConfig>;
type CommittedLeaderId = openraft::type_config::alias::CommittedLeaderIdOf<TypeConfig>;

/// A stored membership: joint configurations and all nodes, learners included.
#[derive(Clone, PartialEq, prost::Message)]
struct MembershipValue {
    #[prost(message, repeated, tag = "1")]
    configs: Vec<Voters>,
    #[prost(uint64, repeated, tag = "2")]
    nodes: Vec<u64>,
    /// Log id of the entry that carries it; absent inside that entry itself.
    #[prost(uint64, optional, tag = "3")]
    term: Option<u64>,
    #[prost(uint64, optional, tag = "4")]
    index: Option<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Voters {
    #[prost(uint64, repeated, tag = "1")]
    node_ids: Vec<u64>,
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
pub(crate) fn first_entry(voters: &[u64]) -> io::Result<Entry> {
    let nodes: BTreeMap<u64, EmptyNode> = voters.iter().map(|id| (*id, EmptyNode::new())).collect();
    let membership = Membership::new(vec![voters.iter().copied().collect()], nodes).map_err(io::Error::other)?;
    Ok(Entry { log_id: LogId::default(), body: Body::Membership(encode_membership(&membership, None)) })
}

/// A stored membership as of `last`: `node` alone.
pub(crate) fn sole_voter(node: u64, last: LogId) -> io::Result<Bytes> {
    let membership = Membership::new(vec![BTreeSet::from([node])], BTreeMap::from([(node, EmptyNode::new())]));
    Ok(encode_membership(&membership.map_err(io::Error::other)?, Some(last)))
}

fn encode_membership(membership: &Membership<u64, EmptyNode>, log_id: Option<LogId>) -> Bytes {
    let configs = membership.get_joint_config().iter();
    let value = MembershipValue {
        configs: configs.map(|voters| Voters { node_ids: voters.iter().copied().collect() }).collect(),
        nodes: membership.nodes().map(|(id, _)| *id).collect(),
        term: log_id.map(|id| id.term),
        index: log_id.map(|id| id.index),
    };
    Bytes::from(value.encode_to_vec())
}

pub(crate) fn decode_membership(bytes: &Bytes) -> io::Result<RaftMembership> {
    let invalid = |reason: String| io::Error::new(io::ErrorKind::InvalidData, format!("stored membership: {reason}"));
    let value = MembershipValue::decode(bytes.clone()).map_err(|error| invalid(error.to_string()))?;
    let configs: Vec<BTreeSet<u64>> = value.configs.into_iter().map(|voters| voters.node_ids.into_iter().collect()).collect();
    let nodes: BTreeMap<u64, EmptyNode> = value.nodes.into_iter().map(|id| (id, EmptyNode::new())).collect();
    let membership = Membership::new(configs, nodes).map_err(|error| invalid(error.to_string()))?;
    let log_id = value.term.zip(value.index).map(|(term, index)| log_id_to_raft(LogId { term, index }));
    Ok(RaftMembership::new(log_id, membership))
}
