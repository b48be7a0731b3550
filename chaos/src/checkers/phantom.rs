//! Phantom: a record that nobody wrote, or not with these bytes.

use crate::history::History;

pub(super) fn check(history: &History) -> Vec<String> {
    let mut found = Vec::new();
    for (reader, partition, seen) in history.seen() {
        let offset = seen.offset;
        match seen.id {
            None => found.push(format!("{reader} got bytes at {partition}:{offset} that no producer made")),
            Some(id) if history.produce(id).is_none() => {
                found.push(format!("{reader} got {id} at {partition}:{offset}, which was never sent"));
            }
            Some(_) => {}
        }
    }
    found
}
