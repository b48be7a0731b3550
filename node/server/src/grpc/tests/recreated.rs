//! A topic that is deleted and created again is another one for whoever named the old one, and the same for whoever named none.

use flotilla_proto::v1;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::consume::{ask, credit, from, open};
use super::node::{Node, offset, produce, reason};

async fn topic_id(node: &Node) -> String {
    let described = node.topics().describe_topic(v1::DescribeTopicRequest { name: "t".into() }).await.unwrap();
    described.into_inner().topic.unwrap().id
}

async fn delete(node: &Node) {
    node.topics().delete_topic(v1::DeleteTopicRequest { name: "t".into(), if_exists: false }).await.unwrap();
}

/// What a call of each kind that may name the topic comes to.
async fn called(node: &Node, topic_id: Option<&str>) -> Vec<(&'static str, Result<(), Status>)> {
    let (topic, topic_id) = (String::from("t"), topic_id.map(str::to_owned));
    let group = String::from("g");
    let put = v1::ProduceRequest { topic_id: topic_id.clone(), ..produce(&["x"]) };
    let fetch = v1::FetchRequest { topic: topic.clone(), topic_id: topic_id.clone(), position: offset(0), ..Default::default() };
    let list = v1::ListOffsetsRequest {
        topic: topic.clone(),
        topic_id: topic_id.clone(),
        position: Some(v1::Position { at: Some(v1::position::At::Earliest(v1::Earliest {})) }),
        ..Default::default()
    };
    let commit =
        v1::CommitRequest { group: group.clone(), topic: topic.clone(), topic_id: topic_id.clone(), ..Default::default() };
    let committed = v1::CommittedRequest { group, topic, topic_id: topic_id.clone(), partitions: vec![] };
    let consume = async {
        let open = ask(v1::consume_request::Request::Open(v1::ConsumeOpen { topic_id, ..from(offset(0)) }));
        let mut pushes = node.consumer().consume(tokio_stream::iter([open])).await?.into_inner();
        pushes.message().await.map(drop)
    };
    vec![
        ("produce", node.producer().produce(put).await.map(drop)),
        ("fetch", node.consumer().fetch(fetch).await.map(drop)),
        ("list offsets", node.consumer().list_offsets(list).await.map(drop)),
        ("commit", node.groups().commit(commit).await.map(drop)),
        ("committed", node.groups().committed(committed).await.map(drop)),
        ("consume", consume.await),
    ]
}

#[tokio::test]
async fn whoever_names_the_old_topic_is_refused_with_the_new_one() {
    let node = Node::start().await;
    node.create("t", 1).await;
    let old = topic_id(&node).await;
    for (call, outcome) in called(&node, Some(&old)).await {
        assert!(outcome.is_ok(), "{call}: {outcome:?}");
    }
    delete(&node).await;
    for (call, outcome) in called(&node, Some(&old)).await {
        assert_eq!(reason(&outcome.expect_err(call)), "UNKNOWN_TOPIC", "{call}");
    }
    node.create("t", 1).await;
    let new = topic_id(&node).await;
    assert_ne!(new, old);
    for (call, outcome) in called(&node, Some(&old)).await {
        let status = outcome.expect_err(call);
        assert_eq!((status.code(), reason(&status).as_str()), (Code::FailedPrecondition, "TOPIC_RECREATED"), "{call}");
        let details = status.get_error_details().error_info().unwrap().metadata.clone();
        assert_eq!((details["topic"].as_str(), details["topic_id"].as_str()), ("t", new.as_str()), "{call}");
    }
    assert_eq!(node.high_watermark().await, 0);
    for named in [Some(new.as_str()), None] {
        for (call, outcome) in called(&node, named).await {
            assert!(outcome.is_ok(), "{call}: {outcome:?}");
        }
    }
    for (call, outcome) in called(&node, Some("no id")).await {
        let status = outcome.expect_err(call);
        assert_eq!(reason(&status), "INVALID_REQUEST", "{call}");
        assert!(status.message().starts_with("topic_id "), "{}", status.message());
    }
}

#[tokio::test]
async fn streams_that_are_open_meanwhile_end_with_the_reason() {
    let node = Node::start().await;
    node.create("t", 1).await;
    node.fill(5).await;
    let (asks, mut pushes) = open(&node, from(offset(0))).await;
    // One without credit waits for nothing else.
    let (_silent, mut starved) = open(&node, from(offset(0))).await;
    asks.send(credit(5, u64::MAX)).await.unwrap();
    pushes.message().await.unwrap().unwrap();
    delete(&node).await;
    node.create("t", 1).await;
    for pushes in [&mut pushes, &mut starved] {
        let said = reason(&pushes.message().await.unwrap_err());
        assert!(["UNKNOWN_TOPIC", "TOPIC_RECREATED"].contains(&said.as_str()), "{said}");
    }
}

#[tokio::test]
async fn a_produce_stream_refuses_what_is_meant_for_the_old_topic_and_goes_on() {
    let node = Node::start().await;
    node.create("t", 1).await;
    let old = topic_id(&node).await;
    let (requests, receiver) = mpsc::channel(10);
    let mut answers = node.producer().produce_stream(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    let mut send = async |topic_id: &str| {
        let request = v1::ProduceRequest { topic_id: Some(topic_id.to_owned()), ..produce(&["x"]) };
        requests.send(request).await.unwrap();
        let answer = answers.message().await.unwrap().unwrap();
        answer.results[0].error.as_ref().map(|error| error.reason.clone())
    };
    assert_eq!(send(&old).await, None);
    delete(&node).await;
    node.create("t", 1).await;
    assert_eq!(send(&old).await.as_deref(), Some("TOPIC_RECREATED"));
    let new = topic_id(&node).await;
    assert_eq!(send(&new).await, None);
    assert_eq!(node.high_watermark().await, 1);
}
