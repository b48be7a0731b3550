//! Skip: nothing of what a reader gets is missing in between. Every offset of these topics holds a record, and each
//! reader begins with the first.

use crate::history::History;

pub(super) fn check(history: &History) -> Vec<String> {
    let mut found = Vec::new();
    for ((reader, partition), records) in super::sequences(history) {
        let mut next = 0;
        for seen in records {
            if seen.offset > next {
                found.push(format!("{reader} got {partition}:{}, but nothing at {partition}:{next} before", seen.offset));
            }
            next = seen.offset + 1;
        }
    }
    found
}
