//! A full disk: nothing is acknowledged that is not there, the server says what is wrong, and goes on by itself when there
//! is space. Needs root, for a small tmpfs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use flotilla_tests::cluster::Cluster;
use flotilla_tests::mounts::{self, Mount};
use flotilla_tests::read;
use flotilla_tests::server::Server;
use flotilla_tests::writers::Writers;

const TOPIC: &str = "full";
const DISK_MIB: u64 = 192;
const LARGER_DISK_MIB: u64 = 1024;
const ARGS: [&str; 6] = ["--journal-bytes", "128MiB", "--segment-bytes", "4MiB", "--disk-reserve-bytes", "0"];
/// The disk is full long before.
const FILL_TIMEOUT: Duration = Duration::from_secs(120);
/// Without an acknowledgement for this long, none will come.
const SILENCE: Duration = Duration::from_secs(3);
/// The longest that the node takes to go on once there is space.
const HEALED_WITHIN: Duration = Duration::from_secs(30);

/// Waits until nothing is acknowledged any more.
async fn wait_until_full(writers: &Writers) {
    let (started, mut acked, mut since) = (Instant::now(), 0, Instant::now());
    while since.elapsed() < SILENCE {
        assert!(started.elapsed() < FILL_TIMEOUT, "the disk does not fill up");
        tokio::time::sleep(Duration::from_millis(20)).await;
        if writers.acked() != acked {
            (acked, since) = (writers.acked(), Instant::now());
        }
    }
}

/// Waits until something is acknowledged again; how long that took.
async fn wait_until_healed(writers: &Writers) -> Duration {
    let (started, acked) = (Instant::now(), writers.acked());
    while writers.acked() == acked {
        assert!(started.elapsed() < HEALED_WITHIN, "nothing is acknowledged {HEALED_WITHIN:?} after there is space again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    started.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_loses_nothing_and_the_node_goes_on_when_there_is_space() {
    let dir = tempfile::tempdir().unwrap();
    let mount = match Mount::tmpfs(&dir.path().join("small"), DISK_MIB) {
        Ok(mount) => mount,
        Err(why) => return mounts::skip("disk_full", &why),
    };
    let mut server = Server::started(&dir.path().join("small/data"), &ARGS);
    let client = server.client().await;
    read::create_topic(&client, TOPIC, 3).await;
    // Those on their way when the disk fills up are given up before there is space, those that come later wait for it.
    let writers = Writers::start(&client, TOPIC, 3, Duration::from_secs(5)).await;
    wait_until_full(&writers).await;
    let acked = writers.acked();
    assert!(acked > 1_000);
    assert!(server.log().contains("space"), "the log does not say what is wrong:\n{}", server.log());
    mount.resize(LARGER_DISK_MIB).unwrap();
    let took = wait_until_healed(&writers).await;
    assert!(server.is_running(), "it is the same process");
    let history = writers.stop().await;
    history.check(&read::all(&client, TOPIC).await);
    println!("{acked} records were acknowledged before the disk was full; it went on {took:?} after there was space");
    // The same once more, after a crash of the whole process meanwhile.
    server.kill();
    server.start();
    let client = server.client().await;
    history.check(&read::all(&client, TOPIC).await);
    let more = flotilla_tests::history::send(&client, TOPIC, 1_000, 0..100).await.unwrap();
    assert_eq!(more.acked(), 100);
    server.kill();
}

/// Takes all that is left of a disk.
fn fill(file: &Path) {
    let mut ballast = File::create(file).unwrap();
    let piece = vec![1; 1 << 20];
    while ballast.write_all(&piece).is_ok() {}
}

/// One node of three: the others go on, and it catches up when there is space.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_of_one_node_holds_up_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let _mount = match Mount::tmpfs(&dir.path().join("n1"), DISK_MIB) {
        Ok(mount) => mount,
        Err(why) => return mounts::skip("disk_full", &why),
    };
    let mut cluster = Cluster::started(dir.path(), 3, &ARGS);
    let client = cluster.client().await;
    read::create_topic(&client, TOPIC, 6).await;
    let writers = Writers::start(&client, TOPIC, 3, Duration::from_secs(60)).await;
    writers.wait_for_acks(1_000).await;
    let ballast = dir.path().join("n1/ballast");
    fill(&ballast);
    let started = Instant::now();
    while !cluster.node(1).log().contains("space") {
        assert!(started.elapsed() < FILL_TIMEOUT, "node 1 does not notice that its disk is full");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    writers.wait_for_acks(5_000).await;
    std::fs::remove_file(ballast).unwrap();
    cluster.wait_in_sync(TOPIC, HEALED_WITHIN).await;
    assert!(cluster.node(1).is_running(), "it is the same process");
    writers.wait_for_acks(1_000).await;
    let history = writers.stop().await;
    history.check(&read::all(&client, TOPIC).await);
}
