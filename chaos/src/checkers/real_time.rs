//! Real time: a record that was sent after another one of its partition had been acknowledged lies behind it, whoever
//! sent them.

use std::collections::BTreeMap;

use crate::history::{History, Produce};

pub(super) fn check(history: &History) -> Vec<String> {
    let mut partitions: BTreeMap<u32, Vec<(&Produce, u64)>> = BTreeMap::new();
    for (produce, offset) in history.acked() {
        partitions.entry(produce.partition).or_default().push((produce, offset));
    }
    partitions.into_iter().flat_map(|(partition, acked)| in_partition(partition, acked)).collect()
}

fn in_partition(partition: u32, mut acked: Vec<(&Produce, u64)>) -> Vec<String> {
    let mut by_completion = acked.clone();
    by_completion.sort_by_key(|(produce, _)| produce.completed);
    acked.sort_by_key(|(produce, _)| produce.invoked);
    let mut before = by_completion.into_iter().peekable();
    // The furthest record of those that were acknowledged before the one looked at was sent.
    let mut furthest: Option<(&Produce, u64)> = None;
    let mut found = Vec::new();
    for (produce, offset) in acked {
        while let Some(earlier) = before.next_if(|(earlier, _)| earlier.completed.is_some_and(|at| at < produce.invoked)) {
            furthest = Some(furthest.filter(|furthest| furthest.1 >= earlier.1).unwrap_or(earlier));
        }
        if let Some((earlier, at)) = furthest.filter(|furthest| furthest.1 >= offset) {
            found.push(format!(
                "{} got {partition}:{offset}, but it was sent after {} had been acknowledged at {partition}:{at}",
                produce.id, earlier.id
            ));
        }
    }
    found
}
