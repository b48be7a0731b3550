//! High watermark: for who asks leaders once more, it does not go back (`high-watermark`); and nothing is read from behind it,
//! where it may still change (`precommitted-read`).

use std::collections::HashMap;

use crate::history::History;

/// Who is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Asker {
    Reader(u32),
    Observer(u32),
}

impl std::fmt::Display for Asker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Reader(number) => write!(f, "reader {number}"),
            Self::Observer(number) => write!(f, "observer {number}"),
        }
    }
}

pub(super) fn goes_back(history: &History) -> Vec<String> {
    let certain = history.polls.iter().filter(|poll| poll.end_is_certain);
    let polls = certain.map(|poll| (Asker::Reader(poll.reader), poll.partition, poll.high_watermark));
    let answers = history.watermarks.iter();
    let answers = answers.map(|answer| (Asker::Observer(answer.observer), answer.partition, answer.high_watermark));
    let mut highest: HashMap<(Asker, u32), u64> = HashMap::new();
    let mut found = Vec::new();
    for (who, partition, high_watermark) in polls.chain(answers) {
        let before = highest.entry((who, partition)).or_default();
        if high_watermark < *before {
            found.push(format!("{who} was told {before} as the end of partition {partition}, and {high_watermark} later"));
        }
        *before = high_watermark.max(*before);
    }
    found
}

pub(super) fn is_read_behind(history: &History) -> Vec<String> {
    let behind = history.polls.iter().flat_map(|poll| {
        let behind = poll.records.iter().filter(|seen| seen.offset >= poll.high_watermark);
        behind.map(move |seen| (poll, seen.offset))
    });
    behind
        .map(|(poll, offset)| {
            let (reader, partition, end) = (poll.reader, poll.partition, poll.high_watermark);
            format!("reader {reader} got {partition}:{offset}, which lies behind the high watermark {end}")
        })
        .collect()
}
