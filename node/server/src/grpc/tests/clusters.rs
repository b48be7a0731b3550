//! Requests that name a cluster are served by that cluster alone; those that name none by whoever gets them.

use std::collections::BTreeMap;

use flotilla_proto::{CLUSTER_ID, v1};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use super::consume::{from, open};
use super::fleet::Fleet;
use super::node::{Node, offset, produce, reason};

const FOREIGN: &str = "c0ffee00-0000-4000-8000-000000000000";

fn naming<T>(cluster_id: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(CLUSTER_ID, cluster_id.parse().unwrap());
    request
}

async fn cluster_id(node: &Node) -> String {
    node.cluster().get_metadata(v1::GetMetadataRequest::default()).await.unwrap().into_inner().cluster_id
}

/// What a call of each kind that names the cluster comes to.
async fn called(node: &Node, cluster_id: &str) -> BTreeMap<&'static str, Result<(), Status>> {
    let fetch = v1::FetchRequest { topic: "t".into(), position: offset(0), ..Default::default() };
    let list = naming(cluster_id, v1::ListTopicsRequest {});
    let (stream, asks) = (tokio_stream::iter([produce(&["x"])]), tokio_stream::iter([]));
    BTreeMap::from([
        ("produce", node.producer().produce(naming(cluster_id, produce(&["x"]))).await.map(drop)),
        ("produce stream", node.producer().produce_stream(naming(cluster_id, stream)).await.map(drop)),
        ("fetch", node.consumer().fetch(naming(cluster_id, fetch)).await.map(drop)),
        ("consume", node.consumer().consume(naming(cluster_id, asks)).await.map(drop)),
        ("administration", node.topics().list_topics(list).await.map(drop)),
        ("metadata", node.cluster().get_metadata(naming(cluster_id, v1::GetMetadataRequest::default())).await.map(drop)),
    ])
}

#[tokio::test]
async fn a_request_for_another_cluster_is_refused_with_both_names() {
    let node = Node::start().await;
    node.create("t", 1).await;
    let own = cluster_id(&node).await;
    for (call, outcome) in called(&node, FOREIGN).await {
        let status = outcome.expect_err(call);
        assert_eq!((status.code(), reason(&status).as_str()), (Code::FailedPrecondition, "WRONG_CLUSTER"), "{call}");
        let details = status.get_error_details().error_info().unwrap().metadata.clone();
        assert_eq!((details["cluster_id"].as_str(), details["requested_cluster_id"].as_str()), (own.as_str(), FOREIGN), "{call}");
        let says = |words: &str| status.message().contains(words);
        assert!(says(&own) && says(FOREIGN) && says("--advertise"), "{}", status.message());
    }
    assert_eq!(node.high_watermark().await, 0);
    for (call, outcome) in called(&node, &own).await {
        assert!(outcome.is_ok(), "{call}: {outcome:?}");
    }
}

#[tokio::test]
async fn nothing_is_passed_on_to_a_node_of_another_cluster() {
    let fleet = Fleet::start().await;
    let foreign = Node::start().await;
    foreign.create("t", 2).await;
    fleet.place(4, &foreign.address);
    fleet.lead(0, 4);
    let status = fleet.gateway.producer().produce(produce(&["x"])).await.unwrap_err();
    assert_eq!(reason(&status), "WRONG_CLUSTER");
    let mut answers = fleet.gateway.producer().produce_stream(tokio_stream::iter([produce(&["x"])])).await.unwrap().into_inner();
    let results = answers.message().await.unwrap().unwrap().results;
    assert_eq!(results[0].error.as_ref().unwrap().reason, "WRONG_CLUSTER");
    let (_asks, mut pushes) = open(&fleet.gateway, from(offset(0))).await;
    assert_eq!(reason(&pushes.message().await.unwrap_err()), "WRONG_CLUSTER");
    assert_eq!(foreign.high_watermark().await, 0);
}
