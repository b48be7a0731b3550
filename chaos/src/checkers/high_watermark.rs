//! High watermark: for who asks leaders once more, it does not go back; and nothing is read from behind it.

use std::collections::BTreeMap;

use crate::history::History;

pub(super) fn check(history: &History) -> Vec<String> {
    let certain = history.polls.iter().filter(|poll| poll.end_is_certain);
    let polls = certain.map(|poll| (format!("reader {}", poll.reader), poll.partition, poll.high_watermark));
    let answers = history.watermarks.iter();
    let answers = answers.map(|answer| (format!("observer {}", answer.observer), answer.partition, answer.high_watermark));
    let mut highest: BTreeMap<(String, u32), u64> = BTreeMap::new();
    let mut found = Vec::new();
    for (who, partition, high_watermark) in polls.chain(answers) {
        let before = highest.entry((who.clone(), partition)).or_default();
        if high_watermark < *before {
            found.push(format!("{who} was told {before} as the end of partition {partition}, and {high_watermark} later"));
        }
        *before = high_watermark.max(*before);
    }
    for poll in &history.polls {
        for seen in poll.records.iter().filter(|seen| seen.offset >= poll.high_watermark) {
            let (reader, partition, offset, end) = (poll.reader, poll.partition, seen.offset, poll.high_watermark);
            found.push(format!("reader {reader} got {partition}:{offset}, which lies behind the high watermark {end}"));
        }
    }
    found
}
