//! A data directory that an older version wrote is used as it is: its replicas are called as their nodes, new ones are not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::path::Path;
use std::process::Command;

use flotilla_client::{Client, api};
use flotilla_tests::read;
use flotilla_tests::server::Server;

/// Of node 7, killed after it had written: META, the journal and empty directories, of layout 1. Topic `old` has 50 records in
/// partition 0 and 10 in partition 1, the numbers from 1 on.
const LAYOUT_1: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/layout1.tar.gz");

async fn replica_ids(client: &Client, topic: &str) -> Vec<Vec<u64>> {
    let request = api::ListPartitionsRequest { topic: Some(topic.to_owned()), unhealthy: false };
    let listed = client.list_partitions(request).await.unwrap().partitions.into_iter();
    listed.map(|listed| listed.partition.unwrap().replica_ids).collect()
}

async fn holds_what_it_held(client: &Client) {
    let numbers = read::all(client, "old").await.into_values().map(|records| {
        let number = |record: read::Read| String::from_utf8(record.value.unwrap()).unwrap().parse::<u64>().unwrap();
        records.into_iter().map(number).collect::<Vec<_>>()
    });
    assert_eq!(numbers.collect::<Vec<_>>(), [(1..=50).collect::<Vec<u64>>(), (51..=60).collect()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_of_the_version_before_replica_ids_is_used_in_place() {
    let dir = tempfile::tempdir().unwrap();
    let unpacked = Command::new("tar").arg("-xzf").arg(LAYOUT_1).arg("-C").arg(dir.path()).status().unwrap();
    assert!(unpacked.success());
    let data_dir = dir.path().join("data");
    let layout = |data_dir: &Path| std::fs::read_to_string(data_dir.join("META")).unwrap().lines().nth(1).unwrap().to_owned();
    assert_eq!(layout(&data_dir), "layout 1");
    let mut server = Server::started(&data_dir, &["--node-id", "7", "--journal-bytes", "128MiB"]);
    assert_eq!(layout(&data_dir), "layout 2", "no older version takes it for its own");
    let client = server.client().await;
    holds_what_it_held(&client).await;
    assert_eq!(replica_ids(&client, "old").await, [[7], [7]], "who is there keeps its name");

    read::create_topic(&client, "new", 2).await;
    assert_eq!(replica_ids(&client, "new").await, [[8], [9]], "above the ids of all nodes");
    server.kill();
    server.start();
    let client = server.client().await;
    holds_what_it_held(&client).await;
    assert_eq!(replica_ids(&client, "new").await, [[8], [9]]);
}
