//! Stale read: whoever asks for a partition's end after a record was acknowledged is told an end behind that record.

use std::collections::BTreeMap;

use crate::history::{History, Micros, Watermark};

pub(super) fn check(history: &History) -> Vec<String> {
    let mut acked: BTreeMap<u32, Vec<(Micros, u64)>> = BTreeMap::new();
    for (produce, offset) in history.acked() {
        let at = produce.completed.unwrap_or(Micros::MAX);
        acked.entry(produce.partition).or_default().push((at, offset));
    }
    let mut asked: BTreeMap<u32, Vec<&Watermark>> = BTreeMap::new();
    for watermark in &history.watermarks {
        asked.entry(watermark.partition).or_default().push(watermark);
    }
    let mut found = Vec::new();
    for (partition, mut answers) in asked {
        let mut acked = acked.remove(&partition).unwrap_or_default();
        acked.sort_unstable();
        answers.sort_by_key(|answer| answer.invoked);
        let mut before = acked.into_iter().peekable();
        let mut end = 0;
        for answer in answers {
            while let Some((_, offset)) = before.next_if(|(at, _)| *at < answer.invoked) {
                end = end.max(offset + 1);
            }
            if answer.high_watermark < end {
                let (observer, told) = (answer.observer, answer.high_watermark);
                found.push(format!(
                    "observer {observer} was told {told} as the end of partition {partition} after {} had been acknowledged",
                    end - 1
                ));
            }
        }
    }
    found
}
