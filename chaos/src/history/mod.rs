//! What clients did and what they were told, in the times of one clock. Checkers judge by nothing else.
//!
//! An unknown outcome is no failure: such a record may be there or not, but once at most. It counts as failed only where it
//! provably was not written.

mod clock;
pub mod value;

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::Serialize;

pub use clock::{Clock, Micros, micros};
pub use value::Id;

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
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
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Produce {
    /// Which record; its producer is the process.
    pub id: Id,
    /// Rises when its producer had to be made anew.
    pub session: u32,
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

/// A record that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// Its offset.
    pub offset: u64,
    /// Whose it is; none if its bytes are nobody's.
    pub id: Option<Id>,
}

/// One answer to a reader.
#[derive(Debug, Clone, Serialize)]
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
#[derive(Debug, Clone, Copy, Serialize)]
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
#[derive(Debug, Clone, Serialize)]
pub struct FinalRead {
    /// From where: a node, or a replica.
    pub source: String,
    /// Each partition from its start to its end.
    pub partitions: BTreeMap<u32, Vec<Seen>>,
}

/// The whole history of a run.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// By producer and sequence.
    produces: Vec<Vec<Produce>>,
    /// In the order of their completion.
    pub polls: Vec<Poll>,
    /// In the order of their completion.
    pub watermarks: Vec<Watermark>,
    /// One per node or replica.
    pub final_reads: Vec<FinalRead>,
}

/// How many writes ended in which way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Acknowledged.
    pub ok: u64,
    /// Certainly not written.
    pub fail: u64,
    /// Not known.
    pub info: u64,
}

impl History {
    /// Notes that a record is about to be sent to `partition`; until it is resolved, its outcome is unknown. Returns its id.
    pub fn invoke(&mut self, producer: u32, session: u32, node: u64, partition: u32, now: Micros) -> Id {
        let index = producer as usize;
        if self.produces.len() <= index {
            self.produces.resize_with(index + 1, Vec::new);
        }
        let Some(of_producer) = self.produces.get_mut(index) else { return Id { producer, sequence: 0 } };
        let id = Id { producer, sequence: of_producer.len() as u64 };
        of_producer.push(Produce { id, session, node, partition, invoked: now, completed: None, outcome: Outcome::Info });
        id
    }

    /// Notes what became of a record.
    pub fn resolve(&mut self, id: Id, outcome: Outcome, now: Micros) {
        let of_producer = self.produces.get_mut(id.producer as usize);
        if let Some(produce) = of_producer.and_then(|sent| sent.get_mut(id.sequence as usize)) {
            produce.completed = Some(now);
            produce.outcome = outcome;
        }
    }

    /// The record with this id, if it was sent.
    #[must_use]
    pub fn produce(&self, id: Id) -> Option<&Produce> {
        self.produces.get(id.producer as usize)?.get(usize::try_from(id.sequence).ok()?)
    }

    /// Every record sent.
    pub fn produces(&self) -> impl Iterator<Item = &Produce> {
        self.produces.iter().flatten()
    }

    /// Every acknowledged record, and its offset.
    pub fn acked(&self) -> impl Iterator<Item = (&Produce, u64)> {
        self.produces().filter_map(|produce| match produce.outcome {
            Outcome::Ok(offset) => Some((produce, offset)),
            Outcome::Fail | Outcome::Info => None,
        })
    }

    /// Every record that anybody ever read: who, which partition, what.
    pub fn seen(&self) -> impl Iterator<Item = (Reader<'_>, u32, &Seen)> {
        let polls = self.polls.iter().flat_map(|poll| {
            let who = Reader::Follower(poll.reader);
            poll.records.iter().map(move |seen| (who, poll.partition, seen))
        });
        let finals = self.final_reads.iter().flat_map(|read| {
            read.partitions.iter().flat_map(move |(partition, records)| {
                records.iter().map(move |seen| (Reader::Final(&read.source), *partition, seen))
            })
        });
        polls.chain(finals)
    }

    /// How many writes ended in which way.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for produce in self.produces() {
            let counter = match produce.outcome {
                Outcome::Ok(_) => &mut counts.ok,
                Outcome::Fail => &mut counts.fail,
                Outcome::Info => &mut counts.info,
            };
            *counter += 1;
        }
        counts
    }

    /// Writes one JSON object a line: `{"produce": …}`, `{"poll": …}`, `{"watermark": …}`, `{"final_read": …}`.
    ///
    /// # Errors
    /// If writing fails.
    pub fn write_json(&self, mut to: impl Write) -> io::Result<()> {
        #[derive(Serialize)]
        #[serde(rename_all = "snake_case")]
        enum Line<'a> {
            Produce(&'a Produce),
            Poll(&'a Poll),
            Watermark(&'a Watermark),
            FinalRead(&'a FinalRead),
        }
        let produces = self.produces().map(Line::Produce);
        let polls = self.polls.iter().map(Line::Poll);
        let watermarks = self.watermarks.iter().map(Line::Watermark);
        let finals = self.final_reads.iter().map(Line::FinalRead);
        for line in produces.chain(polls).chain(watermarks).chain(finals) {
            serde_json::to_writer(&mut to, &line)?;
            to.write_all(b"\n")?;
        }
        to.flush()
    }
}

/// Who read a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader<'a> {
    /// A reader of the workload.
    Follower(u32),
    /// One of the reads at the end.
    Final(&'a str),
}

impl std::fmt::Display for Reader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Follower(reader) => write!(f, "reader {reader}"),
            Self::Final(source) => write!(f, "the final read from {source}"),
        }
    }
}
