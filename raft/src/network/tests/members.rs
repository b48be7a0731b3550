//! Replicas come and go while the group serves.

use std::collections::BTreeSet;

use super::cluster::*;
use crate::log::tests::node::{Ledger, PATIENCE, fill};
use crate::registry::Begin;
use crate::replicas::ChangeError;
use crate::types::{Replica, ReplicaId};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_moves_from_one_node_to_another() {
    let cluster = Cluster::new(4).await;
    cluster.found(GROUP, &[1, 2, 3]).await;
    let leader = cluster.leader(GROUP, &[1, 2, 3]).await;
    let group = cluster.group(leader, GROUP);
    fill(&group, 0..100).await;
    let new = cluster.start(4, GROUP, Begin::Wait).await;
    assert!(!new.is_initialized().await);

    group.add_learner(replica(4)).await.unwrap();
    assert_eq!(group.membership().learners, [(replica(4).id, 4)].into());
    cluster.holds(4, GROUP, 0, 100).await;
    assert!(new.is_initialized().await && !new.is_leader());
    let target: BTreeSet<u64> = [2, 3, 4].into();
    group.change_voters(ids(target.clone())).await.unwrap();
    let leader = cluster.leader(GROUP, &[2, 3, 4]).await;
    let leading = cluster.group(leader, GROUP);
    let membership = leading.membership();
    assert_eq!((membership.voter_nodes(), membership.learners.len(), membership.joint), (target.clone(), 0, false));
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

/// The log that it copies tells of a time when its node had the only voter: it must not take that for the present.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_comes_to_a_node_again_does_not_lead_in_the_past() {
    let mut cluster = Cluster::new(2).await;
    cluster.found(GROUP, &[1]).await;
    cluster.leader(GROUP, &[1]).await;
    let (mut here, mut count) = (1, 0);
    for round in 1..=3 {
        let (from, to) = (cluster.group(here, GROUP), here % 2 + 1);
        fill(&from, count..count + 2_000).await;
        count += 2_000;
        let comes = Replica { id: ReplicaId(20 + round), node: to };
        cluster.start_replica(comes, GROUP, Begin::Wait, Box::new(Ledger::default())).await;
        let term = from.term();
        from.add_learner(comes).await.unwrap();
        if here == 2 {
            // In the middle of the copy, or before or behind it: a restart changes nothing.
            cluster.kill(to);
            cluster.start_node(to).await;
            cluster.start_replica(comes, GROUP, Begin::Resume, Box::new(Ledger::default())).await;
        }
        cluster.holds(to, GROUP, 0, count).await;
        assert_eq!((from.is_leader(), from.term()), (true, term), "the copy disturbs nobody");
        from.change_voters([from.replica(), comes.id].into()).await.unwrap();
        from.transfer_leader(comes.id).await.unwrap();
        let next = cluster.group(to, GROUP);
        eventually(PATIENCE, "the next one leads", || next.is_leader().then_some(())).await;
        // The change before it is committed then, and the next one can begin.
        next.read_barrier().await.unwrap();
        next.change_voters([comes.id].into()).await.unwrap();
        let registry = cluster.registry(here);
        cluster.on(here, async move { registry.remove(GROUP).await.unwrap() }).await;
        here = to;
    }
    fill(&cluster.group(here, GROUP), count..count + 10).await;
    cluster.holds(here, GROUP, 0, count + 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_is_taken_back() {
    let cluster = Cluster::new(4).await;
    cluster.found(GROUP, &[1, 2, 3]).await;
    let leader = cluster.leader(GROUP, &[1, 2, 3]).await;
    let group = cluster.group(leader, GROUP);
    cluster.start(4, GROUP, Begin::Wait).await;
    let mut standing = group.watch();
    group.add_learner(replica(4)).await.unwrap();
    let seen = standing.wait_for(|standing| standing.membership.learners.contains_key(&replica(4).id));
    tokio::time::timeout(PATIENCE, seen).await.unwrap().unwrap();
    group.remove_learner(replica(4).id).await.unwrap();
    assert!(group.membership().learners.is_empty());
    fill(&group, 0..10).await;
    assert!(group.progress().is_some_and(|progress| !progress.contains_key(&replica(4).id)));

    let follower = cluster.group(leader % 3 + 1, GROUP);
    let refused = follower.add_learner(replica(4)).await.unwrap_err();
    assert!(matches!(refused, ChangeError::NotLeader { leader: Some(known), .. } if known == leader), "{refused}");
    let refused = group.change_voters(ids([1, 2, 9])).await.unwrap_err();
    assert!(matches!(refused, ChangeError::Refused { .. }), "{refused}");
}
