//! Groups that are removed while the power fails, the process is killed, or the disk refuses: the rest goes later.

use std::path::Path;

use super::node::*;
use crate::disk::Disk;
use crate::disk::error::Operation;
use crate::disk::sim::{Injection, code};
use crate::registry::Begin;
use crate::segments::segments_dir;
use crate::types::{GroupId, Replica, ReplicaId};

const GROUP: GroupId = GroupId(1);
const OTHER: GroupId = GroupId(2);
const KEPT: u64 = 60;

/// A reopened node with two groups that have something in segments and in the journal.
async fn filled(seed: u64) -> Node {
    let mut node = Node::new(seed);
    for group in [GROUP, OTHER] {
        drop(node.start(group, &[REPLICA]).await);
        fill(&node.registry().group(group).unwrap(), 0..KEPT).await;
    }
    node.restart().await;
    for group in [GROUP, OTHER] {
        fill(&node.start(group, &[REPLICA]).await, KEPT..KEPT + 5).await;
    }
    node
}

/// The group is gone, and what is left of it is no reason to worry; the other one is whole.
async fn is_gone(node: &mut Node, what: &str) {
    assert!(node.registry().group(GROUP).is_none() && node.registry().outage(GROUP).is_none(), "{what}");
    let other = node.start(OTHER, &[REPLICA]).await;
    assert_eq!(kept(&other, 0).await, expected(0..KEPT + 5), "{what}");
    assert_eq!(node.lives(), [(OTHER, other.log().incarnation())], "{what}: something is left");
    drop(other);
    assert_eq!(node.registry().removed_groups(), [GROUP], "{what}");
    node.registry().forget(vec![GROUP]).await.unwrap();
    node.power_cut();
    assert!(node.registry().removed_groups().is_empty() && node.registry().outage(GROUP).is_none(), "{what}");
    assert_eq!(node.registry().idle_groups(), [OTHER], "{what}");
}

async fn is_whole(node: &Node, what: &str) {
    let group = node.start(GROUP, &[REPLICA]).await;
    assert_eq!(kept(&group, 0).await, expected(0..KEPT + 5), "{what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_power_fails_at_each_step_of_a_removal() {
    let (mut whole, mut gone) = (0, 0);
    // What is written when the power fails is on the disk or not, by chance: while the word that it is removed is written.
    let steps = (0..8).flat_map(|seed| [(0, seed), (1, seed)]).chain((2..).map(|step| (step, step)));
    for (step, seed) in steps {
        let mut node = filled(seed).await;
        node.disk.faults(|faults| faults.power_fails_in = Some(step));
        let removed = node.registry().remove(GROUP).await;
        let done = !node.disk.faults(|faults| faults.power_is_off());
        node.power_cut();
        let what = format!("step {step}, seed {seed}");
        if node.registry().idle_groups().contains(&GROUP) {
            assert!(removed.is_err(), "{what}: it was removed and is there again");
            is_whole(&node, &what).await;
            node.registry().remove(GROUP).await.unwrap();
            whole += 1;
        } else {
            gone += 1;
        }
        is_gone(&mut node, &what).await;
        if done {
            break;
        }
    }
    assert!(whole > 0 && gone > 1, "the power failed during too few steps: {whole}, {gone}");
}

/// A directory is deleted file by file, in an order that nobody knows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_in_the_middle_of_a_deletion_is_finished_at_the_next_start() {
    for deleted in 0.. {
        let mut node = filled(deleted as u64).await;
        let dir = segments_dir(&node.groups_dir(), GROUP, node.registry().group(GROUP).unwrap().log().incarnation());
        node.disk.inject(Injection::new(Operation::RemoveDir, code::EACCES).forever());
        node.registry().remove(GROUP).await.unwrap();
        let files = node.disk.list(&dir).unwrap();
        for file in files.iter().take(deleted) {
            node.disk.remove(file).unwrap();
        }
        node.disk.faults(|faults| faults.injections.clear());
        node.kill();
        is_gone(&mut node, &format!("{deleted} files were deleted")).await;
        if deleted > files.len() {
            assert!(deleted > 3, "{files:?}");
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_fails_during_a_removal_it_is_done_later() {
    for operation in Operation::ALL {
        for after in 0.. {
            let mut node = filled(after).await;
            node.disk.inject(Injection::new(operation, code::EACCES).after(after).forever());
            let removed = node.registry().remove(GROUP).await;
            let met = node.disk.faults(|faults| {
                faults.injections.clear();
                faults.injected > 0
            });
            let what = format!("{operation:?} after {after}: {removed:?}");
            if removed.is_err() {
                // The journal failed: storage is opened again.
                assert!(node.registry().outage(GROUP).is_some(), "{what}");
                node.kill();
                node.registry().remove(GROUP).await.unwrap();
            }
            node.kill();
            is_gone(&mut node, &what).await;
            if !met {
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_could_not_be_deleted_is_deleted_while_the_node_runs() {
    let node = filled(1).await;
    let dir = segments_dir(&node.groups_dir(), GROUP, node.registry().group(GROUP).unwrap().log().incarnation());
    node.disk.inject(Injection::new(Operation::RemoveDir, code::EACCES).times(2));
    node.registry().remove(GROUP).await.unwrap();
    assert!(node.disk.list(&dir).is_ok());
    node.registry().forget(vec![GROUP]).await.unwrap();
    assert_eq!(node.registry().removed_groups(), [GROUP], "as long as something of it is left it is not forgotten");
    let again = node.start_later(GROUP).await;
    assert_eq!(propose(&again, KEEP, payload(0)).await, 1, "what is left of it hinders nobody");
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while node.disk.list(&dir).is_ok() {
        assert!(tokio::time::Instant::now() < deadline, "it is never deleted");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(kept(&again, 0).await, expected(0..1));
    assert!(node.disk.list(Path::new(&segments_dir(&node.groups_dir(), GROUP, again.log().incarnation()))).is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_was_removed_does_not_come_back() {
    let mut node = filled(1).await;
    node.registry().remove(GROUP).await.unwrap();
    node.power_cut();
    for count in 0..3 {
        let start = async |id: u64| {
            let replica = Replica { id: ReplicaId(id), node: NODE };
            node.registry().start(GROUP, replica.id, Box::new(Ledger::default()), None, Begin::Initialize(vec![replica])).await
        };
        assert!(start(REPLICA.id.0 + count).await.is_err(), "it was here before");
        let group = start(REPLICA.id.0 + count + 1).await.unwrap();
        group.wait_ready(PATIENCE).await.unwrap();
        assert_eq!(propose(&group, KEEP, payload(0)).await, 1, "replica {count} begins with nothing");
        drop(group);
        node.registry().remove(GROUP).await.unwrap();
    }
}
