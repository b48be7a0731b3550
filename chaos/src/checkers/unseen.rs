//! Unseen: a record was acknowledged, and a reader that had the time to come to the end never got so far.

use std::collections::BTreeMap;

use crate::history::History;

pub(super) fn check(history: &History) -> Vec<String> {
    let mut ends: BTreeMap<String, BTreeMap<u32, u64>> = BTreeMap::new();
    for poll in &history.polls {
        let end = ends.entry(format!("reader {}", poll.reader)).or_default().entry(poll.partition).or_default();
        *end = poll.records.iter().map(|seen| seen.offset + 1).max().unwrap_or_default().max(*end);
    }
    for read in &history.final_reads {
        let end = |records: &Vec<crate::history::Seen>| records.iter().map(|seen| seen.offset + 1).max().unwrap_or_default();
        let partitions = read.partitions.iter().map(|(partition, records)| (*partition, end(records)));
        ends.insert(format!("the final read from {}", read.source), partitions.collect());
    }
    let mut found = Vec::new();
    for (produce, offset) in history.acked() {
        for (reader, ends) in &ends {
            let end = ends.get(&produce.partition).copied().unwrap_or_default();
            if offset >= end {
                let (id, partition) = (produce.id, produce.partition);
                found.push(format!("{id} was acknowledged at {partition}:{offset}, but {reader} ended before offset {end}"));
            }
        }
    }
    found
}
