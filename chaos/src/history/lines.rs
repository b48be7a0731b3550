//! A history as newline-delimited JSON: one object a line, with one field that says what it is. The order of lines matters only
//! among those of one kind; of a producer's records, each has the number behind the one before.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};

use serde::{Deserialize, Serialize};

use super::{Commit, Committed, Done, FinalRead, Health, History, Poll, Produce, Replica, Seen, Watermark};

/// Why a history cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// It cannot be read at all.
    #[error("the history cannot be read: {0}")]
    Io(#[from] io::Error),
    /// A line is not what it should be.
    #[error("line {line} of the history: {reason}")]
    Line {
        /// From 1 on.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Line<'a> {
    Produce(&'a Produce),
    Poll(&'a Poll),
    Watermark(&'a Watermark),
    Commit(&'a Commit),
    Committed(&'a Committed),
    Replica(&'a Replica),
    Health(&'a Health),
    Done(&'a Done),
    FinalRead(Part<'a>),
}

/// A piece of what a final read gave.
#[derive(Serialize)]
struct Part<'a> {
    source: &'a str,
    partition: u32,
    records: &'a [Seen],
}

/// The same, read.
#[derive(Deserialize)]
struct ReadPart {
    source: String,
    partition: u32,
    records: Vec<Seen>,
}

/// Records of a final read that come in one line.
const PART_RECORDS: usize = 1_000;

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum ReadLine {
    Produce(Produce),
    Poll(Poll),
    Watermark(Watermark),
    Commit(Commit),
    Committed(Committed),
    Replica(Replica),
    Health(Health),
    Done(Done),
    FinalRead(ReadPart),
}

impl History {
    /// Writes one JSON object a line: `{"produce": …}`, `{"poll": …}` and so on.
    ///
    /// # Errors
    /// If writing fails.
    pub fn write_json(&self, mut to: impl Write) -> io::Result<()> {
        let produces = self.produces().map(Line::Produce);
        let polls = self.polls.iter().map(Line::Poll);
        let watermarks = self.watermarks.iter().map(Line::Watermark);
        let commits = self.commits.iter().map(Line::Commit).chain(self.committed.iter().map(Line::Committed));
        let nodes = self.replicas.iter().map(Line::Replica).chain(self.health.iter().map(Line::Health));
        let done = self.done.iter().map(Line::Done);
        let finals = self.final_reads.iter().flat_map(parts).map(Line::FinalRead);
        for line in produces.chain(polls).chain(watermarks).chain(commits).chain(nodes).chain(done).chain(finals) {
            serde_json::to_writer(&mut to, &line)?;
            to.write_all(b"\n")?;
        }
        to.flush()
    }

    /// Reads what [`History::write_json`] writes, or somebody else in the same way.
    ///
    /// # Errors
    /// See [`LineError`].
    pub fn read_json(mut from: impl BufRead) -> Result<Self, LineError> {
        let mut history = Self::default();
        let (mut bytes, mut line) = (Vec::new(), 0);
        loop {
            bytes.clear();
            line += 1;
            if from.read_until(b'\n', &mut bytes)? == 0 {
                return Ok(history);
            }
            let wrong = |reason: String| LineError::Line { line, reason };
            if bytes.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let read = serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
            history.add(read).map_err(wrong)?;
        }
    }

    fn add(&mut self, line: ReadLine) -> Result<(), String> {
        match line {
            ReadLine::Produce(produce) => {
                let of_producer = self.of_producer(produce.id.producer);
                if produce.id.sequence != of_producer.len() as u64 {
                    return Err(format!("record {} comes where {} is due", produce.id, of_producer.len()));
                }
                of_producer.push(produce);
            }
            ReadLine::Poll(poll) => self.polls.push(poll),
            ReadLine::Watermark(watermark) => self.watermarks.push(watermark),
            ReadLine::Commit(commit) => self.commits.push(commit),
            ReadLine::Committed(committed) => self.committed.push(committed),
            ReadLine::Replica(replica) => self.replicas.push(replica),
            ReadLine::Health(health) => self.health.push(health),
            ReadLine::Done(done) => self.done.push(done),
            ReadLine::FinalRead(ReadPart { source, partition, records }) => {
                let known = self.final_reads.iter().position(|read| read.source == source);
                if known.is_none() {
                    self.final_reads.push(FinalRead { source, partitions: BTreeMap::new() });
                }
                let at = known.unwrap_or(self.final_reads.len().saturating_sub(1));
                let Some(read) = self.final_reads.get_mut(at) else { return Ok(()) };
                read.partitions.entry(partition).or_default().extend(records);
            }
        }
        Ok(())
    }
}

/// The lines of a final read; a partition without any record has one, too.
fn parts(read: &FinalRead) -> impl Iterator<Item = Part<'_>> {
    read.partitions.iter().flat_map(move |(partition, records)| {
        let empty = records.is_empty().then_some(&records[..]);
        let part = move |records| Part { source: &read.source, partition: *partition, records };
        records.chunks(PART_RECORDS).chain(empty).map(part)
    })
}
