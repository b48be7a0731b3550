//! kill -9 at random moments while idempotent producers write with retries: nothing acknowledged is missing, nothing is
//! there twice, order is kept.
//!
//! `FLOTILLA_KILLS` (5; at full size 50), `FLOTILLA_SEED`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::time::Duration;

use flotilla_client::{Client, ClientOptions};
use flotilla_tests::random::Random;
use flotilla_tests::read;
use flotilla_tests::server::Server;
use flotilla_tests::settings;
use flotilla_tests::writers::Writers;

const TOPIC: &str = "killed";
const PARTITIONS: u32 = 6;
const WRITERS: u32 = 3;
/// Records between two kills: at least this many are acknowledged.
const ACKED_MIN: usize = 200;
const ACKED_SPREAD: usize = 4_000;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_or_doubled() {
    let kills = settings::number("FLOTILLA_KILLS", 5);
    let mut random = Random::fresh();
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::started(dir.path(), &["--journal-bytes", "128MiB", "--segment-bytes", "4MiB"]);
    let options = ClientOptions { request_timeout: Duration::from_secs(10), ..ClientOptions::default() };
    let client = Client::connect([server.address()], options).await.unwrap();
    read::create_topic(&client, TOPIC, PARTITIONS).await;
    let writers = Writers::start(&client, TOPIC, WRITERS, Duration::from_secs(120)).await;
    let mut slowest = Duration::ZERO;
    for _ in 0..kills {
        writers.wait_for_acks(ACKED_MIN + random.below(ACKED_SPREAD)).await;
        // Anywhere between two acknowledgements.
        tokio::time::sleep(Duration::from_micros(random.below(20_000) as u64)).await;
        server.kill();
        slowest = slowest.max(server.start());
    }
    writers.wait_for_acks(ACKED_MIN).await;
    let history = writers.stop().await;
    assert_eq!(history.acked(), history.len(), "with retries everything is acknowledged in the end");
    history.check(&read::all(&client, TOPIC).await);
    server.kill();
    slowest = slowest.max(server.start());
    history.check(&read::all(&server.client().await, TOPIC).await);
    println!("{kills} kills, {} records, 0 violations; slowest start {slowest:?}", history.len());
}
