//! Power cuts: the data directory lies on an ext4 in a file, the file is copied while producers write, and a server on the
//! copy has every record that was acknowledged before. What was written and not synced is not in the file.
//!
//! `FLOTILLA_POWER_CUTS` (2; at full size 20), `FLOTILLA_SEED`. Needs root and loop devices.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::path::Path;
use std::time::Duration;

use flotilla_tests::history::History;
use flotilla_tests::mounts::{self, Mount};
use flotilla_tests::random::Random;
use flotilla_tests::read;
use flotilla_tests::server::Server;
use flotilla_tests::settings;
use flotilla_tests::writers::Writers;
use rustix::process::Signal;

const TOPIC: &str = "cut";
const PARTITIONS: u32 = 6;
const WRITERS: u32 = 3;
const DISK_MIB: u64 = 1024;
/// Small files, so that they are rolled and recycled while the power is cut.
const ARGS: [&str; 4] = ["--journal-bytes", "128MiB", "--segment-bytes", "1MiB"];
const ACKED_MIN: usize = 500;
const ACKED_SPREAD: usize = 8_000;

/// Opens the copy as after a power cut, and checks it; again after a kill, which must not undo what the first start decided.
async fn check_copy(copy: &Path, point: &Path, history: &History) {
    let _mount = Mount::ext4(copy, point).unwrap();
    let mut server = Server::started(&point.join("data"), &ARGS);
    history.check(&read::all(&server.client().await, TOPIC).await);
    server.kill();
    server.start();
    let client = server.client().await;
    history.check(&read::all(&client, TOPIC).await);
    flotilla_tests::history::send(&client, TOPIC, 1_000, 0..10).await.unwrap();
    server.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_records_survive_power_cuts() {
    let cuts = settings::number("FLOTILLA_POWER_CUTS", 2);
    let dir = tempfile::tempdir().unwrap();
    let (image, copy) = (dir.path().join("image"), dir.path().join("copy"));
    let (point, copy_point) = (dir.path().join("mounted"), dir.path().join("copy-mounted"));
    let mount = match Mount::new_ext4(&image, DISK_MIB, &point) {
        Ok(mount) => mount,
        Err(why) => return mounts::skip("power_cut", &why),
    };
    let mut random = Random::fresh();
    let mut server = Server::started(&point.join("data"), &ARGS);
    let client = server.client().await;
    read::create_topic(&client, TOPIC, PARTITIONS).await;
    let writers = Writers::start(&client, TOPIC, WRITERS, Duration::from_secs(120)).await;
    let mut unsynced = 0;
    for _ in 0..cuts {
        writers.wait_for_acks(ACKED_MIN + random.below(ACKED_SPREAD)).await;
        tokio::time::sleep(Duration::from_micros(random.below(20_000) as u64)).await;
        // It holds still between any two instructions, so that the copy shows one moment; and while that is looked at.
        server.signal(Signal::STOP);
        let history = writers.history();
        mount.cut(&image, &copy).unwrap();
        unsynced += history.len() - history.acked();
        check_copy(&copy, &copy_point, &history).await;
        server.signal(Signal::CONT);
    }
    let history = writers.stop().await;
    history.check(&read::all(&client, TOPIC).await);
    server.kill();
    println!("{cuts} power cuts, {} records, {unsynced} in flight at the cuts, 0 lost", history.acked());
}
