//! A replica whose data is damaged is taken out of its group, begins again without data, and comes back.

use std::collections::BTreeSet;

use super::cluster::*;
use crate::log::tests::node::{Ledger, PATIENCE, fill};
use crate::registry::{Begin, StartError};
use crate::types::{Replica, ReplicaId};

const NODES: [u64; 3] = [1, 2, 3];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_replica_is_taken_out_begins_empty_and_comes_back() {
    let mut cluster = Cluster::new(3).await;
    cluster.found(GROUP, &NODES).await;
    let leader = cluster.leader(GROUP, &NODES).await;
    fill(&cluster.group(leader, GROUP), 0..200).await;
    let victim = leader % 3 + 1;
    cluster.holds(victim, GROUP, 0, 200).await;
    let before = cluster.group(victim, GROUP).log().incarnation();
    cluster.close_node(victim).await;
    for segment in cluster.segments_of(victim, GROUP) {
        let file = std::fs::OpenOptions::new().write(true).open(&segment).unwrap();
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    }

    cluster.start_node(victim).await;
    let registry = cluster.registry(victim);
    // However often it is tried.
    for _ in 0..2 {
        let starting = registry.clone();
        let refused = cluster.on(victim, async move {
            starting
                .start(GROUP, replica(victim).id, Box::new(Ledger::default()), None, Begin::Initialize(replicas(&NODES)))
                .await
        });
        let refused = refused.await.unwrap_err();
        assert!(matches!(refused, StartError::Damaged { .. }), "{refused}");
    }
    assert!(registry.damage_of(GROUP).is_some());

    let leading = cluster.group(leader, GROUP);
    assert!(!leading.leads_without(replica(victim).id).await, "it is a voter still");
    let others: BTreeSet<u64> = NODES.into_iter().filter(|id| *id != victim).collect();
    assert!(leading.membership().can_spare(&ids([victim])));
    assert!(!leading.membership().can_spare(&ids(others.clone())));
    leading.change_voters(ids(others.clone())).await.unwrap();
    assert!(leading.leads_without(replica(victim).id).await, "the removal is committed");

    let setting = registry.clone();
    cluster.on(victim, async move { setting.set_aside(GROUP).await.unwrap() }).await;
    assert_eq!((registry.damage_of(GROUP), registry.replica_here(GROUP)), (None, None));
    // Killed at once: what it knows now is durable.
    cluster.kill(victim);
    drop(registry);
    cluster.start_node(victim).await;
    assert_eq!(cluster.registry(victim).replica_removed(GROUP), Some(replica(victim).id));
    // The old one never comes back.
    let late = cluster.registry(victim);
    let late = cluster.on(victim, async move {
        late.start(GROUP, replica(victim).id, Box::new(Ledger::default()), None, Begin::Initialize(replicas(&NODES))).await
    });
    assert!(late.await.is_err(), "the journal knows that it was here");
    let renewed = Replica { id: ReplicaId(23), node: victim };
    let empty = cluster.start_replica(renewed, GROUP, Begin::Wait, Box::new(Ledger::default())).await;
    assert_eq!((empty.last_index(), empty.log().vote()), (None, None));
    assert!(empty.log().incarnation() > before);
    assert!(cluster.damaged_dir(victim).join(format!("{GROUP}-{before}")).is_dir(), "what is damaged is kept");

    cluster.linked().await;
    leading.add_learner(renewed).await.unwrap();
    cluster.holds(victim, GROUP, 0, 200).await;
    leading.change_voters(ids(others).into_iter().chain([renewed.id]).collect()).await.unwrap();
    fill(&leading, 200..250).await;
    for id in NODES {
        cluster.holds(id, GROUP, 0, 250).await;
    }
    let sound = cluster.registry(victim);
    let refused = cluster.on(victim, async move { sound.set_aside(GROUP).await });
    assert!(refused.await.is_err(), "what is not damaged is not set aside");
}

/// Its group counts on it: an empty log in its place would confirm what it does not know.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_of_which_nothing_is_found_is_lost() {
    let cluster = Cluster::new(1).await;
    let registry = cluster.registry(1);
    let lost = replica(1).id;
    for _ in 0..2 {
        let starting = registry.clone();
        let refused =
            cluster.on(1, async move { starting.start(GROUP, lost, Box::new(Ledger::default()), None, Begin::Resume).await });
        let refused = refused.await.unwrap_err();
        assert!(matches!(refused, StartError::Damaged { .. }) && refused.to_string().contains("replica 11 is lost"), "{refused}");
    }
    let setting = registry.clone();
    cluster.on(1, async move { setting.set_aside(GROUP).await.unwrap() }).await;
    let renewed = Replica { id: ReplicaId(12), node: 1 };
    let begun = cluster.start_replica(renewed, GROUP, Begin::Wait, Box::new(Ledger::default())).await;
    assert_eq!((begun.replica(), begun.last_index()), (renewed.id, None));
}

/// Damage that is met while the group runs: it stops, and is not started again as if nothing were.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_replica_is_given_up() {
    let cluster = Cluster::new(3).await;
    cluster.found(GROUP, &NODES).await;
    let leader = cluster.leader(GROUP, &NODES).await;
    fill(&cluster.group(leader, GROUP), 0..50).await;
    let victim = leader % 3 + 1;
    let registry = cluster.registry(victim);
    let mut changes = registry.leader_changes();
    let _ = registry.take_changed();
    let damage = crate::segments::Damage {
        group: GROUP,
        file: "the file".into(),
        bytes: 0..1,
        indexes: 0..=1,
        offsets: None,
        reason: "a bit is wrong",
    };
    let read =
        cluster.group(victim, GROUP).log().noting_damage::<()>(Err(crate::segments::SegmentError::Damaged(Box::new(damage))));
    assert!(read.is_err());
    assert!(cluster.group(victim, GROUP).damage().is_some_and(|damage| damage.contains("a bit is wrong")));
    let told = async {
        while !registry.take_changed().contains(&GROUP) {
            changes.changed().await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, told).await.expect("whoever looks after the groups is told");
    let condemning = registry.clone();
    cluster.on(victim, async move { condemning.condemn(GROUP, "a bit is wrong".into()).await.unwrap() }).await;
    assert!(registry.group(GROUP).is_none());
    let starting = registry.clone();
    let refused = cluster.on(victim, async move {
        starting.start(GROUP, replica(victim).id, Box::new(Ledger::default()), None, Begin::Wait).await
    });
    assert!(matches!(refused.await, Err(StartError::Damaged { .. })));
    fill(&cluster.group(leader, GROUP), 50..60).await;
}
