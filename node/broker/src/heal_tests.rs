//! Three real nodes, of which one has applied something else than the others.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use flotilla_raft::state::keys::GroupKeys;
use flotilla_raft::state::{RocksOptions, RocksState, State, WriteBatch};
use flotilla_raft::troubles::Subject;
use flotilla_records::{BatchBuilder, Codec};

use super::*;
use crate::clock::cluster_tests::{NODES, TOPIC, free_addresses, node, until};
use crate::produce::{Payload, Produce};
use crate::topics::CreateTopic;
use crate::verify::Finding;

async fn start(node_id: u64, dir: &Path, addresses: &[SocketAddr]) -> Broker {
    node(node_id, dir, addresses, Arc::default()).await
}

/// Changes the hash of what a node that does not run has applied of a group.
async fn tamper(dir: &Path, node_id: u64, group_id: u64) {
    let dir = dir.join(node_id.to_string()).join("state");
    // The last tasks of the node let go of it a moment later.
    let opened = async {
        loop {
            match RocksState::open(&dir, &RocksOptions::default()) {
                Ok(state) => return state,
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    };
    let state = tokio::time::timeout(Duration::from_secs(60), opened).await.expect("nobody holds the rows");
    let prefix = group_id.to_be_bytes();
    let rows = State::scan(&state, &prefix, &prefix, usize::MAX).unwrap();
    let applied = |(key, _): &&(Vec<u8>, Vec<u8>)| {
        let (group, incarnation) = GroupKeys::owner(key).unwrap();
        *key == GroupKeys::new(group, incarnation).applied()
    };
    let (key, mut value) = rows.iter().find(applied).unwrap().clone();
    *value.last_mut().unwrap() ^= 1;
    let mut batch = WriteBatch::default();
    batch.put(key, value);
    state.write(batch).unwrap();
    state.flush().unwrap();
}

/// Appends a record through whoever leads, however often that changes meanwhile.
async fn produce(brokers: &[Broker]) {
    let mut builder = BatchBuilder::new();
    builder.add(1, None, Some(b"value"), []).unwrap();
    let batch = builder.finish(Codec::None, None).unwrap();
    let produced = async {
        for broker in brokers.iter().cycle() {
            let request = Produce { topic: TOPIC.into(), partition: Some(0), payload: Payload::Batch(batch.clone()) };
            if let Ok(prepared) = broker.prepare(request)
                && let Ok(submitted) = broker.submit(&prepared.parts[0]).await
                && submitted.appended().await.is_ok()
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), produced).await.expect("somebody leads");
}

fn findings(verified: &[crate::VerifiedGroup]) -> Vec<Finding> {
    verified.iter().flat_map(|group| group.replicas.iter().map(|(_, finding)| *finding)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_applied_otherwise_is_found_and_replaced() {
    let (dir, addresses) = (tempfile::tempdir().unwrap(), free_addresses());
    let starting = (1..=NODES).map(|node_id| start(node_id, dir.path(), &addresses));
    let mut brokers = futures::future::join_all(starting).await;
    until("the controller has a leader", || brokers.iter().any(|broker| broker.controller().is_leader())).await;
    let controller = brokers.iter().find(|broker| broker.controller().is_leader()).unwrap();
    let create = CreateTopic { name: TOPIC.into(), partitions: Some(1), ..CreateTopic::default() };
    let topic = controller.create_topic(create).await.unwrap().topic;
    let group_id = topic.partitions[0].group_id;
    produce(&brokers).await;
    let verified = brokers[0].verify_replicas().await;
    assert_eq!((verified.len(), verified[0].partition.is_none()), (2, true), "{verified:?}");
    assert!(findings(&verified).iter().all(|finding| matches!(finding, Finding::Equal { .. })), "{verified:?}");

    // One that leads neither, so that nobody has to be elected.
    let victim = |broker: &Broker| !broker.is_leader_here(group_id) && !broker.controller().is_leader();
    let place = brokers.iter().position(victim).unwrap();
    let broker = brokers.remove(place);
    let node_id = broker.node_id();
    let replica = |broker: &Broker| broker.image().partition(group_id).unwrap().on(node_id).unwrap().id;
    let before = replica(&broker);
    broker.close().await;
    drop(broker);
    let verified = brokers[0].verify_replicas().await;
    assert_eq!(findings(&verified).iter().filter(|finding| **finding == Finding::Unreachable).count(), 2, "{verified:?}");

    tamper(dir.path(), node_id, group_id).await;
    let broker = start(node_id, dir.path(), &addresses).await;
    until("another replica takes its place", || replica(&broker) != before).await;
    let whole = || {
        broker.hosted_group(group_id).is_some_and(|group| group.membership().voters.contains_key(&ReplicaId(replica(&broker))))
    };
    until("it votes", whole).await;
    produce(&brokers).await;
    until("all is well", || {
        brokers.iter().chain([&broker]).all(|broker| broker.troubles().of(Subject::Replicas(GroupId(group_id))).is_none())
    })
    .await;
    let verified = brokers[0].verify_replicas().await;
    assert!(findings(&verified).iter().all(|finding| matches!(finding, Finding::Equal { .. })), "{verified:?}");
    for broker in brokers.into_iter().chain([broker]) {
        broker.close().await;
    }
}

/// What it says about the metadata cannot be trusted: the node begins anew, with a copy of the others'.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_that_applied_otherwise_is_replaced_when_its_node_begins_anew() {
    let (dir, addresses) = (tempfile::tempdir().unwrap(), free_addresses());
    let starting = (1..=NODES).map(|node_id| start(node_id, dir.path(), &addresses));
    let mut brokers = futures::future::join_all(starting).await;
    until("the controller has a leader", || brokers.iter().any(|broker| broker.controller().is_leader())).await;
    let place = brokers.iter().position(|broker| !broker.controller().is_leader()).unwrap();
    let broker = brokers.remove(place);
    let node_id = broker.node_id();
    let before = broker.controller().replica();
    broker.close().await;
    drop(broker);
    tamper(dir.path(), node_id, 0).await;

    let broker = start(node_id, dir.path(), &addresses).await;
    let reason = tokio::time::timeout(Duration::from_secs(60), broker.failure().wait()).await.expect("it is given up");
    assert!(reason.contains("replica of the controller is given up") && reason.contains("differs"), "{reason}");
    broker.close().await;
    drop(broker);
    let broker = start(node_id, dir.path(), &addresses).await;
    assert_ne!(broker.controller().replica(), before);
    assert_eq!(broker.failure().get(), None);
    for broker in brokers.into_iter().chain([broker]) {
        broker.close().await;
    }
}
