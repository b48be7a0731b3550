//! What a producer sends to a partition: acknowledged in the order in which it was sent (`nonmonotonic-send`), and of what was
//! sent together, each record right behind the one before (`int-nonmonotonic-send`, `int-send-skip`). Names as in Jepsen's workload for
//! Kafka.

use std::collections::HashMap;

use crate::history::{History, Outcome, Produce};

pub(super) fn goes_back(history: &History) -> Vec<String> {
    pairs(history).filter(|pair| pair.before.batch != pair.sent.batch && pair.at <= pair.before_at).map(Pair::goes_back).collect()
}

pub(super) fn goes_back_within(history: &History) -> Vec<String> {
    pairs(history).filter(|pair| pair.before.batch == pair.sent.batch && pair.at <= pair.before_at).map(Pair::goes_back).collect()
}

pub(super) fn skips_within(history: &History) -> Vec<String> {
    let skipped = |pair: &Pair<'_>| pair.before.batch == pair.sent.batch && pair.at > pair.before_at + 1;
    pairs(history)
        .filter(skipped)
        .map(|Pair { before, before_at, sent, at }| {
            let partition = sent.partition;
            format!("{} and {} were sent together and are at {partition}:{before_at} and {partition}:{at}", before.id, sent.id)
        })
        .collect()
}

/// Two acknowledged records of a producer and a partition, one sent after the other.
struct Pair<'a> {
    before: &'a Produce,
    before_at: u64,
    sent: &'a Produce,
    at: u64,
}

impl Pair<'_> {
    fn goes_back(self) -> String {
        let Self { before, before_at, sent, at } = self;
        let partition = sent.partition;
        format!("{} was acknowledged at {partition}:{at}, and {}, sent before it, at {partition}:{before_at}", sent.id, before.id)
    }
}

fn pairs(history: &History) -> impl Iterator<Item = Pair<'_>> {
    let mut last: HashMap<(u32, u32), (&Produce, u64)> = HashMap::new();
    history.produces().filter_map(move |sent| {
        let Outcome::Ok(at) = sent.outcome else { return None };
        let (before, before_at) = last.insert((sent.id.producer, sent.partition), (sent, at))?;
        Some(Pair { before, before_at, sent, at })
    })
}
