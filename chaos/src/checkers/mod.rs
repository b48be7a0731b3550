//! The promises, one file each. A checker looks at a whole history and says, in words, everything in it that its promise
//! does not allow. Unknown outcomes are allowed whatever may have become of them.

mod aborted_read;
mod commits;
mod cycles;
mod duplicate;
mod high_watermark;
mod inconsistent_offsets;
mod lost;
mod nodes;
mod order;
mod phantom;
mod polls;
mod real_time;
mod replicas_differ;
mod sends;
mod stale_read;
mod unseen;
mod void;

use serde::{Deserialize, Serialize};

use crate::history::History;
pub use void::void_because;

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
    ("cycles", cycles::check),
    ("poll-skip", polls::skips),
    ("int-poll-skip", polls::skips_within),
    ("nonmonotonic-poll", polls::goes_back),
    ("int-nonmonotonic-poll", polls::goes_back_within),
    ("nonmonotonic-send", sends::goes_back),
    ("int-nonmonotonic-send", sends::goes_back_within),
    ("int-send-skip", sends::skips_within),
    ("precommitted-read", high_watermark::is_read_behind),
    ("high-watermark", high_watermark::goes_back),
    ("stale-read", stale_read::check),
    ("replicas-differ", replicas_differ::check),
    ("term-back", nodes::term_goes_back),
    ("committed-back", nodes::committed_goes_back),
    ("health", nodes::health),
    ("commit-back", commits::goes_back),
    ("commit-beyond-end", commits::beyond_end),
    ("zombie-commit", commits::zombies),
    ("stale-committed", commits::stale),
    ("commit-undelivered", commits::undelivered),
];

/// Violations that a finding shows in words.
const EXAMPLES_MAX: usize = 10;

/// What one checker found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The checker.
    pub checker: String,
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
        Finding { checker: (*checker).to_owned(), violations, examples }
    };
    CHECKERS.iter().map(run).collect()
}
