//! Backwards: no reader gets an offset again, or one before it.

use crate::history::History;

pub(super) fn check(history: &History) -> Vec<String> {
    let mut found = Vec::new();
    for ((reader, partition), records) in super::sequences(history) {
        for pair in records.windows(2) {
            if let [before, seen] = pair
                && seen.offset <= before.offset
            {
                found.push(format!("{reader} got {partition}:{} behind {partition}:{}", seen.offset, before.offset));
            }
        }
    }
    found
}
