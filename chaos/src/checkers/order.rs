//! Order: what a producer sent to a partition and what was acknowledged lies there in the order in which it was sent. A
//! record of unknown outcome may have been overtaken.

use std::collections::HashMap;

use crate::history::{History, Id, Outcome};

pub(super) fn check(history: &History) -> Vec<String> {
    let acked = |id: &Id| history.produce(*id).is_some_and(|produce| matches!(produce.outcome, Outcome::Ok(_)));
    let mut found = Vec::new();
    for read in &history.final_reads {
        for (partition, records) in &read.partitions {
            let mut last: HashMap<u32, Id> = HashMap::new();
            for seen in records {
                let Some(id) = seen.id.filter(acked) else { continue };
                if let Some(before) = last.insert(id.producer, id)
                    && before.sequence > id.sequence
                {
                    let (offset, source) = (seen.offset, &read.source);
                    found.push(format!("{id} at {partition}:{offset} lies behind {before} in the final read from {source}"));
                }
            }
        }
    }
    found
}
