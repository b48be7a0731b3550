//! A history in which too little happened says nothing, whatever its checkers find.

use crate::history::History;

/// Of all writes, at least this part must have been acknowledged.
const OK_SHARE_MIN: f64 = 0.5;

/// Why a history says nothing, if so.
#[must_use]
pub fn void_because(history: &History) -> Vec<String> {
    let mut why = Vec::new();
    let counts = history.counts();
    let all = counts.ok + counts.fail + counts.info;
    if all == 0 || (counts.ok as f64) < OK_SHARE_MIN * all as f64 {
        why.push(format!("only {} of {all} records were acknowledged", counts.ok));
    }
    if history.final_reads.is_empty() {
        why.push("nothing was read at the end".to_owned());
    }
    let partitions = history.acked().map(|(produce, _)| produce.partition);
    let mut partitions: Vec<u32> = partitions.collect();
    partitions.sort_unstable();
    partitions.dedup();
    for read in &history.final_reads {
        for partition in partitions.iter().filter(|partition| !read.partitions.contains_key(partition)) {
            why.push(format!("the final read from {} has nothing of partition {partition}", read.source));
        }
    }
    why
}
