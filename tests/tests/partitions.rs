//! Many partitions: created, led by all nodes, cheap at rest, and led again when a node is gone.
//!
//! `FLOTILLA_PARTITIONS` (200; at full size 1,000).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::time::{Duration, Instant};

use flotilla_client::{Client, ClientOptions, ProducerOptions, Record, api};
use flotilla_tests::cluster::Cluster;
use flotilla_tests::settings;

const TOPIC: &str = "wide";
const NODES: u64 = 3;
const VICTIM: u64 = 3;
/// What each replica may take at rest. With huge pages, or buffers that are filled in advance, it would be megabytes.
const RESIDENT_BYTES_MAX: u64 = 400 << 10;
/// The goal is 30 s for a thousand; only a hang shall fail a test on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

async fn create(client: &Client, partitions: u32) {
    let request = api::CreateTopicRequest {
        name: TOPIC.to_owned(),
        partitions: Some(partitions),
        replication_factor: Some(NODES as u32),
        ..api::CreateTopicRequest::default()
    };
    client.create_topic(request).await.unwrap();
}

/// Partitions that each node leads, by its id; first those without a leader.
async fn led(client: &Client) -> Vec<usize> {
    let described = client.describe_topic(api::DescribeTopicRequest { name: TOPIC.to_owned() }).await.unwrap();
    let mut led = vec![0; NODES as usize + 1];
    for partition in described.partitions {
        led[partition.leader.unwrap_or(0) as usize] += 1;
    }
    led
}

/// Writes one record to each partition.
async fn write_everywhere(client: &Client, partitions: u32) {
    let producer = client.producer(TOPIC, ProducerOptions::default()).await.unwrap();
    let mut deliveries = Vec::new();
    for partition in 0..partitions {
        let record = Record { partition: Some(partition), ..Record::new(b"one for each") };
        deliveries.push(producer.send(record).await.unwrap());
    }
    futures::future::try_join_all(deliveries).await.unwrap();
    producer.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_partitions_are_cheap_and_led_again_when_a_node_is_gone() {
    let partitions = u32::try_from(settings::number("FLOTILLA_PARTITIONS", 200)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::started(dir.path(), NODES as usize, &["--journal-bytes", "128MiB"]);
    let empty: Vec<u64> = (1..=NODES).map(|id| cluster.node(id).resident_bytes()).collect();

    let began = Instant::now();
    create(&cluster.client().await, partitions).await;
    cluster.wait_in_sync(TOPIC, PATIENCE).await;
    let created = began.elapsed();
    let each: Vec<u64> = (1..)
        .zip(empty)
        .map(|(id, empty)| cluster.node(id).resident_bytes().saturating_sub(empty) / u64::from(partitions))
        .collect();
    assert!(each.iter().all(|bytes| *bytes <= RESIDENT_BYTES_MAX), "{each:?} bytes resident for each partition");
    let leads = led(&cluster.client().await).await;
    assert!(leads[1..].iter().all(|led| *led > 0), "all nodes lead some: {leads:?}");

    cluster.node(VICTIM).kill();
    let killed = Instant::now();
    let survivor = Client::connect([cluster.node(1).address()], ClientOptions::default()).await.unwrap();
    let taken_over = loop {
        let led = led(&survivor).await;
        if led[0] == 0 && led[VICTIM as usize] == 0 {
            break killed.elapsed();
        }
        assert!(killed.elapsed() < PATIENCE, "partitions stay without a leader: {led:?}");
        tokio::time::sleep(POLL_INTERVAL).await;
    };
    println!("{partitions} partitions: in sync after {created:?}, {each:?} bytes each, led again after {taken_over:?}");
    write_everywhere(&survivor, partitions).await;
}
