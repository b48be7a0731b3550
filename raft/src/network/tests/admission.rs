//! A group that does not get on gives back the room in memory that its proposals took, and others have theirs.

use tokio::task::JoinSet;

use super::cluster::*;
use crate::group::{Group, ProposeError};
use crate::log::tests::node::{FORGET, PATIENCE, fill};
use crate::registry::Begin;
use crate::types::{GroupId, Item};

const NODES: [u64; 3] = [1, 2, 3];
const ALONE: GroupId = GroupId(6);
/// All of them are several times what a node takes.
const PROPOSALS: usize = 200;
const PROPOSAL_BYTES: usize = 1 << 20;
/// What is on its way when nothing gets on any more, and then some.
const STUCK_MAX: u64 = 8 * PROPOSAL_BYTES as u64;

async fn propose(group: Group) -> Result<(), ProposeError> {
    group.propose(Item { kind: FORGET, payload: vec![1; PROPOSAL_BYTES].into() }).await.map(|_| ())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_when_the_majority_is_lost_is_refused() {
    let mut cluster = Cluster::new(3).await;
    cluster.found(GROUP, &NODES).await;
    let leader = cluster.leader(GROUP, &NODES).await;
    let alone = cluster.start(leader, ALONE, Begin::Initialize(vec![replica(leader)])).await;
    alone.wait_ready(PATIENCE).await.unwrap();
    let group = cluster.group(leader, GROUP);
    let mut flood = JoinSet::new();
    (0..PROPOSALS).for_each(|_| drop(flood.spawn(propose(group.clone()))));
    flood.join_next().await.unwrap().unwrap().unwrap();
    NODES.into_iter().filter(|id| *id != leader).for_each(|id| cluster.kill(id));
    let registry = cluster.registry(leader);
    eventually(PATIENCE, "room is given back", || (registry.unwritten_bytes() < STUCK_MAX).then_some(())).await;
    tokio::time::timeout(PATIENCE, fill(&alone, 0..100)).await.expect("another group goes on");
    let mut refused = 0;
    while let Some(ended) = flood.try_join_next() {
        if let Err(ProposeError::NoQuorum { offline, .. }) = ended.unwrap() {
            assert_eq!(offline.len(), 2);
            refused += 1;
        }
    }
    assert!(refused > 0);
    assert!(matches!(propose(group).await, Err(ProposeError::NoQuorum { .. })), "and what comes now");
}

/// The links are up, so that nobody can tell that nothing gets on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_left_keeps_no_room() {
    let cluster = Cluster::new(3).await;
    cluster.found(GROUP, &NODES).await;
    let leader = cluster.leader(GROUP, &NODES).await;
    let alone = cluster.start(leader, ALONE, Begin::Initialize(vec![replica(leader)])).await;
    alone.wait_ready(PATIENCE).await.unwrap();
    let group = cluster.group(leader, GROUP);
    for id in NODES.into_iter().filter(|id| *id != leader) {
        cluster.registry(id).remove(GROUP).await.unwrap();
    }
    let registry = cluster.registry(leader);
    let mut flood = JoinSet::new();
    (0..PROPOSALS).for_each(|_| drop(flood.spawn(propose(group.clone()))));
    eventually(PATIENCE, "its share is taken", || (registry.unwritten_bytes() >= STUCK_MAX).then_some(())).await;
    tokio::time::timeout(PATIENCE, fill(&alone, 0..100)).await.expect("another group has room of its own");
    flood.abort_all();
    eventually(PATIENCE, "room is given back", || (registry.unwritten_bytes() < STUCK_MAX).then_some(())).await;
}
