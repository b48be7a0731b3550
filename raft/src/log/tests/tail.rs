//! The tail alone.

use std::sync::Arc;

use bytes::Bytes;

use crate::journal::JournalSeq;
use crate::log::tail::Tail;
use crate::types::{Body, Decision, Entry, Item, Kept, LogId};

fn entry(index: u64) -> Entry {
    let items = [index, index + 100].map(|n| Item { kind: 1, payload: Bytes::from(n.to_string()) });
    Entry { log_id: LogId { term: 1, index }, body: Body::Items(Arc::new(items)) }
}

/// The first item of each entry is kept, as offsets `10 * index .. 10 * index + 5`, at time `index`.
fn decisions(index: u64) -> Arc<[Decision]> {
    let kept = Kept { base_offset: 10 * index, offset_count: 5, max_timestamp_ms: index as i64 };
    Arc::new([Decision::Keep(kept), Decision::Drop])
}

/// Entries 5 to 9, of which 5, 6 and 7 are applied.
fn tail() -> Tail {
    let mut tail = Tail::new(5, 45);
    for index in 5..10 {
        tail.push(entry(index), JournalSeq(index)).unwrap();
    }
    for index in 5..8 {
        tail.mark_applied(index, decisions(index), Arc::default()).unwrap();
    }
    tail
}

fn indexes(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.log_id.index).collect()
}

fn offsets(tail: &Tail, from: u64, bytes_max: usize) -> Option<Vec<u64>> {
    Some(tail.read(from, bytes_max)?.iter().map(|stored| stored.kept.base_offset).collect())
}

#[test]
fn entries_follow_each_other() {
    let mut tail = tail();
    assert!(tail.push(entry(11), JournalSeq(11)).is_err() && tail.push(entry(9), JournalSeq(11)).is_err());
    tail.push(entry(10), JournalSeq(11)).unwrap();
    assert_eq!((tail.first_index(), tail.next_index()), (5, 11));
    assert_eq!((tail.seq(4), tail.seq(10), tail.seq(11)), (None, Some(JournalSeq(11)), None));
}

#[test]
fn ranges_are_cut_at_a_size_but_never_empty() {
    let tail = tail();
    assert_eq!(indexes(&tail.range(6, 9, usize::MAX)), [6, 7, 8]);
    assert_eq!(indexes(&tail.range(6, 9, 0)), [6]);
    assert_eq!(indexes(&tail.range(8, 100, usize::MAX)), [8, 9]);
    assert!(tail.range(10, 100, usize::MAX).is_empty() && tail.range(4, 6, usize::MAX).is_empty());
}

#[test]
fn apply_leaves_no_hole() {
    let mut tail = tail();
    assert!(tail.mark_applied(9, decisions(9), Arc::default()).is_err(), "8 is not applied");
    tail.mark_applied(7, decisions(3), Arc::default()).unwrap();
    assert_eq!(offsets(&tail, 70, usize::MAX), Some(vec![70]), "what was decided once stays");
    tail.mark_applied(8, decisions(8), Arc::default()).unwrap();
    tail.mark_applied(9, decisions(9), Arc::default()).unwrap();
    assert!(tail.mark_applied(10, decisions(10), Arc::default()).is_err(), "there is no entry 10");
}

#[test]
fn a_truncation_never_takes_what_is_applied() {
    let mut tail = tail();
    let before = tail.bytes();
    for index in [None, Some(3), Some(6)] {
        assert!(tail.truncate_after(index).is_err(), "{index:?}");
    }
    assert_eq!((tail.next_index(), tail.bytes()), (10, before));
    tail.truncate_after(Some(20)).unwrap();
    assert_eq!(tail.next_index(), 10);
    tail.truncate_after(Some(7)).unwrap();
    assert_eq!((tail.next_index(), tail.bytes()), (8, tail.applied_bytes()));
    assert_eq!(tail.frames(usize::MAX).len(), 3);
}

#[test]
fn reads_find_items_by_offset_and_time_and_only_what_is_applied() {
    let tail = tail();
    assert_eq!(offsets(&tail, 44, usize::MAX), None, "older: ask the segments");
    assert_eq!(offsets(&tail, 45, usize::MAX), Some(vec![50, 60, 70]));
    assert_eq!(offsets(&tail, 54, usize::MAX), Some(vec![50, 60, 70]), "inside of an item");
    assert_eq!(offsets(&tail, 55, usize::MAX), Some(vec![60, 70]));
    assert_eq!(offsets(&tail, 55, 0), Some(vec![60]));
    assert_eq!(offsets(&tail, 75, usize::MAX), Some(vec![]));
    let at = |timestamp_ms| tail.find_timestamp(timestamp_ms, 0).map(|stored| stored.kept.base_offset);
    assert_eq!((at(0), at(6), at(7), at(8)), (Some(50), Some(60), Some(70), None));
    let from = |from| tail.find_timestamp(0, from).map(|stored| stored.kept.base_offset);
    assert_eq!((from(54), from(55), from(75)), (Some(50), Some(60), None));
}

#[test]
fn a_release_takes_applied_entries_and_remembers_where_offsets_end() {
    let mut tail = tail();
    let frames = tail.frames(usize::MAX);
    assert_eq!(frames.iter().map(|frame| frame.entry.log_id.index).collect::<Vec<_>>(), [5, 6, 7]);
    let before = tail.bytes();
    let released = tail.release(6);
    assert_eq!((tail.first_index(), tail.applied_count(), tail.bytes()), (7, 1, before - released));
    assert_eq!(offsets(&tail, 64, usize::MAX), None);
    assert_eq!(offsets(&tail, 65, usize::MAX), Some(vec![70]));
    tail.release(100);
    assert_eq!((tail.first_index(), tail.applied_bytes()), (8, 0), "what is not applied stays");
    assert_eq!(offsets(&tail, 75, usize::MAX), Some(vec![]));
    assert_eq!(indexes(&tail.unapplied()), [8, 9]);
}

#[test]
fn a_snapshot_replaces_what_is_up_to_it_and_leaves_what_is_behind() {
    let mut one = tail();
    assert!(one.restart_behind(6, 70).is_err(), "7 is applied");
    assert_eq!((one.first_index(), one.applied_count()), (5, 3));
    let before = one.bytes();
    let freed = one.restart_behind(8, 90).unwrap();
    assert_eq!((one.first_index(), one.next_index(), one.bytes()), (9, 10, before - freed));
    assert_eq!((one.applied_count(), one.applied_bytes()), (0, 0));
    assert_eq!(offsets(&one, 89, usize::MAX), None);
    one.mark_applied(9, decisions(9), Arc::default()).unwrap();
    assert_eq!(offsets(&one, 90, usize::MAX), Some(vec![90]));

    let mut other = tail();
    other.restart_behind(30, 90).unwrap();
    assert_eq!((other.first_index(), other.next_index(), other.bytes()), (31, 31, 0));
    other.push(entry(31), JournalSeq(31)).unwrap();
}
