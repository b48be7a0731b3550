//! Unseen: a record was acknowledged, and a reader that had the time to come to the end never got so far.

use std::collections::BTreeMap;

use crate::history::{History, Reader};

pub(super) fn check(history: &History) -> Vec<String> {
    // Who reads anything reads everything.
    let mut ends: BTreeMap<Reader<'_>, BTreeMap<u32, u64>> = BTreeMap::new();
    for poll in &history.polls {
        ends.entry(Reader::Follower(poll.reader)).or_default();
    }
    for read in &history.final_reads {
        ends.entry(Reader::Final(&read.source)).or_default();
    }
    for (reader, partition, seen) in history.seen() {
        let end = ends.entry(reader).or_default().entry(partition).or_default();
        *end = (seen.offset + 1).max(*end);
    }
    // The last offset that all have reached, so that most records are looked at once.
    let mut reached: BTreeMap<u32, u64> = BTreeMap::new();
    let mut found = Vec::new();
    for (produce, offset) in history.acked() {
        let partition = produce.partition;
        let end_of = |ends: &BTreeMap<u32, u64>| ends.get(&partition).copied().unwrap_or_default();
        let all = *reached.entry(partition).or_insert_with(|| ends.values().map(end_of).min().unwrap_or(u64::MAX));
        if offset < all {
            continue;
        }
        for (reader, end) in ends.iter().map(|(reader, ends)| (reader, end_of(ends))).filter(|(_, end)| offset >= *end) {
            found
                .push(format!("{} was acknowledged at {partition}:{offset}, but {reader} ended before offset {end}", produce.id));
        }
    }
    found
}
