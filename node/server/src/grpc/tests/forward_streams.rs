//! Streams through a node that does not lead: order, outcomes, and leaders that move.

use std::time::Duration;

use flotilla_proto::v1;
use flotilla_proto::v1::consume_response::Response as Push;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::consume::{credit, from, open};
use super::fleet::Fleet;
use super::node::{Node, offset, produce};

type Requests = mpsc::Sender<v1::ProduceRequest>;

async fn produce_stream(node: &Node) -> (Requests, Streaming<v1::ProduceResponse>) {
    let (requests, receiver) = mpsc::channel(1_000);
    let answers = node.producer().produce_stream(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    (requests, answers)
}

async fn send(requests: &Requests, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let request = v1::ProduceRequest { correlation_id: number, ..produce(&[number.to_string()]) };
        requests.send(request).await.unwrap();
    }
}

/// Correlation ids with offsets or reasons, sorted.
async fn answered(answers: &mut Streaming<v1::ProduceResponse>, count: usize) -> Vec<(u64, Result<u64, String>)> {
    let mut all = Vec::new();
    while all.len() < count {
        let answer = answers.message().await.unwrap().expect("the stream goes on");
        assert_eq!(answer.results.len(), 1);
        let result = &answer.results[0];
        all.push((answer.correlation_id, result.error.as_ref().map_or(Ok(result.offset), |error| Err(error.reason.clone()))));
    }
    all.sort_unstable();
    all
}

/// The values of partition 0 in log order.
async fn values(node: &Node) -> Vec<u64> {
    let fetch = v1::FetchRequest { topic: "t".into(), position: offset(0), ..Default::default() };
    let records = node.consumer().fetch(fetch).await.unwrap().into_inner().records;
    records.iter().map(|record| std::str::from_utf8(record.value.as_ref().unwrap()).unwrap().parse().unwrap()).collect()
}

#[tokio::test]
async fn a_produce_stream_follows_the_leader_in_order() {
    let fleet = Fleet::start().await;
    fleet.lead(0, 2);
    let (requests, mut answers) = produce_stream(&fleet.gateway).await;
    send(&requests, 0..300).await;
    let first = answered(&mut answers, 300).await;
    assert!(first.into_iter().eq((0..300).map(|number| (number, Ok(number)))));
    // Nobody leads while these arrive; then another node does, then this one.
    fleet.lead(0, None);
    send(&requests, 300..500).await;
    fleet.lead(0, 3);
    let second = answered(&mut answers, 200).await;
    assert!(second.into_iter().eq((300..500).map(|number| (number, Ok(number - 300)))));
    fleet.lead(0, 1);
    send(&requests, 500..600).await;
    let third = answered(&mut answers, 100).await;
    assert!(third.into_iter().eq((500..600).map(|number| (number, Ok(number - 500)))));
    assert_eq!(values(&fleet.second).await, (0..300).collect::<Vec<_>>());
    assert_eq!(values(&fleet.third).await, (300..500).collect::<Vec<_>>());
    drop(requests);
    assert!(answers.message().await.unwrap().is_none());
}

#[tokio::test]
async fn requests_of_one_stream_go_to_several_leaders_at_once() {
    let fleet = Fleet::start().await;
    fleet.lead(0, 2);
    let (requests, mut answers) = produce_stream(&fleet.gateway).await;
    for number in 0..400u64 {
        let partition = Some((number % 2) as u32);
        let request = v1::ProduceRequest { correlation_id: number, partition, ..produce(&[number.to_string()]) };
        requests.send(request).await.unwrap();
    }
    let all = answered(&mut answers, 400).await;
    assert!(all.into_iter().eq((0..400).map(|number| (number, Ok(number / 2)))));
    assert_eq!(values(&fleet.second).await.len(), 200);
}

#[tokio::test]
async fn a_leader_that_drains_has_refused_what_it_did_not_answer_and_that_goes_to_the_next() {
    let fleet = Fleet::start().await;
    fleet.lead(0, 2);
    let (requests, mut answers) = produce_stream(&fleet.gateway).await;
    send(&requests, 0..10).await;
    answered(&mut answers, 10).await;
    fleet.second.stop.cancel();
    send(&requests, 10..200).await;
    fleet.lead(0, 3);
    let all = answered(&mut answers, 190).await;
    assert!(all.iter().all(|(_, outcome)| outcome.is_ok()), "{all:?}");
    let third = values(&fleet.third).await;
    // What the second took before it stopped is a prefix.
    assert_eq!(third, (200 - third.len() as u64..200).collect::<Vec<_>>());
    fleet.second.ended.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_was_on_a_connection_that_broke_is_told_to_be_unknown_and_the_stream_goes_on() {
    let fleet = Fleet::start().await;
    fleet.lead(0, 2);
    let (requests, mut answers) = produce_stream(&fleet.gateway).await;
    send(&requests, 0..1).await;
    answered(&mut answers, 1).await;
    let mut next = 1;
    let mut unknown = 0;
    while unknown == 0 {
        send(&requests, next..next + 100).await;
        // A little later each time, so that something is on its way.
        for _ in 0..next / 10 {
            tokio::task::yield_now().await;
        }
        fleet.links[0].cut();
        let all = answered(&mut answers, 100).await;
        assert!(all.iter().all(|(_, outcome)| outcome.as_ref().is_ok_and(|_| true) || *outcome == Err("OUTCOME_UNKNOWN".into())));
        unknown += all.iter().filter(|(_, outcome)| outcome.is_err()).count();
        next += 100;
    }
    send(&requests, next..next + 1).await;
    let last = answered(&mut answers, 1).await;
    assert!(last[0].1.is_ok());
    let stored = values(&fleet.second).await;
    assert!(stored.is_sorted_by(|one, other| one < other), "in order, and nothing twice");
}

async fn records(pushes: &mut Streaming<v1::ConsumeResponse>, count: usize) -> Vec<(u32, u64)> {
    let mut all = Vec::new();
    while all.len() < count {
        match pushes.message().await.unwrap().expect("the stream goes on").response {
            Some(Push::Records(push)) => all.extend(push.records.iter().map(|record| (push.partition, record.offset))),
            other => panic!("{other:?}"),
        }
    }
    all
}

#[tokio::test]
async fn a_consume_stream_reads_where_the_leaders_are_and_follows_them() {
    let fleet = Fleet::start().await;
    // The replicas are alike.
    for node in [&fleet.gateway, &fleet.second, &fleet.third] {
        node.fill(100).await;
    }
    fleet.lead(0, 2);
    let partition = |partition| v1::PartitionPosition { partition, position: offset(0), stop_offset: None };
    let opening = v1::ConsumeOpen { partitions: vec![partition(0), partition(1)], ..from(None) };
    let (asks, mut pushes) = open(&fleet.gateway, opening).await;
    asks.send(credit(60, u64::MAX)).await.unwrap();
    assert_eq!(records(&mut pushes, 60).await, (0..60).map(|offset| (0, offset)).collect::<Vec<_>>(), "exact under credits");
    asks.send(credit(u64::MAX, u64::MAX)).await.unwrap();
    assert_eq!(records(&mut pushes, 40).await, (60..100).map(|offset| (0, offset)).collect::<Vec<_>>());
    // It moves to a third node when the connection breaks, and then here.
    fleet.lead(0, 3);
    fleet.links[0].cut();
    fleet.third.fill(50).await;
    assert_eq!(records(&mut pushes, 50).await, (100..150).map(|offset| (0, offset)).collect::<Vec<_>>());
    let other = v1::ProduceRequest { partition: Some(1), ..produce(&["one"]) };
    fleet.gateway.producer().produce(other).await.unwrap();
    assert_eq!(records(&mut pushes, 1).await, [(1, 0)]);
    fleet.lead(0, 1);
    fleet.gateway.fill(60).await;
    fleet.links[1].cut();
    assert_eq!(records(&mut pushes, 10).await, (150..160).map(|offset| (0, offset)).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_partition_read_here_goes_on_at_its_new_leader() {
    let fleet = Fleet::start().await;
    let (asks, mut pushes) = open(&fleet.gateway, from(offset(0))).await;
    asks.send(credit(u64::MAX, u64::MAX)).await.unwrap();
    fleet.gateway.fill(10).await;
    assert_eq!(records(&mut pushes, 10).await.len(), 10);
    fleet.third.fill(20).await;
    fleet.lead(0, 3);
    assert_eq!(records(&mut pushes, 10).await, (10..20).map(|offset| (0, offset)).collect::<Vec<_>>());
}

#[tokio::test]
async fn latest_is_where_it_was_when_the_stream_opened() {
    let fleet = Fleet::start().await;
    fleet.lead(0, 2);
    fleet.second.fill(5).await;
    let latest = Some(v1::Position { at: Some(v1::position::At::Latest(v1::Latest {})) });
    let (asks, mut pushes) = open(&fleet.gateway, from(latest)).await;
    // Records that come while the connection is away are not skipped.
    fleet.links[0].cut();
    fleet.second.fill(5).await;
    asks.send(credit(u64::MAX, u64::MAX)).await.unwrap();
    assert_eq!(records(&mut pushes, 5).await, (5..10).map(|offset| (0, offset)).collect::<Vec<_>>());
}

#[tokio::test]
async fn until_end_ends_with_batches_and_records_alike() {
    let fleet = Fleet::start().await;
    fleet.lead(0, 2);
    fleet.second.fill(2_500).await;
    for encoding in [1, 2] {
        let opening = v1::ConsumeOpen { until_end: true, encoding, ..from(offset(3)) };
        let (asks, mut pushes) = open(&fleet.gateway, opening).await;
        asks.send(credit(1_000_000, u64::MAX)).await.unwrap();
        let mut next = 3;
        while let Some(push) = tokio::time::timeout(Duration::from_secs(60), pushes.message()).await.unwrap().unwrap() {
            match push.response {
                Some(Push::Records(push)) => next = push.next_offset,
                Some(Push::PartitionEnd(end)) => assert_eq!((end.next_offset, end.high_watermark), (2_500, 2_500)),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(next, 2_500);
    }
}

#[tokio::test]
async fn what_the_leader_refuses_ends_the_stream_in_its_words() {
    let fleet = Fleet::start().await;
    fleet.lead(0, 2);
    let (_asks, mut pushes) = open(&fleet.gateway, from(offset(7))).await;
    let status = pushes.message().await.unwrap_err();
    assert_eq!(super::node::reason(&status), "OFFSET_OUT_OF_RANGE");
}
