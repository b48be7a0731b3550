//! Aborted read: a write that was answered with "not written" is read.

use crate::history::{History, Outcome};

pub(super) fn check(history: &History) -> Vec<String> {
    let mut found = Vec::new();
    for (reader, partition, seen) in history.seen() {
        let failed = seen.id.and_then(|id| history.produce(id)).filter(|produce| produce.outcome == Outcome::Fail);
        if let Some(produce) = failed {
            found.push(format!("{reader} got {} at {partition}:{}, which had failed", produce.id, seen.offset));
        }
    }
    found
}
