//! Every region of a cleanly stopped journal is damaged once: either nothing is missing, or the damage is named (file,
//! range, groups) and groups that are not named are whole. Nothing acknowledged is dropped in silence.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flotilla_raft::disk::Disk;
use flotilla_raft::disk::sim::SimDisk;
use flotilla_raft::journal::{Journal, JournalOptions, Record, Recovered, RecoveredGroup, Step, Suspect};
use flotilla_raft::types::{Body, Entry, GroupId, Incarnation, Item, LogId, ReplicaId, Vote};

const DIR: &str = "/data/journal";
const GROUPS: u64 = 3;
const ROUNDS: u64 = 12;
const FILE_BYTES: u64 = 64 << 10;

fn options() -> JournalOptions {
    JournalOptions { file_bytes: FILE_BYTES, files_max: 9, files_hard_max: 9, ..JournalOptions::default() }
}

fn open(disk: &SimDisk) -> (Journal, Recovered) {
    Journal::open(Arc::new(disk.clone()), Path::new(DIR), options()).unwrap()
}

fn write(journal: &mut Journal, records: Vec<Record>) {
    journal.handle().submit(records, |result| assert!(result.is_ok(), "{result:?}"));
    while journal.step(Duration::ZERO) == Step::Wrote {}
}

fn begin_again(group: GroupId, incarnation: Incarnation) -> Record {
    let vote = Vote { term: 1_000, ..Vote::default() };
    Record::BeginAgain { group, replica: ReplicaId(1), incarnation, snapshot: None, membership: Bytes::new(), vote }
}

/// A journal of four files: one batch per submission, of one group each, with votes and entries of some blocks.
fn filled() -> (SimDisk, Journal) {
    let disk = SimDisk::new(1);
    let (mut journal, _) = open(&disk);
    for group in (0..GROUPS).map(GroupId) {
        let incarnation = Incarnation(group.0);
        write(&mut journal, vec![Record::Create { group, replica: ReplicaId(1), incarnation }]);
    }
    for index in 0..ROUNDS {
        for group in (0..GROUPS).map(GroupId) {
            let vote = Vote { term: index, voted_for: Some(ReplicaId(group.0)), committed: true };
            let payload = Bytes::from(vec![index as u8 + 1; 5000]);
            let body = Body::Items([Item { kind: 1, payload }].into());
            let entry = Entry { log_id: LogId { term: 1, index }, body };
            write(&mut journal, vec![Record::Vote { group, vote }, Record::Append { group, entries: vec![entry] }]);
        }
    }
    (disk, journal)
}

/// A journal as it is after a clean stop, and what it holds.
fn stopped() -> SimDisk {
    let (disk, journal) = filled();
    journal.close().unwrap();
    disk
}

fn expected() -> BTreeMap<GroupId, RecoveredGroup> {
    let (_, recovered) = open(&stopped());
    assert!(recovered.damage.is_empty());
    assert!(recovered.groups.values().all(|group| group.tail.len() as u64 == ROUNDS));
    recovered.groups
}

fn content(disk: &SimDisk, path: &Path) -> Vec<u8> {
    let file = disk.open(path, false).unwrap();
    let mut all = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(&mut all, 0).unwrap();
    all
}

fn journal_files(disk: &SimDisk) -> Vec<PathBuf> {
    disk.list(Path::new(DIR)).unwrap()
}

/// What became of one piece of damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Healed,
    Named,
    All,
}

/// Checks what was recovered from a disk that was damaged at `at` in `path`.
fn judge(recovered: &Recovered, expected: &BTreeMap<GroupId, RecoveredGroup>, path: &Path, at: u64) -> Outcome {
    let place = format!("{} at {at}", path.display());
    for (id, whole) in expected {
        let suspect = recovered.damage.iter().any(|damage| damage.groups.includes(*id));
        let Some(group) = recovered.groups.get(id) else {
            assert!(suspect, "group {id} vanished in silence: {place}");
            continue;
        };
        assert_eq!(group.damaged, suspect, "group {id}: {place}");
        if suspect {
            assert!(whole.tail.starts_with(&group.tail), "a hole in group {id}: {place}");
        } else {
            assert_eq!(group, whole, "group {id} is not named: {place}: {:?}", recovered.damage);
        }
    }
    for damage in &recovered.damage {
        assert_eq!(damage.file, path, "{damage:?}");
        assert!(damage.range.contains(&at) && !damage.reason.is_empty(), "{damage:?} at {at}");
    }
    match recovered.damage.first().map(|damage| &damage.groups) {
        None => Outcome::Healed,
        Some(Suspect::Named(_)) => Outcome::Named,
        Some(Suspect::All) => Outcome::All,
    }
}

/// The damage is remembered, its file left alone, until it is accepted.
fn stays_until_accepted(disk: &SimDisk, journal: Journal, recovered: &Recovered, path: &Path) {
    let damaged = content(disk, path);
    journal.close().unwrap();
    let (mut journal, again) = open(disk);
    assert_eq!(again.damage, recovered.damage);
    assert_eq!(again.groups, recovered.groups);
    for index in 0..60 {
        // Another group fills the ring again and again; its entries go to segments at once.
        let group = GroupId(100);
        let body = Body::Items([Item { kind: 1, payload: vec![7; 9000].into() }].into());
        let log_id = LogId { term: 1, index };
        let incarnation = Incarnation(100);
        if index == 0 {
            write(&mut journal, vec![begin_again(group, incarnation)]);
        }
        write(&mut journal, vec![Record::Append { group, entries: vec![Entry { log_id, body }] }]);
        journal.handle().segments_synced(group, incarnation, log_id);
    }
    assert_eq!(content(disk, path), damaged, "a damaged file was written to");
    write(&mut journal, vec![Record::AcceptLoss { group: None }]);
    journal.close().unwrap();
    let (_, accepted) = open(disk);
    assert!(accepted.damage.is_empty() && accepted.groups.values().all(|group| !group.damaged));
}

#[test]
fn every_damaged_region_is_healed_or_named() {
    let expected = expected();
    let files = journal_files(&stopped());
    assert!(files.len() >= 4, "{files:?}");
    let mut outcomes: BTreeMap<Outcome, usize> = BTreeMap::new();
    for path in &files {
        for block in (0..FILE_BYTES).step_by(4096) {
            // Magic, checksum, length, kind, epoch, number, file, body length, body crc, group; body; tail of the block.
            for within in [0, 9, 13, 16, 25, 33, 41, 49, 57, 65, 90, 2000, 4095] {
                let disk = stopped();
                let at = block + within;
                disk.flip_bits(path, at..at + 1, 1).unwrap();
                let (journal, recovered) = open(&disk);
                let outcome = judge(&recovered, &expected, path, at);
                *outcomes.entry(outcome).or_default() += 1;
                if outcome != Outcome::Healed && within % 3 == 0 {
                    stays_until_accepted(&disk, journal, &recovered, path);
                }
            }
        }
    }
    println!("{outcomes:?}");
    assert!(outcomes[&Outcome::Named] > 100 && outcomes[&Outcome::All] > 10, "{outcomes:?}");
}

/// Damage that does not tell whose data it took is given names, and then dealt with group by group.
#[test]
fn damage_without_names_is_dealt_with_group_by_group() {
    let disk = stopped();
    // Of the newest file nothing says what stood in the part that is gone.
    disk.open(&last_frame(&disk).0, false).unwrap().set_len(FILE_BYTES - 4096).unwrap();
    let (mut journal, recovered) = open(&disk);
    assert!(recovered.damage.iter().any(|damage| damage.groups == Suspect::All), "{:?}", recovered.damage);
    let groups: Vec<GroupId> = (0..GROUPS).map(GroupId).collect();
    write(&mut journal, vec![Record::Suspects { groups: groups.clone() }]);
    for dealt_with in 0..=groups.len() {
        journal.close().unwrap();
        let (next, recovered) = open(&disk);
        journal = next;
        for group in &groups {
            let suspect = recovered.damage.iter().any(|damage| damage.groups.includes(*group));
            assert_eq!(suspect, group.0 >= dealt_with as u64, "group {group} after {dealt_with}");
            assert_eq!(recovered.groups[group].damaged, suspect);
        }
        assert!(!recovered.damage.iter().any(|damage| damage.groups.includes(GroupId(99))), "a group that came later");
        if let Some(group) = groups.get(dealt_with).copied() {
            let incarnation = Incarnation(100 + group.0);
            write(&mut journal, vec![begin_again(group, incarnation)]);
        } else {
            assert!(recovered.damage.is_empty());
        }
    }
}

#[test]
fn cut_and_missing_files_are_noticed() {
    let expected = expected();
    let files = journal_files(&stopped());
    let newest = last_frame(&stopped()).0;
    for path in &files {
        for len in [0, 4096, 5 * 4096, FILE_BYTES - 4096] {
            let disk = stopped();
            disk.open(path, false).unwrap().set_len(len).unwrap();
            // A newest file of which nothing is left looks like one that was never begun: see `journal/mod.rs`.
            if len > 0 || *path != newest {
                nothing_is_lost_in_silence(&disk, &expected, &format!("{} cut to {len}", path.display()));
            }
        }
        let disk = stopped();
        disk.remove(path).unwrap();
        if *path != newest {
            nothing_is_lost_in_silence(&disk, &expected, &format!("{} removed", path.display()));
        }
    }
}

fn nothing_is_lost_in_silence(disk: &SimDisk, expected: &BTreeMap<GroupId, RecoveredGroup>, what: &str) {
    let (_, recovered) = open(disk);
    for (id, whole) in expected {
        let suspect = recovered.damage.iter().any(|damage| damage.groups.includes(*id));
        assert!(suspect || recovered.groups.get(id) == Some(whole), "{what}: group {id}");
    }
}

#[test]
fn a_torn_tail_is_dropped_in_silence_and_a_sealed_one_is_not() {
    let expected = expected();
    // Not sealed: the last batch of a killed process is the one of the last group.
    let last = GroupId(GROUPS - 1);
    let (disk, journal) = filled();
    drop(journal);
    let (path, at) = last_frame(&disk);
    disk.flip_bits(&path, at + 3000..at + 3001, 1).unwrap();
    let (_, recovered) = open(&disk);
    assert!(recovered.damage.is_empty());
    for (id, whole) in &expected {
        let missing = u64::from(*id == last);
        assert_eq!(recovered.groups[id].tail.len() as u64, ROUNDS - missing);
        assert_eq!(recovered.groups[id] == *whole, missing == 0);
    }
    // Sealed: the same damage is damage.
    let disk = stopped();
    disk.flip_bits(&path, at + 3000..at + 3001, 1).unwrap();
    let (_, recovered) = open(&disk);
    assert_eq!(recovered.damage.len(), 1);
    assert_eq!(recovered.damage[0].groups, Suspect::Named(vec![last]));
    assert_eq!(recovered.damage[0].file, path);
}

/// Where the batch with the highest number starts: its number is at byte 32 of its header.
fn last_frame(disk: &SimDisk) -> (PathBuf, u64) {
    let number = |block: &[u8]| u64::from_le_bytes(block[32..40].try_into().unwrap());
    let frames = journal_files(disk).into_iter().flat_map(|path| {
        let content = content(disk, &path);
        let starts = (0..FILE_BYTES).step_by(4096);
        let blocks: Vec<_> = starts.zip(content.chunks(4096).map(<[u8]>::to_vec)).collect();
        blocks
            .into_iter()
            .filter(|(_, block)| block.starts_with(b"FLOTJNL1"))
            .map(move |(at, block)| (number(&block), path.clone(), at))
    });
    let (_, path, at) = frames.max_by_key(|(number, _, _)| *number).unwrap();
    (path, at)
}

#[test]
fn opening_again_and_again_neither_grows_nor_forgets() {
    let expected = expected();
    let disk = stopped();
    let before = journal_files(&disk).len();
    for _ in 0..40 {
        let (journal, recovered) = open(&disk);
        assert_eq!(recovered.groups, expected);
        drop(journal);
        disk.power_cut();
    }
    assert!(journal_files(&disk).len() <= before + 3, "{:?}", journal_files(&disk));
}
