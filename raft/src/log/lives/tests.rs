//! Lives that are left over, set aside, put together, and whose deletion is cut short.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;

use super::*;
use crate::disk::sim::SimDisk;
use crate::state::keys::GroupKeys;
use crate::state::{OrderedState, WriteBatch};
use crate::types::ReplicaId;

const GROUPS: &str = "/data/groups";

fn put(state: &OrderedState, group: GroupId, incarnation: Incarnation) {
    let mut batch = WriteBatch::default();
    batch.put(GroupKeys::new(group, incarnation).row(1, b"key"), *b"value");
    batch.put(GroupKeys::new(group, incarnation).row(2, b"key"), *b"value");
    state.write(batch).unwrap();
}

#[test]
fn only_what_is_known_to_be_left_over_is_deleted() {
    let (state, disk) = (Arc::new(OrderedState::default()), Arc::new(SimDisk::new(1)));
    let lives = Lives::new(disk.clone(), GROUPS.into(), SegmentOptions::default(), state.clone(), <_>::default(), 7);
    let (known, removed, unknown, rows_only, marked) = (GroupId(1), GroupId(2), GroupId(3), GroupId(4), GroupId(5));
    let incarnations = [(); 7].map(|()| lives.next());
    let [old, valid, second, third, fourth, fifth, half] = incarnations;
    assert!(incarnations.is_sorted() && old < valid);
    for (group, incarnation) in [(known, old), (known, valid), (removed, second), (unknown, third), (marked, fifth)] {
        put(&state, group, incarnation);
        drop(lives.open_segments(group, incarnation, None).unwrap());
    }
    put(&state, rows_only, fourth);
    put(&state, NODE_ROWS, Incarnation(0));
    put(&state, unknown, half);
    drop(lives.open_unfinished(unknown, half).unwrap());
    // What layout 1 began to delete.
    disk.open(&segments_dir(Path::new(GROUPS), marked, fifth).join(REMOVED), true).unwrap();
    let not_ours = Path::new(GROUPS).join("not ours");
    disk.create_dir_all(&not_ours).unwrap();

    assert!(!lives.is_gone(removed), "nobody has looked yet");
    let lost = lives.delete_orphans(&BTreeMap::from([(known, valid)]), &BTreeMap::from([(removed, ReplicaId(1))])).unwrap();
    assert!(lives.is_gone(removed));
    assert_eq!(lost.into_keys().collect::<Vec<_>>(), [unknown]);
    let kept = BTreeSet::from([(known, valid), (unknown, third)]);
    assert_eq!(lives.directories().unwrap(), kept);
    let rows = &kept | &BTreeSet::from([(NODE_ROWS, Incarnation(0))]);
    assert_eq!(lives.owners().unwrap(), rows);
    assert_eq!(disk.list(Path::new(GROUPS)).unwrap().len(), kept.len() + 1, "what was not finished is gone");
    assert!(disk.list(Path::new(GROUPS)).unwrap().contains(&not_ours));
}

#[test]
fn what_is_set_aside_keeps_its_rows_until_it_is_deleted() {
    let (state, disk) = (Arc::new(OrderedState::default()), Arc::new(SimDisk::new(1)));
    let lives = Lives::new(disk.clone(), GROUPS.into(), SegmentOptions::default(), state.clone(), <_>::default(), 7);
    let (group, other) = (GroupId(1), GroupId(11));
    let [old, kept] = [(); 2].map(|()| lives.next());
    for (group, incarnation) in [(group, old), (other, kept)] {
        put(&state, group, incarnation);
        drop(lives.open_segments(group, incarnation, None).unwrap());
    }
    let journal = Path::new("/data/journal");
    disk.create_dir_all(journal).unwrap();
    let file = disk.open(&journal.join("1"), true).unwrap();
    file.write_all_at(&[IoSlice::new(b"what was readable")], 0).unwrap();
    lives.keep_copy(&journal.join("1"), "journal-1").unwrap();
    file.write_all_at(&[IoSlice::new(b"WHAT CAME LATER..")], 0).unwrap();
    lives.keep_copy(&journal.join("1"), "journal-1").unwrap();
    assert_eq!(lives.set_aside(group).unwrap(), 1);
    disk.power_cut();
    let copy = disk.open(Path::new("/data/damaged/journal-1"), false).unwrap();
    let mut bytes = [0; 17];
    copy.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"what was readable", "the first copy stays");

    // The new life, after a journal that counts its openings anew.
    let lives = Lives::new(disk.clone(), GROUPS.into(), SegmentOptions::default(), state.clone(), <_>::default(), 1);
    lives.number_behind_all().unwrap();
    let new = lives.next();
    assert!(new > old && new > kept, "{new}");
    put(&state, group, new);
    drop(lives.open_segments(group, new, None).unwrap());
    let valid = BTreeMap::from([(group, new), (other, kept)]);
    assert_eq!(lives.delete_orphans(&valid, &BTreeMap::new()).unwrap(), BTreeMap::new());
    assert_eq!(lives.owners().unwrap(), BTreeSet::from([(group, old), (group, new), (other, kept)]));
    assert_eq!(lives.groups().unwrap(), BTreeSet::from([group, other]));
    disk.remove_dir_all(&segments_dir(Path::new("/data/damaged"), group, old)).unwrap();
    assert_eq!(lives.delete_orphans(&valid, &BTreeMap::new()).unwrap(), BTreeMap::new());
    assert_eq!(lives.owners().unwrap(), BTreeSet::from([(group, new), (other, kept)]));
}

#[test]
fn no_incarnation_is_used_twice() {
    let lives = |boot_epoch| {
        let (disk, state) = (Arc::new(SimDisk::new(1)), Arc::new(OrderedState::default()));
        Lives::new(disk, GROUPS.into(), SegmentOptions::default(), state, <_>::default(), boot_epoch)
    };
    let (one, two) = (lives(1), lives(2));
    let made = [one.next(), one.next(), two.next(), two.next()];
    assert!(made.windows(2).all(|pair| pair[0] < pair[1]), "{made:?}");
}
