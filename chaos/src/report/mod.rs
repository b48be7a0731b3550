//! What came of a run: figures, findings, and the verdict. Unknown is not passed: a run in which too little happened is void.

mod chart;
mod page;
mod pauses;
mod text;

use serde::{Deserialize, Serialize};

use crate::checkers::Finding;
use crate::fault::{Fault, Strike};
use crate::history::{Counts, Micros};
pub use page::page;
pub use pauses::{Pauses, longest};

/// What was asked for.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// Makes the same decisions again.
    pub seed: u64,
    /// Nodes.
    pub nodes: u64,
    /// Partitions of the topic.
    pub partitions: u32,
    /// Replicas of each.
    pub replication_factor: u32,
    /// Records a second.
    pub rate: u32,
    /// How long was written.
    pub seconds: u64,
    /// What was done, in turn.
    pub faults: Vec<Fault>,
    /// How often.
    pub strikes: usize,
}

/// A fault, and how long clients noticed it.
#[derive(Debug, Clone, Serialize)]
pub struct Struck {
    /// What happened when, in microseconds since the run began.
    #[serde(flatten)]
    pub strike: Strike,
    /// Longest time without any acknowledgement, until the next fault, in milliseconds.
    pub pause_ms: f64,
    /// Longest time in which some partition acknowledged nothing, until the next fault, in milliseconds.
    pub partition_pause_ms: f64,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Every promise held.
    Pass,
    /// A promise was broken, or a node crashed.
    Fail,
    /// Too little happened to say anything.
    Void,
}

/// Everything about a run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What it comes to.
    pub verdict: Verdict,
    /// Why it says nothing, if so.
    pub void_because: Vec<String>,
    /// What was asked for.
    pub plan: Plan,
    /// How the writes ended.
    pub records: Counts,
    /// Records that readers got, each reader counted.
    pub records_read: u64,
    /// Acknowledged records a second, over the time in which there were faults.
    pub acked_per_second: f64,
    /// How often a partition had another leader than before, as far as it was seen.
    pub leader_changes: u64,
    /// Longest time without any acknowledgement, per fault.
    pub pauses: Pauses,
    /// The same for the partition that it hit worst.
    pub partition_pauses: Pauses,
    /// Both before the first fault, in milliseconds: what the machine does by itself.
    pub calm_ms: [f64; 2],
    /// The faults.
    pub strikes: Vec<Struck>,
    /// Each checker's.
    pub findings: Vec<Finding>,
    /// Nodes that ended by themselves, did not come back, or did not stop cleanly.
    pub incidents: Vec<String>,
    /// Errors that reached an application which retries.
    pub client_errors: u64,
    /// The first of them.
    pub client_error_examples: Vec<String>,
    /// Where the nodes' data, logs and the history are, if they were kept.
    pub kept: Option<String>,
}

impl Report {
    /// What a run with these findings comes to.
    #[must_use]
    pub fn judge(findings: &[Finding], incidents: &[String], void_because: &[String]) -> Verdict {
        if findings.iter().any(|finding| finding.violations > 0) || !incidents.is_empty() {
            Verdict::Fail
        } else if void_because.is_empty() {
            Verdict::Pass
        } else {
            Verdict::Void
        }
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        text::render(self)
    }
}

fn ms(micros: Micros) -> f64 {
    micros as f64 / 1_000.0
}
