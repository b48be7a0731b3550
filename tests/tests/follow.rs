//! Consumers that go on while their topic changes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::time::Duration;

use flotilla_client::{Assignment, ConsumerOptions, Position, ProducerOptions, Record, api};
use flotilla_tests::read;
use flotilla_tests::server::Server;

/// What has not happened by then does not happen.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_that_are_added_are_read_from_their_beginning() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::started(&dir.path().join("node"), &[]);
    let client = server.client().await;
    read::create_topic(&client, "t", 1).await;
    let (all, first) = (Assignment::all(Position::Latest), Assignment::partitions([0], Position::Latest));
    let mut follower = client.consumer("t", all, ConsumerOptions::default()).await.unwrap();
    let mut content = client.consumer("t", first, ConsumerOptions::default()).await.unwrap();
    let more = api::AddPartitionsRequest { name: "t".to_owned(), partitions: 3 };
    client.add_partitions(more).await.unwrap();
    // Another client: this one's would have told the consumers.
    let producer = server.client().await.producer("t", ProducerOptions::default()).await.unwrap();
    for partition in [2, 1, 2, 0] {
        let record = Record { partition: Some(partition), ..Record::new(b"value") };
        producer.send(record).await.unwrap().await.unwrap();
    }
    let mut read = Vec::new();
    while read.len() < 4 {
        let chunk = tokio::time::timeout(PATIENCE, follower.next()).await.expect("it reads them").unwrap().unwrap();
        read.extend(chunk.records().map(|record| (chunk.partition(), record.unwrap().offset)));
    }
    read.sort_unstable();
    assert_eq!(read, [(0, 0), (1, 0), (2, 0), (2, 1)]);
    let chunk = tokio::time::timeout(PATIENCE, content.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(chunk.partition(), 0);
    assert_eq!(content.positions().collect::<Vec<_>>(), [(0, 1)], "who asked for one partition gets no other");
}
