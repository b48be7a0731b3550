//! Lost write: a record was acknowledged, what lies behind it is read, and it is not.

use std::collections::HashSet;

use crate::history::{History, Id};

pub(super) fn check(history: &History) -> Vec<String> {
    let mut found = Vec::new();
    for read in &history.final_reads {
        let present: HashSet<Id> = read.partitions.values().flatten().filter_map(|seen| seen.id).collect();
        for (produce, offset) in history.acked() {
            let end = read.partitions.get(&produce.partition).and_then(|records| records.last());
            let reached = end.is_some_and(|last| last.offset >= offset);
            if reached && !present.contains(&produce.id) {
                let (id, partition, source) = (produce.id, produce.partition, &read.source);
                found.push(format!(
                    "{id} was acknowledged at {partition}:{offset} and is not in the final read from {source}, which goes further"
                ));
            }
        }
    }
    found
}
