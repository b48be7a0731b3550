//! Unary requests to a node that leads nothing: they end where the leader is.

use std::time::Duration;

use flotilla_proto::{DIRECT, v1};
use tonic::{Code, Request};
use tonic_types::StatusExt;

use super::fleet::Fleet;
use super::node::{Node, offset, produce, reason};

fn latest() -> Option<v1::Position> {
    Some(v1::Position { at: Some(v1::position::At::Latest(v1::Latest {})) })
}

async fn ends(node: &Node) -> Vec<u64> {
    let request = v1::ListOffsetsRequest { topic: "t".into(), partitions: vec![], position: latest(), topic_id: None };
    let listed = node.consumer().list_offsets(request).await.unwrap().into_inner().offsets;
    assert!(listed.iter().map(|listed| listed.partition).eq(0..listed.len() as u32));
    listed.iter().map(|listed| listed.offset).collect()
}

fn keyed(count: usize) -> v1::ProduceRequest {
    let mut request = v1::ProduceRequest { partition: None, ..produce(&vec!["value"; count]) };
    if let Some(v1::produce_request::Payload::Records(records)) = &mut request.payload {
        for (number, record) in records.records.iter_mut().enumerate() {
            record.key = Some(number.to_string().into());
        }
    }
    request
}

#[tokio::test]
async fn what_is_asked_of_one_partition_goes_to_its_leader() {
    let fleet = Fleet::start().await;
    fleet.lead(0, 2);
    let results = fleet.gateway.producer().produce(produce(&["a", "b", "c"])).await.unwrap().into_inner().results;
    assert_eq!(results.iter().map(|result| (result.partition, result.offset)).collect::<Vec<_>>(), [(0, 0), (0, 1), (0, 2)]);
    assert_eq!(fleet.second.high_watermark().await, 3);
    assert_eq!(ends(&fleet.second).await, [3, 0]);

    let fetch = v1::FetchRequest { topic: "t".into(), position: offset(1), ..Default::default() };
    let fetched = fleet.gateway.consumer().fetch(fetch).await.unwrap().into_inner();
    assert_eq!((fetched.records.len(), fetched.high_watermark), (2, 3));

    let commit = v1::CommitRequest { group: "g".into(), topic: "t".into(), offset: 2, ..Default::default() };
    fleet.gateway.groups().commit(commit).await.unwrap();
    let committed = v1::CommittedRequest { group: "g".into(), topic: "t".into(), partitions: vec![], topic_id: None };
    let here = fleet.gateway.groups().committed(committed.clone()).await.unwrap().into_inner().offsets;
    let there = fleet.second.groups().committed(committed).await.unwrap().into_inner().offsets;
    assert_eq!((here[0].offset, here[0].lag, here[1].offset), (Some(2), 1, None));
    assert_eq!(here[0], there[0]);

    let delete = v1::DeleteRecordsRequest { topic: "t".into(), partition: 0, before_offset: 2 };
    assert_eq!(fleet.gateway.topics().delete_records(delete).await.unwrap().into_inner().log_start_offset, 2);
    let fetch = v1::FetchRequest { topic: "t".into(), position: offset(0), ..Default::default() };
    let status = fleet.gateway.consumer().fetch(fetch).await.unwrap_err();
    let info = status.get_error_details().error_info().unwrap().clone();
    assert_eq!((status.code(), info.reason.as_str()), (Code::OutOfRange, "OFFSET_OUT_OF_RANGE"));
    assert_eq!(info.metadata["log_start_offset"], "2", "details are passed on");
}

#[tokio::test]
async fn records_of_several_partitions_are_split_and_their_results_put_together() {
    let fleet = Fleet::start().await;
    fleet.lead(1, 2);
    let results = fleet.gateway.producer().produce(keyed(100)).await.unwrap().into_inner().results;
    let count = |partition| results.iter().filter(|result| result.partition == partition).count() as u64;
    let (first, second) = (count(0), count(1));
    assert!(first > 0 && second > 0 && first + second == 100);
    assert_eq!(ends(&fleet.gateway).await, [first, second]);
    assert_eq!((fleet.gateway.high_watermark().await, ends(&fleet.second).await[1]), (first, second));
    for partition in 0..2 {
        let offsets = results.iter().filter(|result| result.partition == partition).map(|result| result.offset);
        assert!(offsets.eq(0..count(partition)), "in the order of the request");
    }
    // One part fails, the other does not.
    fleet.lead(1, None);
    let mut request = Request::new(keyed(100));
    request.set_timeout(Duration::from_millis(300));
    let results = fleet.gateway.producer().produce(request).await.unwrap().into_inner().results;
    for result in &results {
        let failed = result.error.as_ref().map(|error| error.reason.as_str());
        assert_eq!(failed, (result.partition == 1).then_some("NOT_LEADER"));
    }
}

#[tokio::test]
async fn administration_goes_to_the_leader_of_the_controller() {
    let fleet = Fleet::start().await;
    fleet.control(2);
    fleet.second.create("elsewhere", 1).await;
    let create = |name: &str| v1::CreateTopicRequest { name: name.into(), ..Default::default() };
    let status = fleet.gateway.topics().create_topic(create("elsewhere")).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::AlreadyExists, "TOPIC_EXISTS"));
    fleet.gateway.topics().create_topic(create("new")).await.unwrap();
    let names = fleet.second.topics().list_topics(v1::ListTopicsRequest {}).await.unwrap().into_inner().topics;
    assert_eq!(names.iter().map(|topic| topic.name.as_str()).collect::<Vec<_>>(), ["elsewhere", "new", "t"]);
    let id = |node: &Node| {
        let mut producer = node.producer();
        async move { producer.init_producer(v1::InitProducerRequest {}).await.unwrap().into_inner().producer_id }
    };
    let (first, second, third) = (id(&fleet.gateway).await, id(&fleet.second).await, id(&fleet.gateway).await);
    assert_eq!((second, third), (first + 1, first + 2), "all come from the same node");
    // A topic that nobody has is unknown, with the words of the one who must know.
    let status = fleet.gateway.producer().produce(v1::ProduceRequest { topic: "absent".into(), ..produce(&["x"]) }).await;
    assert_eq!(reason(&status.unwrap_err()), "UNKNOWN_TOPIC");
}

#[tokio::test]
async fn a_request_waits_for_a_leader_and_a_direct_one_does_not() {
    let fleet = Fleet::start().await;
    fleet.lead(0, None);
    let mut producer = fleet.gateway.producer();
    let waiting = tokio::spawn(async move { producer.produce(produce(&["waited"])).await });
    let fetch = |direct| {
        let position = latest();
        let mut request = Request::new(v1::FetchRequest { topic: "t".into(), position, ..Default::default() });
        if direct {
            request.metadata_mut().insert(DIRECT, "1".parse().unwrap());
        }
        request
    };
    let status = fleet.gateway.consumer().fetch(fetch(true)).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "NOT_LEADER"));
    assert!(!waiting.is_finished());
    fleet.lead(0, 3);
    waiting.await.unwrap().unwrap();
    assert_eq!(fleet.third.high_watermark().await, 1);
    let status = fleet.gateway.consumer().fetch(fetch(true)).await.unwrap_err();
    let info = status.get_error_details().error_info().unwrap().clone();
    assert_eq!((info.reason.as_str(), info.metadata["leader"].as_str()), ("NOT_LEADER", "3"));
    assert_eq!(info.metadata["leader_address"], fleet.links[1].address);

    // Without a leader it fails within its deadline and says why; what is committed can still be read here.
    fleet.lead(0, None);
    let mut request = Request::new(produce(&["never"]));
    request.set_timeout(Duration::from_millis(300));
    assert_eq!(reason(&fleet.gateway.producer().produce(request).await.unwrap_err()), "NOT_LEADER");
    let committed = v1::FetchRequest { topic: "t".into(), position: offset(0), ..Default::default() };
    assert_eq!(fleet.gateway.consumer().fetch(committed).await.unwrap().into_inner().high_watermark, 0);
}

#[tokio::test]
async fn a_link_that_is_down_counts_as_no_leader() {
    let fleet = Fleet::start().await;
    fleet.lead(0, 2);
    fleet.lose(2);
    let mut producer = fleet.gateway.producer();
    let waiting = tokio::spawn(async move { producer.produce(produce(&["waited"])).await });
    fleet.lead(0, 3);
    waiting.await.unwrap().unwrap();
    assert_eq!(fleet.third.high_watermark().await, 1);
}

#[tokio::test]
async fn a_long_poll_survives_a_broken_connection() {
    let fleet = Fleet::start().await;
    fleet.lead(0, 2);
    fleet.second.fill(3).await;
    let wait_max = Some(crate::grpc::convert::wire_duration(Duration::from_secs(3600)));
    let poll = v1::FetchRequest { topic: "t".into(), position: offset(3), wait_max, ..Default::default() };
    let mut consumer = fleet.gateway.consumer();
    let poll = tokio::spawn(async move { consumer.fetch(poll).await });
    // The poll is on its way once its connection is there.
    while fleet.links[0].cut() == 0 {
        tokio::task::yield_now().await;
    }
    fleet.second.fill(1).await;
    assert_eq!(poll.await.unwrap().unwrap().into_inner().records.len(), 1);
}
