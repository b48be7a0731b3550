//! The words that every part of this crate shares: ids, log entries and their items.
//!
//! Nothing here knows openraft (see `log/` for the conversion) or messages (an item is opaque bytes).

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

/// One Raft group of the cluster. Group 0 is the controller. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct GroupId(pub u64);

/// One life of a group's data on this node: a local number, never reused on this node.
/// Rows and segment directories carry it, so a life that is being replaced cannot mix with the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Incarnation(pub u64);

/// A node of the cluster. Never reused.
pub type NodeId = u64;

/// One replica of a group: what votes, leads and is counted on in Raft. A node is not its replica: each time that a group
/// is placed on a node it gets another id there, and within a group no id is ever used again. So what a replica promised
/// and acknowledged binds it for as long as it is called so, and nobody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ReplicaId(pub u64);

/// A replica, and the node that it lives on for as long as it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Replica {
    /// Its identity in the group.
    pub id: ReplicaId,
    /// Where it is.
    pub node: NodeId,
}

/// The identity of a log entry. With one leader per term, term and index name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LogId {
    /// The term in which the entry was proposed.
    pub term: u64,
    /// The position in the group's log; the first entry of a log has index 0.
    pub index: u64,
}

/// What a replica promised in elections: its term, whom it voted for, and whether that vote was committed
/// (a quorum granted it, so the voted replica leads the term).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Vote {
    /// The term voted in.
    pub term: u64,
    /// The replica voted for, if any.
    pub voted_for: Option<ReplicaId>,
    /// Whether a quorum granted this vote.
    pub committed: bool,
}

/// One command inside an entry: what a machine decides about on its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Machine-defined kind of the payload. Opaque to this crate.
    pub kind: u8,
    /// The payload, shared with whoever received it: never copied on its way to the disk.
    pub payload: Bytes,
}

/// What an entry carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Nothing: a new leader's first entry.
    Blank,
    /// Commands for the group's machine, applied in order.
    Items(Arc<[Item]>),
    /// An encoded membership (encoded and decoded in `log/`).
    Membership(Bytes),
}

/// One entry of a group's Raft log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its identity.
    pub log_id: LogId,
    /// Its content.
    pub body: Body,
}

impl Vote {
    /// Whether a node that promised `before` may promise this: nothing in a term that is over, and in one term nothing to
    /// anybody else, unless a quorum has elected that one.
    #[must_use]
    pub fn may_follow(self, before: Option<Self>) -> bool {
        const NOBODY: ReplicaId = ReplicaId(0);
        let Some(before) = before else { return true };
        let leader = before.voted_for.filter(|leader| *leader != NOBODY);
        let same = leader.is_none_or(|leader| self.voted_for == Some(leader)) && self.committed == before.committed;
        self.term > before.term || self.term == before.term && (same || self.committed && !before.committed)
    }
}

impl Entry {
    /// Bytes of payload in this entry, without any framing.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        match &self.body {
            Body::Blank => 0,
            Body::Items(items) => items.iter().map(|item| item.payload.len()).sum(),
            Body::Membership(bytes) => bytes.len(),
        }
    }
}

/// What apply decided about an item: whether its payload stays readable, and under which offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The payload is dead after apply (a command whose effect is in rows, a refused or duplicate batch).
    Drop,
    /// The payload stays readable.
    Keep(Kept),
}

/// Where a kept item is found again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Offset of its first record.
    pub base_offset: u64,
    /// Number of offsets it covers, at least 1.
    pub offset_count: u32,
    /// Largest record timestamp inside, in milliseconds since the Unix epoch.
    pub max_timestamp_ms: i64,
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "replica {} on node {}", self.id, self.node)
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "T{}-{}", self.term, self.index)
    }
}
