//! Crashes between the parts of the storage: journal, segments and state are never equally far.

use super::node::*;
use crate::disk::sim::Rng;
use crate::registry::{Begin, StartError};
use crate::state::keys::GroupKeys;
use crate::state::{State, WriteBatch};
use crate::types::GroupId;

const GROUP: GroupId = GroupId(1);

/// What was applied before the crash is not applied again, so what was decided must have been kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn decisions_survive_when_state_is_durable_and_segments_are_not() {
    let mut node = Node::new(1);
    let group = node.start(GROUP, &[REPLICA]).await;
    fill(&group, 0..50).await;
    propose(&group, FORGET, payload(1)).await;
    node.state.flush().unwrap();
    assert!(group.segments().is_empty(), "nothing was flushed to segments yet");
    drop(group);

    node.power_cut();
    let group = node.start(GROUP, &[REPLICA]).await;
    assert_eq!(kept(&group, 0).await, expected(0..50));
    fill(&group, 50..60).await;
    drop(group);
    node.restart().await;
    let group = node.start(GROUP, &[REPLICA]).await;
    assert!(!group.segments().is_empty());
    assert_eq!(kept(&group, 0).await, expected(0..60));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_whose_decisions_are_gone_does_not_start() {
    let mut node = Node::new(2);
    let group = node.start(GROUP, &[REPLICA]).await;
    fill(&group, 0..5).await;
    let mut batch = WriteBatch::default();
    batch.delete_prefix(GroupKeys::new(GROUP, group.log().incarnation()).decisions_prefix());
    node.state.write(batch).unwrap();
    node.state.flush().unwrap();
    drop(group);
    node.power_cut();
    let error = node
        .registry()
        .start(GROUP, REPLICA.id, Box::new(Ledger::default()), None, Begin::Initialize(vec![REPLICA]))
        .await
        .unwrap_err();
    assert!(matches!(&error, StartError::Damaged { .. }) && error.to_string().contains("decided"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_whose_rows_are_gone_does_not_start_once_the_log_has_let_go_of_them() {
    let mut node = Node::new(3);
    let group = node.start(GROUP, &[REPLICA]).await;
    fill(&group, 0..100).await;
    drop(group);
    node.restart().await;
    let group = node.start(GROUP, &[REPLICA]).await;
    propose(&group, RELEASE, 90_u64.to_be_bytes().to_vec()).await;
    assert!(group.release_below(90).await.unwrap() > 0);
    let mut batch = WriteBatch::default();
    batch.delete_prefix(GroupKeys::new(GROUP, group.log().incarnation()).prefix());
    node.state.write(batch).unwrap();
    node.state.flush().unwrap();
    drop(group);
    node.power_cut();
    let error = node
        .registry()
        .start(GROUP, REPLICA.id, Box::new(Ledger::default()), None, Begin::Initialize(vec![REPLICA]))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("rows were lost"), "{error}");
}

/// Whatever was flushed or synced by chance: everything acknowledged is there, in order, under the same offsets.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_crashes_lose_and_reorder_nothing() {
    for seed in 0..6 {
        let mut rng = Rng::new(seed);
        let mut node = Node::new(seed);
        let mut next = 0;
        for round in 0..8 {
            let group = node.start(GROUP, &[REPLICA]).await;
            let found = kept(&group, 0).await;
            assert_eq!(found, expected(0..next), "seed {seed}, round {round}");
            for _ in 0..rng.below(4) {
                let count = 1 + rng.below(40);
                fill(&group, next..next + count).await;
                next += count;
                match rng.below(4) {
                    0 => node.state.flush().unwrap(),
                    1 => sync_segments(&group, rng.below(2) == 0).await,
                    _ => {}
                }
            }
            drop(group);
            match rng.below(3) {
                0 => node.restart().await,
                1 => node.kill(),
                _ => node.power_cut(),
            }
        }
    }
}

async fn sync_segments(group: &crate::group::Group, sync: bool) {
    let log = group.log().clone();
    tokio::task::spawn_blocking(move || log.flush(sync)).await.unwrap().unwrap();
}
