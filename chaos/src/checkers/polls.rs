//! What readers get: nothing is skipped and nothing comes again, neither between two answers to a reader (`poll-skip`,
//! `nonmonotonic-poll`) nor within one (`int-poll-skip`, `int-nonmonotonic-poll`). Every offset of these topics holds a record,
//! and each reader begins with the first. Names as in Jepsen's workload for Kafka.

use std::collections::HashMap;

use crate::history::{History, Reader, Seen};

pub(super) fn skips(history: &History) -> Vec<String> {
    steps(history, |step| step.is_first_of_answer && step.seen.offset > step.due).map(Step::skips).collect()
}

pub(super) fn skips_within(history: &History) -> Vec<String> {
    steps(history, |step| !step.is_first_of_answer && step.seen.offset > step.due).map(Step::skips).collect()
}

pub(super) fn goes_back(history: &History) -> Vec<String> {
    steps(history, |step| step.is_first_of_answer && step.seen.offset < step.due).map(Step::goes_back).collect()
}

pub(super) fn goes_back_within(history: &History) -> Vec<String> {
    steps(history, |step| !step.is_first_of_answer && step.seen.offset < step.due).map(Step::goes_back).collect()
}

/// A record that somebody got, and the offset that was due.
struct Step<'a> {
    reader: Reader<'a>,
    partition: u32,
    seen: Seen,
    due: u64,
    is_first_of_answer: bool,
}

impl Step<'_> {
    fn skips(self) -> String {
        let Self { reader, partition, seen, due, .. } = self;
        format!("{reader} got {partition}:{}, but nothing at {partition}:{due} before", seen.offset)
    }

    fn goes_back(self) -> String {
        let Self { reader, partition, seen, due, .. } = self;
        format!("{reader} got {partition}:{} where {partition}:{due} was due", seen.offset)
    }
}

fn steps<'a>(history: &'a History, wanted: impl Fn(&Step<'a>) -> bool + 'a) -> impl Iterator<Item = Step<'a>> {
    let polls = history.polls.iter().map(|poll| (Reader::Follower(poll.reader), poll.partition, &poll.records));
    let finals = history.final_reads.iter().flat_map(|read| {
        read.partitions.iter().map(move |(partition, records)| (Reader::Final(&read.source), *partition, records))
    });
    let mut dues: HashMap<(Reader<'a>, u32), u64> = HashMap::new();
    let mut found = Vec::new();
    for (reader, partition, records) in polls.chain(finals) {
        let due = dues.entry((reader, partition)).or_default();
        for (place, seen) in records.iter().enumerate() {
            let step = Step { reader, partition, seen: *seen, due: *due, is_first_of_answer: place == 0 };
            if wanted(&step) {
                found.push(step);
            }
            *due = seen.offset + 1;
        }
    }
    found.into_iter()
}
