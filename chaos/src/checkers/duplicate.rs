//! Duplicate: a record is at two places.

use std::collections::HashMap;

use crate::history::{History, Id};

pub(super) fn check(history: &History) -> Vec<String> {
    let mut places: HashMap<Id, (u32, u64)> = HashMap::new();
    let mut found = Vec::new();
    for (reader, partition, seen) in history.seen() {
        let Some(id) = seen.id else { continue };
        let (first_partition, first_offset) = *places.entry(id).or_insert((partition, seen.offset));
        if (first_partition, first_offset) != (partition, seen.offset) {
            let offset = seen.offset;
            found.push(format!("{id} is at {first_partition}:{first_offset} and, says {reader}, at {partition}:{offset}"));
        }
    }
    found
}
