//! What one answer may hold, and what ends a stream that waits.

use flotilla_proto::v1;
use flotilla_proto::v1::consume_response::Response as Push;
use flotilla_records::{BatchBuilder, Codec};
use prost::Message;

use super::consume::{credit, from, open};
use super::node::{Node, offset, produce_batch, reason};

const RECORDS: u64 = 1_000;
const RECORD_BYTES: usize = 15_000;
/// Default of a fetch and of a push.
const ANSWER_BYTES: usize = 1 << 20;

/// 15 MB of records that compress to almost nothing.
async fn fill_with_a_bomb(node: &Node) {
    let mut builder = BatchBuilder::new();
    for _ in 0..RECORDS {
        builder.add(1, None, Some(&[0; RECORD_BYTES]), []).unwrap();
    }
    let bomb = builder.finish(Codec::Zstd, None).unwrap();
    assert!(bomb.len() < ANSWER_BYTES / 10);
    node.producer().produce(produce_batch(bomb)).await.unwrap();
}

#[tokio::test]
async fn plain_records_are_bounded_as_they_are_sent_not_as_they_are_stored() {
    let node = Node::start().await;
    node.create("t", 1).await;
    fill_with_a_bomb(&node).await;
    let mut next = 0;
    while next < RECORDS {
        let fetch = v1::FetchRequest { topic: "t".into(), position: offset(next), ..Default::default() };
        let fetched = node.consumer().fetch(fetch).await.unwrap().into_inner();
        assert!(fetched.encoded_len() <= ANSWER_BYTES, "{}", fetched.encoded_len());
        assert_eq!(fetched.records.first().unwrap().offset, next);
        assert_eq!(fetched.next_offset, next + fetched.records.len() as u64);
        next = fetched.next_offset;
    }

    let (asks, mut pushes) = open(&node, from(offset(0))).await;
    asks.send(credit(u64::MAX, u64::MAX)).await.unwrap();
    let mut next = 0;
    while next < RECORDS {
        let push = pushes.message().await.unwrap().unwrap();
        assert!(push.encoded_len() <= ANSWER_BYTES + 64, "{}", push.encoded_len());
        let Some(Push::Records(push)) = push.response else { panic!("{push:?}") };
        assert_eq!(push.records.first().unwrap().offset, next);
        next = push.next_offset;
    }
}

/// Batches with these timestamps, in seconds.
async fn fill_with_times(node: &Node, batches: &[&[i64]]) {
    for times in batches {
        let mut builder = BatchBuilder::new();
        for time in *times {
            builder.add(time * 1_000, None, Some(b"value"), []).unwrap();
        }
        node.producer().produce(produce_batch(builder.finish(Codec::None, None).unwrap())).await.unwrap();
    }
}

#[tokio::test]
async fn a_timestamp_is_looked_for_behind_a_batch_that_was_cut() {
    let node = Node::start().await;
    node.create("t", 1).await;
    fill_with_times(&node, &[&[100, 50], &[60], &[200]]).await;
    let delete = v1::DeleteRecordsRequest { topic: "t".into(), partition: 0, before_offset: 1 };
    node.topics().delete_records(delete).await.unwrap();
    for (seconds, expected) in [(40, 1), (55, 2), (80, 3), (200, 3), (201, 4)] {
        let mut record = v1::Record { timestamp: Some(Default::default()), ..Default::default() };
        record.timestamp.as_mut().unwrap().seconds = seconds;
        let at = Some(v1::position::At::Timestamp(record.timestamp.unwrap()));
        let list = v1::ListOffsetsRequest { topic: "t".into(), position: Some(v1::Position { at }), ..Default::default() };
        let listed = node.consumer().list_offsets(list).await.unwrap().into_inner();
        assert_eq!(listed.offsets[0].offset, expected, "{seconds} s");
    }
}

#[tokio::test]
async fn a_stream_without_credit_learns_that_its_topic_was_deleted() {
    let node = Node::start().await;
    node.create("t", 2).await;
    let (_asks, mut pushes) = open(&node, from(offset(0))).await;
    node.topics().delete_topic(v1::DeleteTopicRequest { name: "t".into(), if_exists: false }).await.unwrap();
    assert_eq!(reason(&pushes.message().await.unwrap_err()), "UNKNOWN_TOPIC");
}

#[tokio::test]
async fn a_retention_that_would_round_to_for_ever_is_refused() {
    let node = Node::start().await;
    for (nanos, accepted) in [(1, false), (999_999, false), (1_000_000, true), (0, true)] {
        let retention = Some(super::super::convert::wire_duration(std::time::Duration::from_nanos(nanos)));
        let config = Some(v1::TopicConfig { retention, ..Default::default() });
        let create = v1::CreateTopicRequest { name: format!("t{nanos}"), config, ..Default::default() };
        let created = node.topics().create_topic(create).await;
        assert_eq!(created.is_ok(), accepted, "{nanos} ns: {created:?}");
    }
}
