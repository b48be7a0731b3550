//! One replica of one of three partitions is on a node that is dead: records that may go elsewhere do, and of those that may
//! not it is known that they were not written.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::time::{Duration, Instant};

use flotilla_client::{Client, ClientOptions, api};
use flotilla_tests::cli::Cli;
use flotilla_tests::cluster::Cluster;
use serde_json::Value;

/// What has not happened by then does not happen.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(20);
const DEAD: u64 = 3;

/// The partitions that nobody leads, once there are any.
fn leaderless(cli: &Cli) -> Vec<u64> {
    let began = Instant::now();
    loop {
        let described: Value = serde_json::from_str(&cli.run("topic describe t -o json").ok()).unwrap();
        let partitions = described["partitions"].as_array().unwrap();
        let dead = partitions.iter().filter(|partition| partition["leader"].is_null());
        let dead: Vec<u64> = dead.map(|partition| partition["partition"].as_u64().unwrap()).collect();
        if !dead.is_empty() {
            return dead;
        }
        assert!(began.elapsed() < PATIENCE, "nobody has noticed: {described}");
        std::thread::sleep(POLL_INTERVAL);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keyless_records_avoid_a_dead_node_and_what_cannot_is_certainly_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::started(dir.path(), 3, &["--journal-bytes", "128MiB"]);
    let all = Cli::new(cluster.addresses());
    all.run("topic create t --partitions 3 --replication-factor 1").ok();
    cluster.wait_in_sync("t", PATIENCE).await;
    cluster.node(DEAD).kill();
    let (first, alive) = (cluster.node(1).address(), format!("{},{}", cluster.node(1).address(), cluster.node(2).address()));
    let cli = Cli::new(&alive);
    let dead = leaderless(&cli);
    assert_eq!(dead.len(), 1, "the partitions are spread: {dead:?}");

    let lines: String = (0..3_000).map(|number| format!("{number}\n")).collect();
    let produced = cli.input("produce t --batch-bytes 4KiB --delivery-timeout 20s", lines.as_bytes());
    assert_eq!(produced.code, Some(0), "{}", produced.stderr);
    // As a plain client does it, which knows no leaders.
    let client = Client::connect([first], ClientOptions::default()).await.unwrap();
    for number in 0..30 {
        let record = api::Record { value: Some(number.to_string().into()), ..Default::default() };
        let payload = Some(api::produce_request::Payload::Records(api::Records { records: vec![record] }));
        let answer = client.produce(api::ProduceRequest { topic: "t".into(), payload, ..Default::default() }).await.unwrap();
        assert_ne!(u64::from(answer.results[0].partition), dead[0]);
    }

    let refused = cli.input(&format!("produce t --partition {} --delivery-timeout 3s", dead[0]), b"x\ny\n");
    assert_eq!(refused.code, Some(5), "{}", refused.stderr);
    assert!(refused.stderr.contains("2 records not written, 0 with unknown outcome"), "{}", refused.stderr);
    assert!(refused.stderr.contains(&format!("node {DEAD}")), "it says which node is missing: {}", refused.stderr);

    // It comes back, and so do the records.
    cluster.node(DEAD).start();
    let began = Instant::now();
    let end = || {
        let described: Value = serde_json::from_str(&cli.run("topic describe t -o json").ok()).unwrap();
        described["partitions"][dead[0] as usize]["high_watermark"].as_u64().unwrap()
    };
    while end() == 0 {
        assert!(began.elapsed() < PATIENCE, "it is left out for ever");
        cli.input("produce t --batch-bytes 4KiB", lines.as_bytes()).ok();
    }
}
