//! Entries get to the replicas: all of them, in order, over fast and slow networks, large and small.

use std::time::Duration;

use super::cluster::*;
use crate::log::tests::node::{FORGET, PATIENCE, fill, payload};
use crate::registry::TransferOptions;
use crate::types::{GroupId, Item};

const NODES: [u64; 3] = [1, 2, 3];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_replicas_elect_and_hold_the_same() {
    let cluster = Cluster::new(3).await;
    cluster.found(GROUP, &NODES).await;
    let leader = cluster.leader(GROUP, &NODES).await;
    let group = cluster.group(leader, GROUP);
    group.wait_ready(PATIENCE).await.unwrap();
    fill(&group, 0..500).await;
    for id in NODES {
        cluster.holds(id, GROUP, 0, 500).await;
        cluster.group(id, GROUP).wait_ready(PATIENCE).await.unwrap();
    }
    let progress = eventually(PATIENCE, "all replicas are told to be there", || {
        group.progress().filter(|progress| progress.len() == 3 && progress.values().all(|at| Some(*at) == group.last_index()))
    })
    .await;
    assert!(progress.into_keys().eq(ids(NODES)));
    let follower = cluster.group(NODES[leader as usize % 3], GROUP);
    assert!(follower.progress().is_none() && !follower.is_leader());
    assert!(follower.read_barrier().await.is_err(), "only the leader may answer");
    group.read_barrier().await.unwrap();
}

/// Every entry would take a round trip if they waited for each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_entries_are_on_their_way_at_once_over_a_slow_network() {
    let cluster = Cluster::with(3, Duration::from_millis(25), TransferOptions::default()).await;
    cluster.found(GROUP, &NODES).await;
    let leader = cluster.leader(GROUP, &NODES).await;
    let group = cluster.group(leader, GROUP);
    let large = |n: u64| {
        let mut bytes = payload(n);
        bytes.resize(200 << 10, n as u8);
        bytes
    };
    let mut tickets = Vec::new();
    for n in 0..40 {
        let item = Item { kind: FORGET, payload: large(n).into() };
        tickets.push(group.admit(item.payload.len()).await.unwrap().submit(item));
    }
    for ticket in tickets {
        ticket.outcome().await.unwrap();
    }
    fill(&group, 0..100).await;
    for id in NODES {
        cluster.holds(id, GROUP, 0, 100).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_as_large_as_one_may_be_gets_through() {
    let cluster = Cluster::new(3).await;
    cluster.found(GROUP, &NODES).await;
    let leader = cluster.leader(GROUP, &NODES).await;
    let group = cluster.group(leader, GROUP);
    let item = Item { kind: FORGET, payload: vec![1; 17 << 20].into() };
    group.propose(item).await.unwrap();
    fill(&group, 0..10).await;
    for id in NODES {
        cluster.holds(id, GROUP, 0, 10).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_groups_share_the_links() {
    let cluster = Cluster::new(3).await;
    let groups: Vec<GroupId> = (1..=60).map(GroupId).collect();
    for (place, group) in groups.iter().enumerate() {
        let mut voters = NODES.to_vec();
        voters.rotate_left(place % 3);
        cluster.found(*group, &voters).await;
    }
    let mut work = Vec::new();
    for group in &groups {
        let leader = cluster.leader(*group, &NODES).await;
        let leading = cluster.group(leader, *group);
        work.push(tokio::spawn(async move { fill(&leading, 0..50).await }));
    }
    for work in work {
        work.await.unwrap();
    }
    for group in groups {
        for id in NODES {
            cluster.holds(id, group, 0, 50).await;
        }
    }
}
