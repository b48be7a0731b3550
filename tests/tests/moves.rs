//! Moves that are cancelled. They are taken back, whatever they have come to.
//!
//! `FLOTILLA_CANCELS` (8) moves are cancelled with each replication factor.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use flotilla_client::{Client, api};
use flotilla_tests::cluster::Cluster;
use flotilla_tests::read;
use flotilla_tests::settings;
use flotilla_tests::writers::Writers;

const NODES: u64 = 4;
/// A move takes several steps, with such pauses between them.
const STEP: Duration = Duration::from_millis(100);
/// What has not happened by then does not happen.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

async fn layout(client: &Client, topic: &str) -> Vec<(api::Partition, Vec<u64>)> {
    let request = api::ListPartitionsRequest { topic: Some(topic.to_owned()), unhealthy: false };
    let listed = client.list_partitions(request).await.unwrap().partitions.into_iter();
    listed.map(|listed| (listed.partition.unwrap(), listed.target)).collect()
}

/// Waits until no partition of a topic moves, and each is led by one of its replicas with all others in sync.
async fn at_rest(client: &Client, topic: &str) {
    let began = Instant::now();
    loop {
        let mut moving = layout(client, topic).await;
        moving.retain(|(partition, target)| {
            let set = |nodes: &[u64]| nodes.iter().copied().collect::<BTreeSet<u64>>();
            let whole = set(&partition.replicas) == set(&partition.in_sync);
            !(target.is_empty() && whole && partition.leader.is_some_and(|leader| partition.replicas.contains(&leader)))
        });
        if moving.is_empty() {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{topic} does not come to rest: {moving:?}");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// A node may hear of a partition for the first time when that is on its way to another one already: it begins it all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_moves_as_soon_as_it_is_there_comes_to_rest() {
    const PARTITIONS: u32 = 30;
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::started(dir.path(), 2, &["--journal-bytes", "128MiB"]);
    let client = cluster.client().await;
    for round in 0..10 {
        let topic = format!("t{round}");
        let request =
            api::CreateTopicRequest { name: topic.clone(), partitions: Some(PARTITIONS), ..api::CreateTopicRequest::default() };
        let request = api::CreateTopicRequest { replication_factor: Some(1), ..request };
        let moves = (0..PARTITIONS).map(|partition| {
            let (client, topic) = (&client, &topic);
            async move {
                let request = |node| api::MovePartitionRequest { topic: topic.clone(), partition, replicas: vec![node] };
                // One of them is where it is. Until the topic is there, both are refused.
                for _ in 0..20 {
                    if client.move_partition(request(1)).await.is_ok() || client.move_partition(request(2)).await.is_ok() {
                        return;
                    }
                }
            }
        });
        let (created, _) = tokio::join!(client.create_topic(request), futures::future::join_all(moves));
        created.unwrap();
        at_rest(&client, &topic).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_is_cancelled_loses_nothing_whatever_it_has_come_to() {
    let cancels = u32::try_from(settings::number("FLOTILLA_CANCELS", 8)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::started(dir.path(), NODES as usize, &["--journal-bytes", "128MiB"]);
    let client = cluster.client().await;
    for (cancel, factor) in (0..cancels).flat_map(|cancel| [(cancel, 1), (cancel, 2)]) {
        let topic = format!("t{factor}-{cancel}");
        let request = api::CreateTopicRequest {
            name: topic.clone(),
            replication_factor: Some(factor),
            ..api::CreateTopicRequest::default()
        };
        client.create_topic(request).await.unwrap();
        let writers = Writers::start(&client, &topic, 2, Duration::from_secs(120)).await;
        writers.wait_for_acks(100).await;
        let (before, _) = layout(&client, &topic).await.remove(0);
        let others = (1..=NODES).filter(|node| !before.replicas.contains(node));
        let replicas: Vec<u64> = others.take(factor as usize).collect();
        client.move_partition(api::MovePartitionRequest { topic: topic.clone(), partition: 0, replicas }).await.unwrap();
        tokio::time::sleep(STEP * cancel).await;
        // It may be there already.
        let _ = client.cancel_move(api::CancelMoveRequest { topic: topic.clone(), partition: 0 }).await;
        at_rest(&client, &topic).await;
        writers.wait_for_acks(100).await;
        let history = writers.stop().await;
        assert_eq!(history.acked(), history.len(), "with retries everything is acknowledged in the end");
        history.check(&read::all(&client, &topic).await);
    }
}
