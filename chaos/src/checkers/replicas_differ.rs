//! Replicas differ: after everything is healed and nobody writes any more, every final read gives the same.

use crate::history::{FinalRead, History};

pub(super) fn check(history: &History) -> Vec<String> {
    let Some((first, others)) = history.final_reads.split_first() else { return Vec::new() };
    others.iter().flat_map(|other| differences(first, other)).collect()
}

fn differences(one: &FinalRead, other: &FinalRead) -> Vec<String> {
    let nothing = Vec::new();
    let mut partitions: Vec<u32> = one.partitions.keys().chain(other.partitions.keys()).copied().collect();
    partitions.sort_unstable();
    partitions.dedup();
    let differ = partitions.into_iter().filter_map(|partition| {
        let records = one.partitions.get(&partition).unwrap_or(&nothing);
        let others = other.partitions.get(&partition).unwrap_or(&nothing);
        let same = records.iter().zip(others).take_while(|(one, other)| one == other).count();
        (same < records.len().max(others.len())).then_some((partition, same))
    });
    let say = |(partition, same)| {
        let (one, other) = (&one.source, &other.source);
        format!("partition {partition} differs from record {same} on between the final reads from {one} and {other}")
    };
    differ.map(say).collect()
}
