//! Consume streams and long polls.

use flotilla_proto::v1;
use flotilla_proto::v1::consume_response::Response as Push;
use flotilla_records::Batch;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::node::{Node, offset, produce, reason};

type Asks = mpsc::Sender<v1::ConsumeRequest>;

pub fn ask(request: v1::consume_request::Request) -> v1::ConsumeRequest {
    v1::ConsumeRequest { request: Some(request) }
}

pub fn credit(records: u64, bytes: u64) -> v1::ConsumeRequest {
    ask(v1::consume_request::Request::Credit(v1::Credit { records, bytes }))
}

pub async fn open(node: &Node, open: v1::ConsumeOpen) -> (Asks, Streaming<v1::ConsumeResponse>) {
    let (asks, requests) = mpsc::channel(16);
    asks.send(ask(v1::consume_request::Request::Open(open))).await.unwrap();
    let mut pushes = node.consumer().consume(ReceiverStream::new(requests)).await.unwrap().into_inner();
    assert!(matches!(pushes.message().await.unwrap().unwrap().response, Some(Push::Opened(_))));
    (asks, pushes)
}

pub fn from(position: Option<v1::Position>) -> v1::ConsumeOpen {
    let partitions = vec![v1::PartitionPosition { partition: 0, position, stop_offset: None }];
    v1::ConsumeOpen { topic: "t".into(), partitions, ..Default::default() }
}

fn records(push: Option<v1::ConsumeResponse>) -> v1::ConsumedRecords {
    match push.and_then(|push| push.response) {
        Some(Push::Records(records)) => records,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn plain_records_come_exactly_as_far_as_the_credits_go() {
    let node = Node::start().await;
    node.create("t", 1).await;
    node.fill(100).await;
    let (asks, mut pushes) = open(&node, from(offset(5))).await;
    asks.send(credit(7, u64::MAX)).await.unwrap();
    let first = records(pushes.message().await.unwrap());
    assert_eq!((first.records.len(), first.next_offset, first.high_watermark), (7, 12, 100));
    assert_eq!(first.records[0].value.as_deref(), Some("5".as_bytes()));
    asks.send(credit(3, u64::MAX)).await.unwrap();
    let second = records(pushes.message().await.unwrap());
    assert_eq!((second.records[0].offset, second.records.len()), (12, 3));
    // Whatever was pushed beyond the credits would come before the end that closing our side brings.
    drop(asks);
    assert!(pushes.message().await.unwrap().is_none());
}

#[tokio::test]
async fn batches_come_whole_and_carry_their_offsets() {
    let node = Node::start().await;
    node.create("t", 1).await;
    for _ in 0..3 {
        node.fill(10).await;
    }
    let (asks, mut pushes) = open(&node, v1::ConsumeOpen { encoding: 2, ..from(offset(12)) }).await;
    asks.send(credit(1, u64::MAX)).await.unwrap();
    let push = records(pushes.message().await.unwrap());
    assert_eq!((push.batches.len(), push.next_offset), (1, 20));
    let batch = Batch::parse(push.batches[0].clone()).unwrap();
    batch.verify_crc().unwrap();
    assert_eq!((batch.header().base_offset, batch.header().record_count), (10, 10));
}

#[tokio::test]
async fn until_end_ends_each_partition_and_then_the_stream() {
    let node = Node::start().await;
    node.create("t", 2).await;
    node.fill(10).await;
    let position = |partition, stop_offset| v1::PartitionPosition { partition, position: offset(0), stop_offset };
    let partitions = vec![position(0, Some(4)), position(1, None)];
    let (asks, mut pushes) = open(&node, v1::ConsumeOpen { partitions, until_end: true, ..from(None) }).await;
    asks.send(credit(1_000, u64::MAX)).await.unwrap();
    let (mut seen, mut ends) = (0, vec![]);
    while let Some(push) = pushes.message().await.unwrap() {
        match push.response.unwrap() {
            Push::Records(push) => seen += push.records.len(),
            Push::PartitionEnd(end) => ends.push((end.partition, end.next_offset)),
            other => panic!("{other:?}"),
        }
    }
    ends.sort_unstable();
    assert_eq!((seen, ends), (4, vec![(0, 4), (1, 0)]));
}

#[tokio::test]
async fn what_is_produced_later_is_pushed_and_wakes_a_long_poll() {
    let node = Node::start().await;
    node.create("t", 1).await;
    let (asks, mut pushes) = open(&node, from(offset(0))).await;
    asks.send(credit(100, u64::MAX)).await.unwrap();
    let wait_max = Some(super::super::convert::wire_duration(std::time::Duration::from_secs(3600)));
    let fetch = v1::FetchRequest { topic: "t".into(), position: offset(0), wait_max, ..Default::default() };
    let mut consumer = node.consumer();
    let poll = tokio::spawn(async move { consumer.fetch(fetch).await.unwrap().into_inner() });
    node.producer().produce(produce(&["late"])).await.unwrap();
    assert_eq!(records(pushes.message().await.unwrap()).records[0].value.as_deref(), Some("late".as_bytes()));
    assert_eq!(poll.await.unwrap().records[0].value.as_deref(), Some("late".as_bytes()));
}

#[tokio::test]
async fn a_fetch_that_need_not_wait_answers_at_once() {
    let node = Node::start().await;
    node.create("t", 1).await;
    let fetch = v1::FetchRequest { topic: "t".into(), position: offset(0), ..Default::default() };
    let fetched = node.consumer().fetch(fetch).await.unwrap().into_inner();
    assert_eq!((fetched.records.len(), fetched.next_offset, fetched.high_watermark), (0, 0, 0));
}

#[tokio::test]
async fn wrong_openings_are_refused() {
    let node = Node::start().await;
    node.create("t", 1).await;
    let partition = |partition| v1::PartitionPosition { partition, position: offset(0), stop_offset: None };
    let opening = |open| ask(v1::consume_request::Request::Open(open));
    for (expected, request) in [
        ("INVALID_REQUEST", credit(1, 1)),
        ("INVALID_REQUEST", opening(v1::ConsumeOpen { partitions: vec![], ..from(None) })),
        ("INVALID_REQUEST", opening(v1::ConsumeOpen { partitions: vec![partition(0), partition(0)], ..from(None) })),
        ("INVALID_REQUEST", opening(from(None))),
        ("UNKNOWN_PARTITION", opening(v1::ConsumeOpen { partitions: vec![partition(1)], ..from(None) })),
        ("UNKNOWN_TOPIC", opening(v1::ConsumeOpen { topic: "absent".into(), ..from(offset(0)) })),
        ("OFFSET_OUT_OF_RANGE", opening(from(offset(1)))),
    ] {
        let mut pushes = node.consumer().consume(tokio_stream::iter([request])).await.unwrap().into_inner();
        assert_eq!(reason(&pushes.message().await.unwrap_err()), expected);
    }
}

#[tokio::test]
async fn deleting_the_topic_ends_its_streams() {
    let node = Node::start().await;
    node.create("t", 1).await;
    let (asks, mut pushes) = open(&node, from(offset(0))).await;
    asks.send(credit(100, u64::MAX)).await.unwrap();
    node.topics().delete_topic(v1::DeleteTopicRequest { name: "t".into(), if_exists: false }).await.unwrap();
    assert_eq!(reason(&pushes.message().await.unwrap_err()), "UNKNOWN_TOPIC");
}
