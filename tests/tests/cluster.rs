//! What a cluster does when nodes are missing, and when they come back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::hash::{DefaultHasher, Hasher};
use std::time::{Duration, Instant};

use flotilla_tests::cli::Cli;
use flotilla_tests::cluster::Cluster;
use flotilla_tests::proxy::Proxy;
use flotilla_tests::server::Server;
use flotilla_tests::settings;
use serde_json::Value;

const ARGS: [&str; 6] = ["--journal-bytes", "128MiB", "--segment-bytes", "4MiB", "--retention-interval", "200ms"];
/// What has not happened by then does not happen.
const PATIENCE: Duration = Duration::from_secs(120);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_writes_are_refused_by_name_and_what_is_committed_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::started(dir.path(), 3, &ARGS);
    let lines: Vec<String> = (100..400).map(|number| number.to_string()).collect();
    let all = Cli::new(cluster.addresses());
    all.run("topic create t --replication-factor 3").ok();
    all.input("produce t", lines.join("\n").as_bytes()).ok();
    // What is committed is told with what comes next: of the last record the survivor may not know.
    all.input("produce t", b"last\n").ok();
    cluster.wait_in_sync("t", PATIENCE).await;
    let verified: Value = serde_json::from_str(&all.run("cluster verify -o json").ok()).unwrap();
    let found = |group: usize| verified["groups"][group]["replicas"].as_array().unwrap().iter().map(|of| of["finding"].clone());
    assert!(verified["equal"] == true && found(0).chain(found(1)).eq(vec!["equal"; 6]), "{verified}");
    cluster.node(2).kill();
    cluster.node(3).kill();

    let one = Cli::new(cluster.node(1).address());
    let verified = one.run("cluster verify");
    let said = String::from_utf8_lossy(&verified.stdout);
    assert!(verified.code == Some(1) && said.contains("node 2 did not answer; node 3 did not answer"), "{said}");
    let refused = one.input("produce t --delivery-timeout 6s", b"lost\n");
    assert_ne!(refused.code, Some(0));
    let says = |words: &str| refused.stderr.contains(words);
    assert!(says("has no majority") || says("has no leader"), "{}", refused.stderr);
    let read = one.run("consume t --from earliest --count 300").ok();
    assert!(read.lines().eq(&lines), "{read}");
    let read = one.run("consume t --from 298 --count 2").ok();
    assert!(read.lines().eq(&lines[298..]), "who knows where it was goes on there: {read}");
    let described: Value = serde_json::from_str(&one.run("topic describe t -o json").ok()).unwrap();
    assert!(described["partitions"][0]["leader"].is_null(), "{described}");
    let status: Value = serde_json::from_str(&one.run("cluster status -o json").ok()).unwrap();
    assert_eq!((&status["controller_leader"], &status["leaderless_partitions"]), (&Value::Null, &1.into()), "{status}");

    cluster.node(2).start();
    one.input("produce t", b"more\n").ok();
    let end = one.args(&["consume", "t", "--from", "earliest", "--until-end", "--format", "%v\\n"], b"").ok();
    assert!(end.lines().any(|line| line == "more") && !end.lines().any(|line| line == "lost"));
}

/// While a node is down, more is written than its log lacks: what it missed is purged. It comes back by a snapshot, which is
/// cut twice and goes on where it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_missed_what_is_purged_comes_back_by_a_snapshot_that_is_cut_twice() {
    let bytes = settings::number("FLOTILLA_SNAPSHOT_BYTES", 60_000_000);
    let dir = tempfile::tempdir().unwrap();
    let mut lines = Vec::new();
    let mut cluster = Cluster::with(dir.path(), 3, &ARGS, |id, address| match id {
        3 => {
            let line = Proxy::start(address.parse().unwrap());
            let args = vec!["--peer-advertise".to_owned(), line.address().to_string()];
            lines.push(line);
            args
        }
        _ => Vec::new(),
    });
    let line = &lines[0];
    let cli = Cli::new(cluster.addresses());
    cli.run("topic create t --partitions 1 --replication-factor 3").ok();
    cli.input("produce t", b"first\n").ok();
    cluster.wait_in_sync("t", PATIENCE).await;
    cluster.node(3).kill();
    let records = bytes / 1024;
    let bench = "bench produce --topic t --size 1024 --batch-bytes 262144 --producers 2";
    cli.run(&format!("{bench} --records {records}")).ok();
    cli.run(&format!("topic delete-records t --partition 0 --before-offset {}", records / 10)).ok();
    for node in [1, 2] {
        let began = Instant::now();
        while !cluster.node(node).log().contains("removed segments") {
            assert!(began.elapsed() < PATIENCE, "node {node} keeps what was deleted");
            std::thread::sleep(POLL_INTERVAL);
        }
    }
    let leader_has = read(&cluster, 1, &cli);

    let before = line.forwarded();
    line.cut_after(&[bytes / 4, bytes / 2]);
    let began = Instant::now();
    cluster.node(3).start();
    cluster.wait_in_sync("t", PATIENCE).await;
    let sent = line.forwarded() - before;
    println!("{bytes} bytes behind: in sync after {:.1} s, {sent} bytes sent, cut twice", began.elapsed().as_secs_f64());
    assert_eq!(line.cuts_left(), 0, "it was not cut twice");
    // From the start each time, it would have been far more.
    assert!(sent < bytes + bytes / 4, "{sent} bytes were sent of {bytes}");
    let metrics = cluster.node(3).get("/metrics").unwrap();
    assert!(metrics.contains("flotilla_snapshots_received_total 1"), "{metrics}");
    assert_eq!(read(&cluster, 3, &cli), leader_has, "node 3 has something else than the others");
}

/// Hash and length of what `node` has, offsets and all.
fn read(cluster: &Cluster, node: u64, cli: &Cli) -> (u64, usize) {
    cli.run(&format!("partition transfer-leader t 0 --to {node}")).ok();
    let address = cluster.addresses().split(',').nth(node as usize - 1).unwrap().to_owned();
    let text = Cli::new(address).args(&["consume", "t", "--from", "earliest", "--until-end", "--format", "%o %v\\n"], b"");
    assert_eq!(text.code, Some(0), "{}", text.stderr);
    let mut hasher = DefaultHasher::new();
    hasher.write(&text.stdout);
    (hasher.finish(), text.stdout.len())
}

/// What no replica here knows of, the others say when asked: what they said by themselves may have come before anybody listened.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_restarted_knows_who_leads_what_it_does_not_hold() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::started(dir.path(), 3, &ARGS);
    Cli::new(cluster.addresses()).run("topic create t --partitions 12 --replication-factor 1").ok();
    for _ in 0..5 {
        cluster.node(3).kill();
        cluster.node(3).start();
        let third = Cli::new(cluster.node(3).address());
        let began = Instant::now();
        loop {
            let described: Value = serde_json::from_str(&third.run("topic describe t -o json").ok()).unwrap();
            let partitions = described["partitions"].as_array().unwrap();
            if partitions.iter().all(|partition| partition["leader"].is_u64()) {
                break;
            }
            assert!(began.elapsed() < PATIENCE, "it does not know who leads: {described}");
            std::thread::sleep(POLL_INTERVAL);
        }
    }
}

/// Nobody has a link to it any more; it hears of it all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_removed_ends_and_does_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::started(dir.path(), 3, &ARGS);
    Cli::new(cluster.node(1).address()).run("node remove 3").ok();
    let began = Instant::now();
    while cluster.node(3).is_running() {
        assert!(began.elapsed() < PATIENCE, "it goes on");
        std::thread::sleep(POLL_INTERVAL);
    }
    assert!(cluster.node(3).wait().success(), "it leaves in peace");
    let refused = cluster.node(3).try_start().unwrap_err();
    assert!(refused.log.contains("was removed from its cluster"), "{}", refused.log);
}

/// For a restart: it leads no partition, and not the controller either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_node_leads_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::started(dir.path(), 3, &ARGS);
    let all = Cli::new(cluster.addresses());
    all.run("topic create t --partitions 6 --replication-factor 3").ok();
    cluster.wait_in_sync("t", PATIENCE).await;
    let status = || serde_json::from_str::<Value>(&all.run("cluster status -o json").ok()).unwrap();
    let began = Instant::now();
    // Whoever leads it, down to the last that is left.
    for _ in 0..2 {
        let drained = status()["controller_leader"].as_u64().unwrap();
        all.run(&format!("node drain {drained}")).ok();
        loop {
            let status = status();
            let node = status["nodes"].as_array().unwrap().iter().find(|node| node["node_id"] == drained).unwrap();
            if node["leaders"] == 0 && status["controller_leader"].as_u64().is_some_and(|leader| leader != drained) {
                break;
            }
            assert!(began.elapsed() < PATIENCE, "node {drained} still leads: {status}");
            std::thread::sleep(POLL_INTERVAL);
        }
    }
}

/// What belongs to another cluster must not be served as a part of this one; whoever does not answer refuses nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_of_another_cluster_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let here = Server::started(&dir.path().join("here"), &[]);
    let mut foreign = Server::started(&dir.path().join("foreign"), &[]);
    assert!(foreign.stop().success());
    foreign.add_args(&["--seeds", &here.address()]);
    let refused = foreign.try_start().unwrap_err();
    assert!(refused.log.contains("belongs to cluster"), "{}", refused.log);
    drop(here);
    foreign.start();
}
