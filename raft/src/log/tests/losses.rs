//! Damaged groups without other replicas, whose loss somebody accepts.

use std::path::{Path, PathBuf};

use super::node::*;
use crate::disk::Disk;
use crate::group::{Group, ReadError};
use crate::joining::Joining;
use crate::registry::{Begin, Salvaged, StartError};
use crate::segments::segments_dir;
use crate::types::GroupId;

const GROUP: GroupId = GroupId(1);
const KEPT: u64 = 200;

/// A stopped and reopened node whose group has [`KEPT`] items in segments, and where these are.
async fn filled(seed: u64) -> (Node, Vec<PathBuf>) {
    let mut node = Node::new(seed);
    let group = node.start(GROUP, &[REPLICA]).await;
    fill(&group, 0..KEPT).await;
    let dir = segments_dir(&node.groups_dir(), GROUP, group.log().incarnation());
    drop(group);
    node.restart().await;
    let segments = files(&node, &dir, "segment");
    assert!(segments.len() > 2, "{segments:?}");
    (node, segments)
}

fn files(node: &Node, dir: &Path, extension: &str) -> Vec<PathBuf> {
    let files = node.disk.list(dir).unwrap();
    files.into_iter().filter(|path| path.extension().is_some_and(|found| found == extension)).collect()
}

async fn refused(node: &Node) -> StartError {
    node.registry()
        .start(GROUP, REPLICA.id, Box::new(Ledger::default()), None, Begin::Initialize(vec![REPLICA]))
        .await
        .unwrap_err()
}

async fn accept_loss(node: &Node) -> Salvaged {
    node.registry().accept_loss(GROUP, REPLICA.id, Box::new(Ledger::default())).await.unwrap()
}

/// All that is lost is what is said to be, the rest is where it was, and the group goes on behind it, also after a restart.
async fn goes_on(node: &mut Node, salvaged: &Salvaged) {
    let left = |offset: &u64| !salvaged.lost.iter().any(|lost| lost.contains(offset));
    let mut expected: Vec<(u64, Vec<u8>)> = (0..KEPT).filter(left).map(|offset| (offset, payload(offset))).collect();
    let group = node.start(GROUP, &[REPLICA]).await;
    assert!(found(&group).await == expected, "what is left is not as it was");
    for more in 0..20 {
        let next = propose(&group, KEEP, payload(more)).await;
        assert_eq!(next, salvaged.next_offset + more + 1);
        expected.push((next - 1, payload(more)));
    }
    assert!(found(&group).await == expected, "what is left is not as it was");
    drop(group);
    node.power_cut();
    let group = node.start(GROUP, &[REPLICA]).await;
    assert!(found(&group).await == expected, "what is left is not as it was");
    assert!(
        node.registry().accept_loss(GROUP, REPLICA.id, Box::new(Ledger::default())).await.is_err(),
        "it is not damaged any more"
    );
}

async fn found(group: &Group) -> Vec<(u64, Vec<u8>)> {
    kept(group, 0).await.into_iter().map(|(offset, payload)| (offset, payload.to_vec())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_payload_met_while_reading_is_all_that_is_lost() {
    let (mut node, segments) = filled(1).await;
    let bytes = node.disk.open(&segments[1], false).unwrap();
    let mut content = vec![0; bytes.len().unwrap() as usize];
    bytes.read_exact_at(&mut content, 0).unwrap();
    // In the middle of a payload: its second half is one byte over and over.
    let at = (100..content.len()).find(|at| content[at - 40..*at].iter().all(|byte| *byte == content[*at])).unwrap() as u64;
    node.disk.flip_bits(&segments[1], at - 10..at - 9, 1).unwrap();
    let group = node.start(GROUP, &[REPLICA]).await;
    let mut offset = 0;
    while let Ok(items) = group.read(offset, 1 << 10).await {
        offset = items.last().unwrap().kept.base_offset + 1;
    }
    assert!(matches!(group.read(offset, 1).await, Err(ReadError::Segment(_))));
    let reason = group.damage().expect("whoever met the damage can act on it at once");
    drop(group);
    node.registry().condemn(GROUP, reason).await.unwrap();
    let salvaged = accept_loss(&node).await;
    let lost: Vec<u64> = salvaged.lost.iter().cloned().flatten().collect();
    assert_eq!((lost, salvaged.lost_offsets, salvaged.next_offset), (vec![offset], 1, KEPT));
    assert!(!salvaged.end_unknown && salvaged.useless_bytes > 0, "{salvaged:?}");
    goes_on(&mut node, &salvaged).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_damaged_of_segments_the_rest_is_kept() {
    for case in 0..6_usize {
        let (mut node, segments) = filled(case as u64).await;
        let file = &segments[case % 3];
        match case {
            0 => node.disk.flip_bits(file, 0..2_000, 40).unwrap(),
            1 => node.disk.remove(file).unwrap(),
            2 => node.disk.open(file, false).unwrap().set_len(1_000).unwrap(),
            3 => node.disk.flip_bits(&file.with_file_name("log-start"), 9..10, 1).unwrap(),
            4 => node.disk.flip_bits(segments.last().unwrap(), 32..200, 20).unwrap(),
            _ => node.disk.open(segments.last().unwrap(), false).unwrap().set_len(100).unwrap(),
        }
        files(&node, file.parent().unwrap(), "index").iter().for_each(|index| node.disk.remove(index).unwrap());
        if case % 2 == 0 {
            // It was damaged while it was copied from others, of whom nobody has it any more.
            Joining::begin(&node.disk, &node.groups_dir(), GROUP).unwrap();
        }
        let refused = refused(&node).await;
        assert!(matches!(refused, StartError::Damaged { .. }), "case {case}: {refused}");
        let salvaged = accept_loss(&node).await;
        assert_eq!(salvaged.lost.is_empty(), case == 3, "case {case}: {salvaged:?}");
        assert!(salvaged.lost_offsets < KEPT / 2, "case {case}: {salvaged:?}");
        goes_on(&mut node, &salvaged).await;
    }
}

/// What the journal lost may have been acknowledged: its offsets are not given to others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_offset_of_what_the_journal_lost_is_given_out_again() {
    let mut node = Node::new(7);
    let group = node.start(GROUP, &[REPLICA]).await;
    fill(&group, 0..KEPT).await;
    drop(group);
    node.kill();
    let journal = node.groups_dir().with_file_name("journal");
    let before = node.disk.list(&journal).unwrap();
    for file in before {
        let len = node.disk.open(&file, false).unwrap().len().unwrap();
        node.disk.flip_bits(&file, 20_000..len.min(60_000), 400).unwrap();
    }
    node.kill();
    let refused = refused(&node).await;
    assert!(matches!(refused, StartError::Damaged { .. }), "{refused}");
    let salvaged = accept_loss(&node).await;
    assert!(salvaged.end_unknown && salvaged.next_offset > KEPT, "{salvaged:?}");
    for _ in 0..2 {
        let group = node.start(GROUP, &[REPLICA]).await;
        let found = found(&group).await;
        assert!(found.iter().filter(|(offset, _)| *offset < KEPT).all(|(offset, held)| *held == payload(*offset)));
        assert!(propose(&group, KEEP, payload(0)).await > salvaged.next_offset, "an offset was given out again");
        drop(group);
        node.power_cut();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_that_is_cut_short_is_made_again() {
    for fails_in in 0..12 {
        let (mut node, segments) = filled(fails_in).await;
        node.disk.flip_bits(&segments[1], 0..2_000, 40).unwrap();
        files(&node, segments[0].parent().unwrap(), "index").iter().for_each(|index| node.disk.remove(index).unwrap());
        refused(&node).await;
        node.disk.faults(|faults| faults.sync_fails_in = Some(fails_in));
        let first = node.registry().accept_loss(GROUP, REPLICA.id, Box::new(Ledger::default())).await;
        node.disk.faults(|faults| faults.sync_fails_in = None);
        node.power_cut();
        let salvaged = match first {
            Ok(salvaged) => salvaged,
            Err(_) => {
                let refused = refused(&node).await;
                assert!(matches!(refused, StartError::Damaged { .. }), "after {fails_in} syncs: {refused}");
                accept_loss(&node).await
            }
        };
        assert!(!salvaged.lost.is_empty() && salvaged.lost_offsets < KEPT / 2, "after {fails_in} syncs: {salvaged:?}");
        goes_on(&mut node, &salvaged).await;
    }
}
