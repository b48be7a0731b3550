//! The promises, one file each. A checker looks at a whole history and says, in words, everything in it that its promise
//! does not allow. Unknown outcomes are allowed whatever may have become of them.

mod aborted_read;
mod backwards;
mod duplicate;
mod high_watermark;
mod inconsistent_offsets;
mod lost;
mod order;
mod phantom;
mod real_time;
mod replicas_differ;
mod skip;
mod stale_read;
mod unseen;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::history::{History, Seen};

/// Looks for violations of one promise.
pub type Check = fn(&History) -> Vec<String>;

/// Every checker, by name.
pub const CHECKERS: &[(&str, Check)] = &[
    ("lost", lost::check),
    ("unseen", unseen::check),
    ("duplicate", duplicate::check),
    ("phantom", phantom::check),
    ("aborted-read", aborted_read::check),
    ("inconsistent-offsets", inconsistent_offsets::check),
    ("order", order::check),
    ("real-time", real_time::check),
    ("skip", skip::check),
    ("backwards", backwards::check),
    ("high-watermark", high_watermark::check),
    ("stale-read", stale_read::check),
    ("replicas-differ", replicas_differ::check),
];

/// Violations that a finding shows in words.
const EXAMPLES_MAX: usize = 10;

/// What one checker found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The checker.
    pub checker: &'static str,
    /// How often its promise was broken.
    pub violations: usize,
    /// The first of them in words.
    pub examples: Vec<String>,
}

/// Runs every checker; each has its finding, also where it found nothing.
#[must_use]
pub fn check_all(history: &History) -> Vec<Finding> {
    let run = |(checker, check): &(&'static str, Check)| {
        let mut examples = check(history);
        let violations = examples.len();
        examples.truncate(EXAMPLES_MAX);
        Finding { checker, violations, examples }
    };
    CHECKERS.iter().map(run).collect()
}

/// What each reader and each final read got from each partition, in the order in which it came.
fn sequences(history: &History) -> BTreeMap<(String, u32), Vec<Seen>> {
    let mut sequences: BTreeMap<(String, u32), Vec<Seen>> = BTreeMap::new();
    for poll in &history.polls {
        let key = (format!("reader {}", poll.reader), poll.partition);
        sequences.entry(key).or_default().extend(&poll.records);
    }
    for read in &history.final_reads {
        for (partition, records) in &read.partitions {
            let key = (format!("the final read from {}", read.source), *partition);
            sequences.entry(key).or_default().extend(records);
        }
    }
    sequences
}
