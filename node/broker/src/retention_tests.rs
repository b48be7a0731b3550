//! What expires, and on a real node: what a wrong clock does not delete.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use flotilla_raft::types::LogId;
use flotilla_records::{BatchBuilder, Codec};

use super::*;
use crate::fetch::Position;
use crate::produce::{Payload, Produce};
use crate::surroundings::{Clock, Surroundings};
use crate::test_node;
use crate::topics::{ConfigChange, CreateTopic};

const TOPIC: &str = "t";
const DAY_MS: i64 = 24 * 3_600_000;
const YEAR_MS: i64 = 365 * DAY_MS;

fn segment(first_index: u64, next_offset: u64, newest_ms: i64, closed: bool) -> SegmentInfo {
    SegmentInfo {
        first_index,
        last: Some(LogId { term: 1, index: first_index + 9 }),
        first_offset: Some(next_offset - 10),
        next_offset,
        max_timestamp_ms: Some(newest_ms),
        bytes: 100,
        closed,
    }
}

fn at(now_ms: i64) -> MachineTime {
    MachineTime { now_ms, dated_ms: now_ms }
}

fn three() -> Vec<SegmentInfo> {
    vec![segment(0, 10, 1_000, true), segment(10, 20, 2_000, true), segment(20, 30, 3_000, false)]
}

#[test]
fn old_segments_expire_from_the_front_but_never_the_open_one() {
    let config = TopicConfig { retention_ms: 500, retention_bytes: 0, ..TopicConfig::default() };
    assert_eq!(expired_below(&three(), &config, at(1_500)), 0);
    assert_eq!(expired_below(&three(), &config, at(1_501)), 10);
    assert_eq!(expired_below(&three(), &config, at(99_999)), 20);
}

#[test]
fn segments_above_the_size_go_oldest_first() {
    let config = TopicConfig { retention_ms: 0, retention_bytes: 200, ..TopicConfig::default() };
    assert_eq!(expired_below(&three(), &config, at(0)), 10);
    let config = TopicConfig { retention_bytes: 300, ..config };
    assert_eq!(expired_below(&three(), &config, at(0)), 0);
}

#[test]
fn without_limits_nothing_expires() {
    let config = TopicConfig { retention_ms: 0, retention_bytes: 0, ..TopicConfig::default() };
    assert_eq!(expired_below(&three(), &config, at(i64::MAX)), 0);
}

#[test]
fn a_time_that_cannot_be_pins_nothing_and_deletes_nothing() {
    let config = TopicConfig { retention_ms: 500, timestamp_ahead_max_ms: 100, ..TopicConfig::default() };
    for wrong_ms in [-1, i64::MIN, 50_000, i64::MAX] {
        let mut segments = three();
        segments[0].max_timestamp_ms = Some(wrong_ms);
        // It goes with the next one.
        assert_eq!(expired_below(&segments, &config, at(2_500)), 0, "{wrong_ms}");
        assert_eq!(expired_below(&segments, &config, at(2_501)), 20, "{wrong_ms}");
        segments.iter_mut().for_each(|segment| segment.max_timestamp_ms = Some(wrong_ms));
        assert_eq!(expired_below(&segments, &config, at(3_000)), 0, "{wrong_ms}");
    }
}

#[test]
fn what_is_only_likely_deletes_nothing() {
    let config = TopicConfig { retention_ms: 500, ..TopicConfig::default() };
    assert_eq!(expired_below(&three(), &config, MachineTime { now_ms: 1_500, dated_ms: i64::MAX }), 0);
}

/// A node on its own, whose clock is ahead as far as `ahead_ms` says.
async fn node(dir: &Path, ahead_ms: &Arc<AtomicI64>) -> Broker {
    let ahead_ms = ahead_ms.clone();
    let clock = Clock::new(move || now_ms() + ahead_ms.load(Ordering::SeqCst));
    test_node::alone(dir, Surroundings { clock, ..Surroundings::real() }).await
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

async fn create(broker: &Broker, retention_ms: u64) {
    let config = ConfigChange { retention_ms: Some(retention_ms), ..ConfigChange::default() };
    broker.create_topic(CreateTopic { name: TOPIC.into(), config, ..CreateTopic::default() }).await.unwrap();
}

/// Appends one record with this timestamp.
async fn produce(broker: &Broker, timestamp_ms: i64) {
    let mut builder = BatchBuilder::new();
    builder.add(timestamp_ms, None, Some(b"value"), []).unwrap();
    let payload = Payload::Batch(builder.finish(Codec::None, None).unwrap());
    let prepared = broker.prepare(Produce { topic: TOPIC.into(), partition: Some(0), payload }).unwrap();
    broker.submit(&prepared.parts[0]).await.unwrap().appended().await.unwrap();
}

/// The first offset that is left after retention.
async fn start_after_retention(broker: &Broker) -> u64 {
    broker.apply_retention().await;
    let topic = broker.image().topic(TOPIC).unwrap().clone();
    broker.partition(&topic, 0).ok().unwrap().ends().log_start_offset
}

/// The offset and time that a look-up finds.
async fn find(broker: &Broker, timestamp_ms: i64) -> (u64, Option<i64>) {
    let found = broker.list_offsets(TOPIC, &[0], Position::Timestamp(timestamp_ms)).await.unwrap();
    (found[0].offset, found[0].timestamp_ms)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_leaps_by_a_month_deletes_nothing() {
    let (dir, ahead_ms) = (tempfile::tempdir().unwrap(), Arc::new(AtomicI64::new(0)));
    let broker = node(dir.path(), &ahead_ms).await;
    create(&broker, 7 * DAY_MS as u64).await;
    produce(&broker, now_ms()).await;
    assert_eq!(start_after_retention(&broker).await, 0);
    for ahead_days in [30, -30] {
        ahead_ms.store(ahead_days * DAY_MS, Ordering::SeqCst);
        // What comes now stamps the partition, too.
        produce(&broker, now_ms()).await;
        assert_eq!(start_after_retention(&broker).await, 0, "{ahead_days} days ahead");
        produce(&broker, -1).await;
    }
    broker.close().await;
    drop(broker);

    // It may have been off for a month, or not.
    ahead_ms.store(30 * DAY_MS, Ordering::SeqCst);
    let broker = node(dir.path(), &ahead_ms).await;
    produce(&broker, -1).await;
    assert_eq!(start_after_retention(&broker).await, 0);
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_without_a_time_and_of_next_year_are_as_old_as_their_arrival() {
    let (dir, ahead_ms) = (tempfile::tempdir().unwrap(), Arc::default());
    let broker = node(dir.path(), &ahead_ms).await;
    create(&broker, DAY_MS as u64).await;
    let before_ms = now_ms();
    for timestamp_ms in [-1, before_ms + YEAR_MS, before_ms - 2 * DAY_MS] {
        produce(&broker, timestamp_ms).await;
    }
    assert_eq!(start_after_retention(&broker).await, 0, "they have just come");
    let (offset, found_ms) = find(&broker, before_ms).await;
    assert_eq!(offset, 0, "one without a time is found by that of its arrival");
    assert!((before_ms..=now_ms()).contains(&found_ms.unwrap()));
    assert_eq!(find(&broker, now_ms() + DAY_MS).await, (3, None), "nothing has come from the future");
    assert_eq!(find(&broker, 0).await, (0, found_ms));

    // A day passes.
    let change = ConfigChange { retention_ms: Some(1), ..ConfigChange::default() };
    broker.alter_topic(TOPIC, change, &[]).await.unwrap();
    while now_ms() <= before_ms + 1_000 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(start_after_retention(&broker).await, 3);
    broker.close().await;
}
