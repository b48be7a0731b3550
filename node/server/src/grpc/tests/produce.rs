//! Produce streams.

use flotilla_proto::v1;
use futures::{StreamExt, stream};

use super::node::{Node, offset, produce};

#[tokio::test]
async fn a_stream_answers_every_request_once_in_log_order_and_survives_refusals() {
    let node = Node::start().await;
    node.create("t", 1).await;
    let requests = (0..5_000u64).map(|n| {
        let topic = if n % 10 == 7 { "absent" } else { "t" };
        v1::ProduceRequest { topic: topic.into(), correlation_id: n, ..produce(&[n.to_string()]) }
    });
    let answers = node.producer().produce_stream(stream::iter(requests)).await.unwrap().into_inner();
    let mut answers: Vec<_> = answers.map(Result::unwrap).collect().await;
    answers.sort_by_key(|answer| answer.correlation_id);
    assert_eq!(answers.len(), 5_000);
    let mut next = 0;
    for (n, answer) in answers.iter().enumerate() {
        assert_eq!(answer.correlation_id, n as u64);
        match &answer.results[0].error {
            Some(error) => assert_eq!((error.reason.as_str(), n % 10), ("UNKNOWN_TOPIC", 7)),
            None => {
                assert_eq!(answer.results[0].offset, next, "requests of a stream are appended in order");
                next += 1;
            }
        }
    }
    assert_eq!(node.high_watermark().await, 4_500);
}

#[tokio::test]
async fn plain_records_are_answered_one_by_one() {
    let node = Node::start().await;
    node.create("t", 4).await;
    let mut request = produce(&(0..100).map(|n| n.to_string()).collect::<Vec<_>>());
    request.partition = None;
    if let Some(v1::produce_request::Payload::Records(records)) = &mut request.payload {
        for record in &mut records.records {
            record.key = record.value.clone();
        }
    }
    let results = node.producer().produce(request.clone()).await.unwrap().into_inner().results;
    assert_eq!(results.len(), 100);
    for (n, result) in results.iter().enumerate() {
        let fetch = v1::FetchRequest {
            topic: "t".into(),
            partition: result.partition,
            position: offset(result.offset),
            records_max: Some(1),
            ..Default::default()
        };
        let fetched = node.consumer().fetch(fetch).await.unwrap().into_inner();
        assert_eq!(fetched.records[0].value.as_deref(), Some(n.to_string().as_bytes()));
        assert_eq!((fetched.records.len(), fetched.next_offset), (1, result.offset + 1));
    }
}
