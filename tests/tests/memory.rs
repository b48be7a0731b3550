//! Memory stays bounded, however much is produced, consumed or not consumed, and a restart with all of it is quick.
//!
//! `FLOTILLA_MEMORY_BYTES` (200 MB; at full size 5,000,000,000).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::time::{Duration, Instant};

use flotilla_client::{Assignment, Client, ConsumerOptions, Position, ProducerOptions, Record};
use flotilla_proto::v1;
use flotilla_proto::v1::consumer_client::ConsumerClient;
use flotilla_tests::random::Random;
use flotilla_tests::read;
use flotilla_tests::server::Server;
use flotilla_tests::settings;
use tonic::transport::Channel;

const TOPIC: &str = "large";
const PARTITIONS: u32 = 6;
const RECORD_BYTES: usize = 1_000;
const RESIDENT_BYTES_MAX: u64 = 1 << 30;
/// The goal is 5 s; only a hang shall fail a test on a busy machine.
const RESTART_MAX: Duration = Duration::from_secs(30);
/// Streams that are opened and never read.
const IDLE_CONSUMERS: usize = 500;

async fn produce(client: &Client, records: u64) {
    let producer = client.producer(TOPIC, ProducerOptions::default()).await.unwrap();
    let mut random = Random::new(1);
    let mut value: Vec<u8> = (0..RECORD_BYTES).map(|_| random.next_u64() as u8).collect();
    for number in 0..records {
        value[..8].copy_from_slice(&number.to_be_bytes());
        producer.enqueue(Record::new(&value)).await.unwrap();
    }
    producer.close().await.unwrap();
}

/// Reads everything; how many records, and that each number was there.
async fn consume(client: &Client, records: u64) {
    let options = ConsumerOptions { until_end: true, ..ConsumerOptions::default() };
    let mut consumer = client.consumer(TOPIC, Assignment::all(Position::Earliest), options).await.unwrap();
    let (mut count, mut sum) = (0, 0_u64);
    while let Some(chunk) = consumer.next().await.unwrap() {
        for record in chunk.records() {
            let value = record.unwrap().value.unwrap();
            assert_eq!(value.len(), RECORD_BYTES);
            sum += u64::from_be_bytes(value[..8].try_into().unwrap());
            count += 1;
        }
    }
    assert_eq!((count, sum), (records, records * (records - 1) / 2));
}

/// Consumers that allow the server to send everything, and read nothing.
async fn idle_consumers(server: &Server) -> Vec<tonic::Streaming<v1::ConsumeResponse>> {
    let mut streams = Vec::new();
    for _ in 0..IDLE_CONSUMERS {
        // Each on a connection of its own, whose windows of 64 KiB are soon full. Together they could hold far more than the
        // server is allowed to.
        let channel = Channel::from_shared(format!("http://{}", server.address())).unwrap().connect().await.unwrap();
        let earliest = Some(v1::Position { at: Some(v1::position::At::Earliest(v1::Earliest {})) });
        let partition = |partition| v1::PartitionPosition { partition, position: earliest, stop_offset: None };
        let credit = Some(v1::Credit { records: u64::MAX, bytes: u64::MAX });
        let open = v1::ConsumeOpen {
            topic: TOPIC.into(),
            partitions: (0..PARTITIONS).map(partition).collect(),
            credit,
            ..v1::ConsumeOpen::default()
        };
        let open = v1::ConsumeRequest { request: Some(v1::consume_request::Request::Open(open)) };
        let open = futures::StreamExt::chain(tokio_stream::iter([open]), tokio_stream::pending());
        streams.push(ConsumerClient::new(channel).consume(open).await.unwrap().into_inner());
    }
    streams
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_bounded_and_restarts_are_quick() {
    let bytes = settings::number("FLOTILLA_MEMORY_BYTES", 200_000_000);
    let records = bytes / RECORD_BYTES as u64;
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::started(dir.path(), &[]);
    let client = server.client().await;
    read::create_topic(&client, TOPIC, PARTITIONS).await;
    let started = Instant::now();
    produce(&client, records).await;
    let produced = started.elapsed();
    let after_produce = server.resident_bytes_peak();
    consume(&client, records).await;
    let consumed = started.elapsed() - produced;
    let after_consume = server.resident_bytes_peak();

    let streams = idle_consumers(&server).await;
    // While somebody reads, those who do not cost nothing more.
    consume(&client, records).await;
    let after_idle = server.resident_bytes_peak();
    drop(streams);
    println!(
        "{} MB produced in {produced:?}, consumed in {consumed:?}; resident at most {} MiB, {} MiB after reading, {} MiB with idle readers",
        bytes / 1_000_000,
        after_produce >> 20,
        after_consume >> 20,
        after_idle >> 20
    );
    assert!(after_idle < RESIDENT_BYTES_MAX, "{after_idle} bytes resident");

    assert!(server.stop().success());
    let stopped = server.start();
    server.kill();
    let killed = server.start();
    println!("serves {stopped:?} after a clean stop, {killed:?} after kill -9");
    assert!(stopped.max(killed) < RESTART_MAX);
    consume(&server.client().await, records).await;
    assert!(server.resident_bytes_peak() < RESIDENT_BYTES_MAX, "{} bytes resident", server.resident_bytes_peak());
}
