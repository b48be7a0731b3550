//! What clients did and what they were told, in the times of one clock. Checkers judge by nothing else.
//!
//! An unknown outcome is no failure: such a record may be there or not, but once at most. It counts as failed only where it
//! provably was not written.

//!
//! `event.rs` says what can be in it, `lines.rs` how it is written down.

mod clock;
mod event;
mod lines;
pub mod value;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use clock::{Clock, Micros, micros};
pub use event::{Commit, Committed, Done, FinalRead, Health, Outcome, Poll, Produce, Replica, Seen, Watermark};
pub use lines::LineError;
pub use value::Id;

/// The whole history of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// By producer and sequence.
    produces: BTreeMap<u32, Vec<Produce>>,
    /// In the order of their completion.
    pub polls: Vec<Poll>,
    /// In the order of their completion.
    pub watermarks: Vec<Watermark>,
    /// In the order of their completion.
    pub commits: Vec<Commit>,
    /// In the order of their completion.
    pub committed: Vec<Committed>,
    /// In the order of time.
    pub replicas: Vec<Replica>,
    /// In the order of time.
    pub health: Vec<Health>,
    /// In the order of their beginning.
    pub done: Vec<Done>,
    /// One per node or replica.
    pub final_reads: Vec<FinalRead>,
}

/// Who sends.
#[derive(Debug, Clone, Copy)]
pub struct Sender {
    /// The producer.
    pub producer: u32,
    /// Rises when it had to be made anew.
    pub session: u32,
    /// The node that its client was given first.
    pub node: u64,
}

/// How many writes ended in which way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
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
        let ids = self.invoke_together(Sender { producer, session, node }, partition, 1, now);
        ids.first().copied().unwrap_or(Id { producer, sequence: 0 })
    }

    /// The same for records that are sent together.
    pub fn invoke_together(&mut self, by: Sender, partition: u32, count: usize, now: Micros) -> Vec<Id> {
        let of_producer = self.of_producer(by.producer);
        let batch = of_producer.last().map_or(0, |last| last.batch + 1);
        let Sender { producer, session, node } = by;
        let first = of_producer.len() as u64;
        let ids: Vec<Id> = (first..).take(count).map(|sequence| Id { producer, sequence }).collect();
        of_producer.extend(ids.iter().map(|id| {
            let (invoked, outcome) = (now, Outcome::Info);
            Produce { id: *id, session, batch, node, partition, invoked, completed: None, outcome }
        }));
        ids
    }

    fn of_producer(&mut self, producer: u32) -> &mut Vec<Produce> {
        self.produces.entry(producer).or_default()
    }

    /// Notes what became of a record.
    pub fn resolve(&mut self, id: Id, outcome: Outcome, now: Micros) {
        let of_producer = self.produces.get_mut(&id.producer);
        if let Some(produce) = of_producer.and_then(|sent| sent.get_mut(id.sequence as usize)) {
            produce.completed = Some(now);
            produce.outcome = outcome;
        }
    }

    /// The record with this id, if it was sent.
    #[must_use]
    pub fn produce(&self, id: Id) -> Option<&Produce> {
        self.produces.get(&id.producer)?.get(usize::try_from(id.sequence).ok()?)
    }

    /// Every record sent.
    pub fn produces(&self) -> impl Iterator<Item = &Produce> {
        self.produces.values().flatten()
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
}

/// Who read a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
