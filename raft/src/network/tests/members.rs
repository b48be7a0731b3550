//! Replicas come and go while the group serves.

use std::collections::BTreeSet;

use super::cluster::*;
use crate::log::tests::node::{PATIENCE, fill};
use crate::registry::Begin;
use crate::replicas::ChangeError;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_moves_from_one_node_to_another() {
    let cluster = Cluster::new(4).await;
    cluster.found(GROUP, &[1, 2, 3]).await;
    let leader = cluster.leader(GROUP, &[1, 2, 3]).await;
    let group = cluster.group(leader, GROUP);
    fill(&group, 0..100).await;
    let new = cluster.start(4, GROUP, Begin::Wait).await;
    assert!(!new.is_initialized().await);

    group.add_learner(4).await.unwrap();
    assert_eq!(group.membership().learners, BTreeSet::from([4]));
    cluster.holds(4, GROUP, 0, 100).await;
    assert!(new.is_initialized().await && !new.is_leader());
    let target: BTreeSet<u64> = [2, 3, 4].into();
    group.change_voters(target.clone()).await.unwrap();
    let leader = cluster.leader(GROUP, &[2, 3, 4]).await;
    let leading = cluster.group(leader, GROUP);
    let membership = leading.membership();
    assert_eq!((membership.voters, membership.learners, membership.joint), (target.clone(), BTreeSet::new(), false));
    fill(&leading, 100..150).await;
    for id in target {
        cluster.holds(id, GROUP, 0, 150).await;
    }
    let gone = cluster.group(1, GROUP);
    eventually(PATIENCE, "who is removed gives the lead up", || (!gone.is_leader()).then_some(())).await;
    let registry = cluster.registry(1);
    cluster.on(1, async move { registry.remove(GROUP).await.unwrap() }).await;
    fill(&leading, 150..160).await;
    cluster.holds(4, GROUP, 0, 160).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_is_taken_back() {
    let cluster = Cluster::new(4).await;
    cluster.found(GROUP, &[1, 2, 3]).await;
    let leader = cluster.leader(GROUP, &[1, 2, 3]).await;
    let group = cluster.group(leader, GROUP);
    cluster.start(4, GROUP, Begin::Wait).await;
    let mut standing = group.watch();
    group.add_learner(4).await.unwrap();
    let seen = standing.wait_for(|standing| standing.membership.learners.contains(&4));
    tokio::time::timeout(PATIENCE, seen).await.unwrap().unwrap();
    group.remove_learner(4).await.unwrap();
    assert!(group.membership().learners.is_empty());
    fill(&group, 0..10).await;
    assert!(group.progress().is_some_and(|progress| !progress.contains_key(&4)));

    let follower = cluster.group(leader % 3 + 1, GROUP);
    let refused = follower.add_learner(4).await.unwrap_err();
    assert!(matches!(refused, ChangeError::NotLeader { leader: Some(known), .. } if known == leader), "{refused}");
    let refused = group.change_voters(BTreeSet::from([1, 2, 9])).await.unwrap_err();
    assert!(matches!(refused, ChangeError::Refused { .. }), "{refused}");
}
