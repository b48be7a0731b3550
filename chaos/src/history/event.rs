//! What can be in a history: what clients asked and were told, and what nodes said of themselves.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Id, Micros};

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was acknowledged at this offset: it must be read there.
    Ok(u64),
    /// It was certainly not written: it must not be read.
    Fail,
    /// Not known: it may be read, once, and it may appear at any later time.
    Info,
}

/// One record written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Produce {
    /// Which record; its producer is the process.
    pub id: Id,
    /// Rises when its producer had to be made anew.
    pub session: u32,
    /// What its producer sent together has the same number, and nothing else of that producer.
    pub batch: u32,
    /// The node that its client was given first.
    pub node: u64,
    /// Where it was written to.
    pub partition: u32,
    /// When it was handed over.
    pub invoked: Micros,
    /// When its outcome came.
    pub completed: Option<Micros>,
    /// What came.
    pub outcome: Outcome,
}

/// A record that was read. Written down as `[offset, [producer, sequence]]`, or `[offset, null]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u64, Option<(u32, u64)>)", into = "(u64, Option<(u32, u64)>)")]
pub struct Seen {
    /// Its offset.
    pub offset: u64,
    /// Whose it is; none if its bytes are nobody's.
    pub id: Option<Id>,
}

impl From<(u64, Option<(u32, u64)>)> for Seen {
    fn from((offset, id): (u64, Option<(u32, u64)>)) -> Self {
        Self { offset, id: id.map(|(producer, sequence)| Id { producer, sequence }) }
    }
}

impl From<Seen> for (u64, Option<(u32, u64)>) {
    fn from(seen: Seen) -> Self {
        (seen.offset, seen.id.map(|id| (id.producer, id.sequence)))
    }
}

/// One answer to a reader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Poll {
    /// Which reader.
    pub reader: u32,
    /// Rises when its consumer had to be made anew. It goes on where the former one was.
    pub session: u32,
    /// The node that its client was given first.
    pub node: u64,
    /// When it was asked for.
    pub invoked: Micros,
    /// When it came.
    pub completed: Micros,
    /// Whose records.
    pub partition: u32,
    /// One behind the last readable offset, as said with the records.
    pub high_watermark: u64,
    /// Whether that comes from a leader. A replica that is read where nobody can lead may know of less than one before.
    pub end_is_certain: bool,
    /// The records.
    pub records: Vec<Seen>,
}

/// An answer to a question for a partition's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watermark {
    /// Who asked: each observer asks one question after the other.
    pub observer: u32,
    /// When it asked.
    pub invoked: Micros,
    /// When the answer came.
    pub completed: Micros,
    /// The partition.
    pub partition: u32,
    /// One behind the last readable offset.
    pub high_watermark: u64,
}

/// Everything there is, read with a new client after all was healed and written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinalRead {
    /// From where: a node, or a replica.
    pub source: String,
    /// Each partition from its start to its end.
    pub partitions: BTreeMap<u32, Vec<Seen>>,
}

/// A group's position that somebody stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Whose position: a group is a number here.
    pub group: u32,
    /// Which owner, by the epoch that it was given; none: it is nobody's.
    pub epoch: Option<u64>,
    /// The partition.
    pub partition: u32,
    /// The next offset to read.
    pub offset: u64,
    /// Whether it is to go back on purpose.
    pub resets: bool,
    /// When it was asked for.
    pub invoked: Micros,
    /// When the answer came.
    pub completed: Option<Micros>,
    /// What came: the offset says nothing.
    pub outcome: Outcome,
}

/// An answer to a question for a group's position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// The group.
    pub group: u32,
    /// When it was asked.
    pub invoked: Micros,
    /// When the answer came.
    pub completed: Micros,
    /// The partition.
    pub partition: u32,
    /// The next offset to read; none: nothing was stored.
    pub offset: Option<u64>,
    /// One behind the last readable offset, as said with it.
    pub high_watermark: u64,
}

/// What a replica said of itself at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// Its node.
    pub node: u64,
    /// Which process of the node, counted.
    pub boot: u32,
    /// Its group.
    pub group: u64,
    /// Which replica on that node, counted: another one may begin with nothing.
    pub life: u32,
    /// When.
    pub at: Micros,
    /// The term that it is in.
    pub term: u64,
    /// How much is committed, as it knows.
    pub committed: u64,
}

/// What a node said of its cluster's health, and what is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// The node.
    pub node: u64,
    /// From when on it said so.
    pub from: Micros,
    /// Until when.
    pub until: Micros,
    /// Whether it said that all is well.
    pub healthy: bool,
    /// What was wrong all the time, as is known; none: nothing.
    pub ailment: Option<String>,
}

/// What was done to the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// When it began.
    pub at: Micros,
    /// When it was over.
    pub until: Micros,
    /// What.
    pub what: String,
}
