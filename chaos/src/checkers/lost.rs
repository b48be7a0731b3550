//! Lost write: a record was acknowledged, what lies behind it is read, and it is not.

use crate::history::{FinalRead, History, Id};

pub(super) fn check(history: &History) -> Vec<String> {
    history.final_reads.iter().flat_map(|read| missing(history, read)).collect()
}

fn missing(history: &History, read: &FinalRead) -> Vec<String> {
    let mut present: Vec<Id> = read.partitions.values().flatten().filter_map(|seen| seen.id).collect();
    present.sort_unstable();
    let lost = history.acked().filter(|(produce, offset)| {
        let end = read.partitions.get(&produce.partition).and_then(|records| records.last());
        end.is_some_and(|last| last.offset >= *offset) && present.binary_search(&produce.id).is_err()
    });
    let source = &read.source;
    lost.map(|(produce, offset)| {
        let (id, partition) = (produce.id, produce.partition);
        format!("{id} was acknowledged at {partition}:{offset} and is not in the final read from {source}, which goes further")
    })
    .collect()
}
