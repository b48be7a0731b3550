//! The checkers, checked: a history in which every promise held passes all of them, and each planted violation is caught by
//! the checker that it is meant for.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};

use flotilla_chaos::checkers::{CHECKERS, check_all, void_because};
use flotilla_chaos::history::{
    Commit, Committed, FinalRead, Health, History, Id, Outcome, Poll, Replica, Seen, Sender, Watermark,
};

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
    for step in 0..10 {
        let (at, offset) = (1_000 + step * 100, step * 2);
        history.commits.push(commit(step / 4, offset, at));
        let (invoked, completed, offset) = (at + 20, at + 30, Some(offset));
        history.committed.push(Committed { group: 0, invoked, completed, partition: 0, offset, high_watermark: COUNT });
        for node in 1..=2 {
            let (boot, life, term) = (1, 1, 1 + step / 5);
            history.replicas.push(Replica { node, boot, group: 1, life, at, term, committed: step * 3 });
        }
    }
    history.health.push(Health { node: 1, from: 0, until: 60_000_000, healthy: true, ailment: None });
    let ailment = Some("node 2 does not serve".to_owned());
    history.health.push(Health { node: 1, from: 0, until: 5_000_000, healthy: true, ailment: ailment.clone() });
    history.health.push(Health { node: 1, from: 0, until: 50_000_000, healthy: false, ailment });
    for node in 1..=2 {
        history.final_reads.push(FinalRead { source: format!("node {node}"), partitions: logs.clone() });
    }
    history
}

fn commit(epoch: u64, offset: u64, at: u64) -> Commit {
    let (invoked, completed, outcome) = (at, Some(at + 10), Outcome::Ok(0));
    Commit { group: 0, epoch: Some(epoch), partition: 0, offset, resets: false, invoked, completed, outcome }
}

/// The checkers that object.
fn objecting(history: &History) -> BTreeSet<String> {
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

/// Two records of partition 0 that were sent together, acknowledged at these offsets.
fn together(history: &mut History, offsets: [u64; 2]) {
    let by = Sender { producer: 0, session: 0, node: 1 };
    let ids = history.invoke_together(by, 0, 2, 1_000);
    for (id, offset) in ids.into_iter().zip(offsets) {
        history.resolve(id, Outcome::Ok(offset), 1_005);
    }
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
    ("int-poll-skip", |history| {
        history.polls[0].records.remove(3);
    }),
    ("poll-skip", |history| {
        history.polls.remove(0);
    }),
    ("nonmonotonic-poll", |history| {
        let again = history.polls[0].clone();
        history.polls.insert(1, again);
    }),
    ("int-nonmonotonic-poll", |history| history.polls[0].records.swap(2, 3)),
    ("nonmonotonic-send", |history| {
        another(history, Outcome::Ok(COUNT + 1));
        another(history, Outcome::Ok(COUNT));
    }),
    ("int-nonmonotonic-send", |history| together(history, [COUNT + 1, COUNT])),
    ("int-send-skip", |history| together(history, [COUNT, COUNT + 2])),
    ("cycles", |history| {
        // Two batches that lie in one another.
        let [one, other] = [0, 1].map(|producer| {
            let by = Sender { producer, session: 0, node: 1 };
            history.invoke_together(by, 0, 2, 1_000)
        });
        everywhere(history, |records| {
            for (offset, id) in (COUNT..).zip([one[0], other[0], one[1], other[1]]) {
                records.push(Seen { offset, id: Some(id) });
            }
        });
    }),
    ("precommitted-read", |history| history.polls[1].high_watermark = 3),
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
    ("term-back", |history| {
        // Another process of the same node has forgotten it.
        let last = history.replicas[19];
        history.replicas.push(Replica { boot: 2, at: 3_000, term: 1, ..last });
    }),
    ("committed-back", |history| history.replicas[19].committed = 20),
    ("health", |history| history.health[1].until = 50_000_000),
    ("commit-back", |history| history.committed[9].offset = Some(3)),
    ("commit-beyond-end", |history| history.committed[9].high_watermark = 10),
    ("zombie-commit", |history| history.commits.push(commit(1, 18, 5_000))),
    ("stale-committed", |history| history.committed[5].offset = None),
    ("stale-committed", |history| history.committed[5].offset = Some(8)),
    ("commit-undelivered", |history| history.commits.push(commit(9, COUNT + 1, 5_000))),
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
        assert!(objecting.contains(*checker), "case {number} is meant for {checker}; found: {objecting:?}");
    }
    let covered: BTreeSet<&str> = PLANTED.iter().map(|(checker, _)| *checker).collect();
    let all: BTreeSet<&str> = CHECKERS.iter().map(|(checker, _)| *checker).collect();
    assert_eq!(covered, all, "every checker must have been seen to catch something");
}

#[test]
fn what_was_not_stored_or_was_set_back_on_purpose_is_no_violation() {
    let mut history = good();
    history.commits.push(Commit { outcome: Outcome::Fail, ..commit(1, 19, 5_000) });
    history.commits.push(Commit { resets: true, ..commit(9, 2, 6_000) });
    let (invoked, completed) = (7_000, 7_010);
    history.committed.push(Committed { group: 0, invoked, completed, partition: 0, offset: Some(2), high_watermark: COUNT });
    assert_eq!(objecting(&history), BTreeSet::new());
}

#[test]
fn another_replica_on_a_node_and_another_process_begin_anew() {
    let mut history = good();
    let last = history.replicas[19];
    history.replicas.push(Replica { boot: 2, at: 3_000, committed: 0, ..last });
    history.replicas.push(Replica { boot: 2, life: 2, at: 3_001, committed: 0, term: 1, ..last });
    assert_eq!(objecting(&history), BTreeSet::new());
}

#[test]
fn a_history_in_which_too_little_happened_is_void() {
    assert_eq!(void_because(&good()), Vec::<String>::new());
    assert!(!void_because(&History::default()).is_empty());
    let mut history = good();
    history.final_reads[0].partitions.remove(&0);
    assert_eq!(void_because(&history).len(), 1);
}

#[test]
fn a_history_is_what_was_written_down() {
    let (history, mut lines) = (good(), Vec::new());
    history.write_json(&mut lines).unwrap();
    assert_eq!(History::read_json(&lines[..]).unwrap(), history);
    let text = String::from_utf8(lines).unwrap();
    let produced = text.lines().filter(|line| line.starts_with(r#"{"produce":"#)).count() as u64;
    assert_eq!(produced, COUNT * u64::from(PARTITIONS));
    let torn = &text[..text.len() - 10];
    assert!(History::read_json(torn.as_bytes()).is_err());
    let swapped: Vec<&str> = text.lines().skip(1).collect();
    let wrong = History::read_json(swapped.join("\n").as_bytes()).unwrap_err().to_string();
    assert!(wrong.contains("comes where"), "{wrong}");
}
