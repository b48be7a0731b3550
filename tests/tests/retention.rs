//! Retention by size and by time, and deleted records: the log start moves, files disappear, offsets stay.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use flotilla_client::{Assignment, Client, Position, ProducerOptions, Record, api};
use flotilla_tests::files;
use flotilla_tests::history::value;
use flotilla_tests::read::{self, Read};
use flotilla_tests::server::Server;

const TOPIC: &str = "short-lived";
const ARGS: [&str; 6] = ["--segment-bytes", "1MiB", "--retention-interval", "100ms", "--journal-bytes", "128MiB"];
/// Retention works in the background: a change that is not seen by then does not come.
const PATIENCE: Duration = Duration::from_secs(30);

async fn create(client: &Client, config: api::TopicConfig) {
    let request = api::CreateTopicRequest { name: TOPIC.into(), config: Some(config), ..Default::default() };
    client.create_topic(request).await.unwrap();
}

/// Produces records of about 10 KB, and waits for them.
async fn produce(client: &Client, numbers: std::ops::Range<u64>, timestamp_ms: Option<i64>) {
    let producer = client.producer(TOPIC, ProducerOptions { batch_bytes: 64 << 10, ..Default::default() }).await.unwrap();
    for number in numbers {
        let value = large(number);
        producer.enqueue(Record { timestamp_ms, ..Record::new(&value) }).await.unwrap();
    }
    producer.close().await.unwrap();
}

fn large(number: u64) -> Vec<u8> {
    let mut bytes = value((1, number), 100);
    bytes.resize(10_000, b'.');
    bytes
}

async fn bounds(client: &Client) -> (u64, u64) {
    read::bounds(client, TOPIC).await[&0]
}

/// Waits until the log starts at `offset` or later, and returns where.
async fn wait_for_start(client: &Client, offset: u64) -> u64 {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (start, end) = bounds(client).await;
        if start >= offset {
            return start;
        }
        assert!(Instant::now() < deadline, "the log starts at {start} of {end}, not at {offset}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn segments(server: &Server) -> Vec<std::path::PathBuf> {
    let files = files::below(&server.data_dir().join("groups"));
    files.into_iter().filter(|file| file.extension().is_some_and(|extension| extension == "segment")).collect()
}

fn segment_bytes(server: &Server) -> u64 {
    segments(server).iter().map(|file| files::len(file)).sum()
}

/// What is left has its offsets and its bytes.
async fn check(client: &Client, start: u64, end: u64) {
    assert_eq!(bounds(client).await, (start, end));
    let read = read::all(client, TOPIC).await.remove(&0).unwrap();
    let expected = (start..end).map(|offset| Read { offset, key: None, value: Some(large(offset)) });
    assert!(read.into_iter().eq(expected), "what lies from {start} to {end} is as it was");
    if start > 0 {
        let before = read::from(client, TOPIC, Assignment::all(Position::Offset(start - 1))).await;
        let error = before.expect_err("deleted records are not served").to_string();
        assert!(error.contains("out of range"), "{error}");
    }
}

/// Holds after a clean stop, and after a kill.
async fn check_restarted(server: &mut Server, start: u64, end: u64) {
    check(&server.client().await, start, end).await;
    assert!(server.stop().success());
    server.start();
    check(&server.client().await, start, end).await;
    server.kill();
    server.start();
    check(&server.client().await, start, end).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn by_size() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::started(dir.path(), &ARGS);
    let client = server.client().await;
    create(&client, api::TopicConfig { retention_bytes: Some(3 << 20), ..Default::default() }).await;
    produce(&client, 0..1_500, None).await;
    // 15 MB in segments of a good 1 MiB, of which 3 MiB may stay. The last segment to go took it below that.
    let start = wait_for_start(&client, 1_500 - 314).await;
    assert!(start < 1_500 - 314 + 130, "more was deleted than had to be: the log starts at {start}");
    let deadline = Instant::now() + PATIENCE;
    while segment_bytes(&server) > 6 << 20 {
        assert!(Instant::now() < deadline, "files stay: {:?}", segments(&server));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    check_restarted(&mut server, start, 1_500).await;
    // New records go on where the offsets were.
    produce(&server.client().await, 1_500..1_501, None).await;
    assert_eq!(bounds(&server.client().await).await.1, 1_501);
}

#[tokio::test(flavor = "multi_thread")]
async fn by_time() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::started(dir.path(), &ARGS);
    let client = server.client().await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    create(&client, api::TopicConfig::default()).await;
    produce(&client, 0..1_000, Some(now - 8 * 24 * 3_600_000)).await;
    produce(&client, 1_000..1_300, Some(now)).await;
    // The default is 7 days. The last segment with an old record may hold new ones, too: it stays.
    let start = wait_for_start(&client, 1_000 - 130).await;
    assert!(start <= 1_000, "new records were deleted: the log starts at {start}");
    check_restarted(&mut server, start, 1_300).await;
    assert!(segment_bytes(&server) < 8 << 20, "files stay: {:?}", segments(&server));
}

/// Old records go although nothing new comes to fill their segment, or even to write them into one.
#[tokio::test(flavor = "multi_thread")]
async fn by_time_where_nothing_new_comes() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::started(dir.path(), &ARGS);
    let client = server.client().await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    create(&client, api::TopicConfig::default()).await;
    produce(&client, 0..3, Some(now - 8 * 24 * 3_600_000)).await;
    wait_for_start(&client, 3).await;
    check_restarted(&mut server, 3, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_records() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::started(dir.path(), &ARGS);
    let client = server.client().await;
    create(&client, api::TopicConfig::default()).await;
    produce(&client, 0..1_000, None).await;
    check(&client, 0, 1_000).await;
    let delete = |before_offset| api::DeleteRecordsRequest { topic: TOPIC.into(), partition: 0, before_offset };
    let answer = client.delete_records(delete(777)).await.unwrap();
    assert_eq!(answer.log_start_offset, 777);
    check(&client, 777, 1_000).await;
    // It never goes back.
    assert_eq!(client.delete_records(delete(10)).await.unwrap().log_start_offset, 777);
    let deadline = Instant::now() + PATIENCE;
    while segment_bytes(&server) > 4 << 20 {
        assert!(Instant::now() < deadline, "files stay: {:?}", segments(&server));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    check_restarted(&mut server, 777, 1_000).await;
    let client = server.client().await;
    assert_eq!(client.delete_records(delete(1_000)).await.unwrap().log_start_offset, 1_000);
    check_restarted(&mut server, 1_000, 1_000).await;
    produce(&server.client().await, 1_000..1_010, None).await;
    check_restarted(&mut server, 1_000, 1_010).await;
}

/// Deleting a topic removes its files, and only its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_topic_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::started(dir.path(), &ARGS);
    let client = server.client().await;
    read::create_topic(&client, "neighbour", 1).await;
    flotilla_tests::history::send(&client, "neighbour", 1, 0..100).await.unwrap();
    create(&client, api::TopicConfig::default()).await;
    produce(&client, 0..1_000, None).await;
    let before = read::all(&client, "neighbour").await;
    client.delete_topic(api::DeleteTopicRequest { name: TOPIC.into(), if_exists: false }).await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    while segment_bytes(&server) > 1 << 20 {
        assert!(Instant::now() < deadline, "files stay: {:?}", segments(&server));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The name is free again, and what comes under it has nothing of the old topic.
    create(&client, api::TopicConfig::default()).await;
    assert_eq!(bounds(&client).await, (0, 0));
    produce(&client, 0..10, None).await;
    check_restarted(&mut server, 0, 10).await;
    assert_eq!(read::all(&server.client().await, "neighbour").await, before);
}
