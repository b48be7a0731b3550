//! The checkers, checked: a history in which every promise held passes all of them, and each planted violation is caught by
//! the checker that it is meant for.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};

use flotilla_chaos::checkers::{CHECKERS, check_all};
use flotilla_chaos::history::{FinalRead, History, Id, Outcome, Poll, Seen, Watermark};

const PRODUCERS: u32 = 2;
const PARTITIONS: u32 = 2;
/// Records of each partition.
const COUNT: u64 = 20;
/// What a record takes from its sending to its acknowledgement.
const TOOK: u64 = 5;

/// Producers write in turn, one record every 10 µs; two readers and two nodes read everything; one observer asks.
fn good() -> History {
    let mut history = History::default();
    let mut logs: BTreeMap<u32, Vec<Seen>> = BTreeMap::new();
    for step in 0..COUNT * u64::from(PARTITIONS) {
        let (producer, partition) = ((step % u64::from(PRODUCERS)) as u32, (step / 2 % u64::from(PARTITIONS)) as u32);
        let now = step * 10;
        let id = history.invoke(producer, 0, 1, partition, now);
        let log = logs.entry(partition).or_default();
        let offset = log.len() as u64;
        log.push(Seen { offset, id: Some(id) });
        history.resolve(id, Outcome::Ok(offset), now + TOOK);
        history.watermarks.push(Watermark {
            observer: 0,
            invoked: now + 6,
            completed: now + 8,
            partition,
            high_watermark: offset + 1,
        });
    }
    for reader in 0..2 {
        for (partition, log) in &logs {
            for records in log.chunks(7) {
                let high_watermark = records.last().unwrap().offset + 1;
                let (records, partition) = (records.to_vec(), *partition);
                history.polls.push(Poll {
                    reader,
                    session: 0,
                    node: 1,
                    invoked: 0,
                    completed: 1,
                    partition,
                    high_watermark,
                    end_is_certain: true,
                    records,
                });
            }
        }
    }
    for node in 1..=2 {
        history.final_reads.push(FinalRead { source: format!("node {node}"), partitions: logs.clone() });
    }
    history
}

/// The checkers that object.
fn objecting(history: &History) -> BTreeSet<&'static str> {
    check_all(history).into_iter().filter(|finding| finding.violations > 0).map(|finding| finding.checker).collect()
}

/// Does the same to what every final read has of partition 0.
fn everywhere(history: &mut History, change: impl Fn(&mut Vec<Seen>)) {
    history.final_reads.iter_mut().for_each(|read| change(read.partitions.get_mut(&0).unwrap()));
}

fn first_of_partition_0(history: &History) -> Id {
    history.final_reads[0].partitions[&0][0].id.unwrap()
}

/// A record of partition 0 with an outcome of its own, and its id.
fn another(history: &mut History, outcome: Outcome) -> Id {
    let id = history.invoke(0, 0, 1, 0, 1_000);
    history.resolve(id, outcome, 1_005);
    id
}

type Plant = fn(&mut History);

/// For each checker, what only it or it, too, must catch.
const PLANTED: &[(&str, Plant)] = &[
    ("lost", |history| {
        everywhere(history, |records| {
            records.remove(5);
        });
    }),
    ("lost", |history| {
        // One node has forgotten a record, and puts the next ones in its place.
        let records = history.final_reads[1].partitions.get_mut(&0).unwrap();
        records.remove(5);
        records.iter_mut().skip(5).for_each(|seen| seen.offset -= 1);
        records.push(Seen { offset: COUNT - 1, id: None });
    }),
    ("unseen", |history| everywhere(history, |records| records.truncate(15))),
    ("unseen", |history| history.polls.retain(|poll| poll.reader != 1 || poll.records[0].offset < 14)),
    ("duplicate", |history| {
        let id = first_of_partition_0(history);
        everywhere(history, |records| records.push(Seen { offset: COUNT, id: Some(id) }));
    }),
    ("phantom", |history| everywhere(history, |records| records.push(Seen { offset: COUNT, id: None }))),
    ("phantom", |history| {
        let id = Id { producer: 9, sequence: 9 };
        everywhere(history, |records| records.push(Seen { offset: COUNT, id: Some(id) }));
    }),
    ("aborted-read", |history| {
        let id = another(history, Outcome::Fail);
        everywhere(history, |records| records.push(Seen { offset: COUNT, id: Some(id) }));
    }),
    ("inconsistent-offsets", |history| {
        let id = another(history, Outcome::Info);
        history.final_reads[1].partitions.get_mut(&0).unwrap()[3].id = Some(id);
    }),
    ("inconsistent-offsets", |history| {
        another(history, Outcome::Ok(3));
    }),
    ("order", |history| {
        everywhere(history, |records| {
            let (one, other) = (records[0].id, records[2].id);
            (records[0].id, records[2].id) = (other, one);
        });
    }),
    ("real-time", |history| {
        // The two producers' records, acknowledged one after the other, lie the other way round.
        let (one, other) = (history.final_reads[0].partitions[&0][0], history.final_reads[0].partitions[&0][1]);
        history.resolve(one.id.unwrap(), Outcome::Ok(other.offset), TOOK);
        history.resolve(other.id.unwrap(), Outcome::Ok(one.offset), 10 + TOOK);
        let exchange = |records: &mut Vec<Seen>| {
            for seen in records {
                seen.id = if seen.id == one.id {
                    other.id
                } else if seen.id == other.id {
                    one.id
                } else {
                    seen.id
                };
            }
        };
        everywhere(history, exchange);
        history.polls.iter_mut().for_each(|poll| exchange(&mut poll.records));
    }),
    ("skip", |history| {
        history.polls[0].records.remove(3);
    }),
    ("skip", |history| {
        history.polls.remove(0);
    }),
    ("backwards", |history| {
        let again = history.polls[0].clone();
        history.polls.insert(1, again);
    }),
    ("high-watermark", |history| history.polls[1].high_watermark = 3),
    ("high-watermark", |history| history.watermarks[20].high_watermark -= 2),
    ("stale-read", |history| history.watermarks[0].high_watermark = 0),
    ("replicas-differ", |history| {
        let id = another(history, Outcome::Info);
        history.final_reads[1].partitions.get_mut(&0).unwrap().push(Seen { offset: COUNT, id: Some(id) });
    }),
    ("replicas-differ", |history| {
        history.final_reads[1].partitions.remove(&1);
    }),
];

#[test]
fn kept_promises_pass() {
    assert_eq!(objecting(&good()), BTreeSet::new());
}

#[test]
fn unknown_outcomes_are_allowed_whatever_became_of_them() {
    let mut history = good();
    another(&mut history, Outcome::Info);
    assert_eq!(objecting(&history), BTreeSet::new(), "it is not there");
    let id = another(&mut history, Outcome::Info);
    everywhere(&mut history, |records| records.push(Seen { offset: COUNT, id: Some(id) }));
    assert_eq!(objecting(&history), BTreeSet::new(), "it is there");
}

#[test]
fn every_planted_violation_is_caught() {
    for (number, (checker, plant)) in PLANTED.iter().enumerate() {
        let mut history = good();
        plant(&mut history);
        let objecting = objecting(&history);
        assert!(objecting.contains(checker), "case {number} is meant for {checker}; found: {objecting:?}");
    }
    let covered: BTreeSet<&str> = PLANTED.iter().map(|(checker, _)| *checker).collect();
    let all: BTreeSet<&str> = CHECKERS.iter().map(|(checker, _)| *checker).collect();
    assert_eq!(covered, all, "every checker must have been seen to catch something");
}

#[test]
fn a_history_can_be_written() {
    let mut lines = Vec::new();
    good().write_json(&mut lines).unwrap();
    let lines = String::from_utf8(lines).unwrap();
    assert_eq!(lines.lines().filter(|line| line.starts_with(r#"{"produce":"#)).count() as u64, COUNT * u64::from(PARTITIONS));
    assert!(lines.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
}
