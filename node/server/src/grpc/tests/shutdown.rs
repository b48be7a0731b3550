//! Stopping and starting again.

use flotilla_proto::v1;
use flotilla_proto::v1::consume_response::Response as Push;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use super::consume::{from, open};
use super::node::{Node, offset, produce, reason};

#[tokio::test]
async fn open_streams_are_told_to_move_on_and_what_was_acknowledged_is_there_after_a_restart() {
    let node = Node::start().await;
    node.create("t", 1).await;
    let (_asks, mut pushes) = open(&node, from(offset(0))).await;
    let (requests, receiver) = mpsc::channel(1);
    let mut answers = node.producer().produce_stream(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    requests.send(produce(&["kept"])).await.unwrap();
    assert!(answers.message().await.unwrap().unwrap().results[0].error.is_none());

    node.stop.cancel();
    assert!(matches!(pushes.message().await.unwrap().unwrap().response, Some(Push::Drain(_))));
    assert!(pushes.message().await.unwrap().is_none());
    assert_eq!(reason(&answers.message().await.unwrap_err()), "DRAINING");
    drop(requests);
    let dir = node.stop().await;

    let node = Node::start_in(dir).await;
    assert_eq!(node.high_watermark().await, 1);
    let fetch = v1::FetchRequest { topic: "t".into(), position: offset(0), ..Default::default() };
    let fetched = node.consumer().fetch(fetch).await.unwrap().into_inner();
    assert_eq!(fetched.records[0].value.as_deref(), Some("kept".as_bytes()));
    node.stop().await;
}

#[tokio::test]
async fn health_and_metadata_are_served() {
    let node = Node::start().await;
    let mut health = HealthClient::new(node.channel.clone());
    let status = health.check(HealthCheckRequest { service: String::new() }).await.unwrap().into_inner().status;
    assert_eq!(status, 1);
    let cluster = node.cluster().describe_cluster(v1::DescribeClusterRequest {}).await.unwrap().into_inner();
    assert_eq!((cluster.cluster_id.len(), cluster.nodes.len()), (36, 1));
    let metadata = node.cluster().get_metadata(v1::GetMetadataRequest::default()).await.unwrap().into_inner();
    assert_eq!(metadata.limits.unwrap().request_bytes_max, 8 << 20);
    node.stop().await;
}

#[tokio::test]
async fn reflection_names_every_public_service_and_nothing_internal() {
    let node = Node::start().await;
    let mut reflection = ServerReflectionClient::new(node.channel.clone());
    let list =
        ServerReflectionRequest { host: String::new(), message_request: Some(MessageRequest::ListServices(String::new())) };
    let mut answers = reflection.server_reflection_info(tokio_stream::iter([list])).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(services) = answer else { panic!("{answer:?}") };
    let names: Vec<_> = services.service.into_iter().map(|service| service.name).collect();
    for name in ["Cluster", "Consumer", "Groups", "Producer", "Topics"] {
        assert!(names.contains(&format!("flotilla.v1.{name}")), "{names:?}");
    }
    assert!(!names.iter().any(|name| name.contains("internal")), "{names:?}");
}
