//! The gRPC server: all services on one listener, with the limits of the transport.

use std::future::Future;
use std::time::Duration;

use flotilla_broker::PeerService;
use flotilla_proto::internal::v1::peer_server::PeerServer;
use flotilla_proto::v1::cluster_server::ClusterServer;
use flotilla_proto::v1::consumer_server::ConsumerServer;
use flotilla_proto::v1::groups_server::GroupsServer;
use flotilla_proto::v1::nodes_server::NodesServer;
use flotilla_proto::v1::partitions_server::PartitionsServer;
use flotilla_proto::v1::producer_server::ProducerServer;
use flotilla_proto::v1::topics_server::TopicsServer;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;

use super::Shared;
use super::cluster::ClusterService;
use super::consumer::ConsumerService;
use super::gate::Gate;
use super::groups::GroupsService;
use super::nodes::NodesService;
use super::partitions::PartitionsService;
use super::producer::ProducerService;
use super::refusals::ClearRefusals;
use super::topics::TopicsService;

/// What a client may send on one stream, and on one connection, before it is read: a few large batches.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// Large batches in few frames.
const FRAME_BYTES_MAX: u32 = 1 << 20;
/// Calls and streams open on one connection.
const STREAMS_PER_CONNECTION_MAX: u32 = 1_000;
/// A connection whose peer does not answer pings is dropped.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Serves until `shutdown`, then until the open calls are done.
///
/// # Errors
/// When the listener fails or reflection cannot be built.
pub async fn serve(
    shared: Shared,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let bytes_max = shared.limits.request_bytes_max;
    let (health_reporter, health) = tonic_health::server::health_reporter();
    health_reporter.set_service_status("", ServingStatus::Serving).await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(flotilla_proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
    let draining = shared.draining.clone();
    let not_serving = async move {
        draining.cancelled().await;
        health_reporter.set_service_status("", ServingStatus::NotServing).await;
    };
    let watch = tokio::spawn(not_serving);
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .layer(Gate { ready: shared.ready.clone() })
        .layer(ClearRefusals { request_bytes_max: bytes_max })
        .add_service(health)
        .add_service(shared.broker.raft_service())
        .add_service(shared.broker.peer_service())
        .add_service(reflection.build_v1()?)
        .add_service(ProducerServer::new(ProducerService(shared.clone())).max_decoding_message_size(bytes_max))
        .add_service(ConsumerServer::new(ConsumerService(shared.clone())).max_decoding_message_size(bytes_max))
        .add_service(GroupsServer::new(GroupsService(shared.clone())).max_decoding_message_size(bytes_max))
        .add_service(TopicsServer::new(TopicsService(shared.clone())).max_decoding_message_size(bytes_max))
        .add_service(NodesServer::new(NodesService(shared.clone())).max_decoding_message_size(bytes_max))
        .add_service(PartitionsServer::new(PartitionsService(shared.clone())).max_decoding_message_size(bytes_max))
        .add_service(ClusterServer::new(ClusterService(shared)).max_decoding_message_size(bytes_max))
        .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), shutdown)
        .await?;
    watch.abort();
    Ok(())
}

/// Serves the peers of a node that belongs to no cluster yet, until `shutdown`.
///
/// # Errors
/// When the listener fails.
pub async fn serve_newcomer(
    peers: PeerServer<PeerService>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    // Nobody ever opens this gate: clients are told at once to ask again.
    let (_, ready) = watch::channel(false);
    Server::builder()
        .layer(Gate { ready })
        .add_service(peers)
        .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), shutdown)
        .await
}
