//! A full disk: nothing is acknowledged that is not there, the server says what is wrong, and goes on when there is space.
//! Needs root, for a small tmpfs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::time::{Duration, Instant};

use flotilla_tests::mounts::{self, Mount};
use flotilla_tests::read;
use flotilla_tests::server::Server;
use flotilla_tests::writers::Writers;

const TOPIC: &str = "full";
const DISK_MIB: u64 = 192;
const LARGER_DISK_MIB: u64 = 1024;
const ARGS: [&str; 4] = ["--journal-bytes", "128MiB", "--segment-bytes", "4MiB"];
/// The disk is full long before.
const FILL_TIMEOUT: Duration = Duration::from_secs(120);
/// Without an acknowledgement for this long, none will come.
const SILENCE: Duration = Duration::from_secs(3);

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

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mount = match Mount::tmpfs(&dir.path().join("small"), DISK_MIB) {
        Ok(mount) => mount,
        Err(why) => return mounts::skip("disk_full", &why),
    };
    let mut server = Server::started(&dir.path().join("small/data"), &ARGS);
    let client = server.client().await;
    read::create_topic(&client, TOPIC, 3).await;
    let writers = Writers::start(&client, TOPIC, 3, Duration::from_secs(5)).await;
    wait_until_full(&writers).await;
    let history = writers.stop().await;
    assert!(history.acked() > 1_000 && history.acked() < history.len());
    let log = server.log();
    assert!(log.contains("No space left on device"), "the log says what is wrong:\n{log}");
    if server.is_running() {
        // It may still serve reads; then it serves the right ones.
        history.check(&read::all(&client, TOPIC).await);
        server.kill();
    } else {
        assert_eq!(server.wait().code(), Some(1), "a node whose storage failed ends as a failure");
    }
    mount.resize(LARGER_DISK_MIB);
    server.start();
    let client = server.client().await;
    history.check(&read::all(&client, TOPIC).await);
    let more = flotilla_tests::history::send(&client, TOPIC, 1_000, 0..100).await.unwrap();
    assert_eq!(more.acked(), 100);
    println!("{} of {} records were acknowledged before the disk was full", history.acked(), history.len());
    server.kill();
}
