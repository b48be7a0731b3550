//! Inconsistent offsets: one offset has two values, or a record is not where its acknowledgement says.

use std::collections::HashMap;

use crate::history::{History, Id, Outcome};

pub(super) fn check(history: &History) -> Vec<String> {
    let mut values: HashMap<(u32, u64), Option<Id>> = HashMap::new();
    let mut found = Vec::new();
    let name = |id: Option<Id>| id.map_or_else(|| "unknown bytes".to_owned(), |id| id.to_string());
    for (produce, offset) in history.acked() {
        let first = *values.entry((produce.partition, offset)).or_insert(Some(produce.id));
        if first != Some(produce.id) {
            let partition = produce.partition;
            found.push(format!("{} and {} were both acknowledged at {partition}:{offset}", name(first), produce.id));
        }
    }
    for (reader, partition, seen) in history.seen() {
        let offset = seen.offset;
        let first = *values.entry((partition, offset)).or_insert(seen.id);
        if first != seen.id {
            found.push(format!("{partition}:{offset} holds {}; {reader} got {} there", name(first), name(seen.id)));
        }
        let acked = seen.id.and_then(|id| history.produce(id));
        if let Some(produce) = acked
            && let Outcome::Ok(at) = produce.outcome
            && (produce.partition, at) != (partition, offset)
        {
            let (id, own) = (produce.id, produce.partition);
            found.push(format!("{id} was acknowledged at {own}:{at}; {reader} got it at {partition}:{offset}"));
        }
    }
    found
}
