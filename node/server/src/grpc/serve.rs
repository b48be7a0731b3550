//! The gRPC server: all services on one listener, with the limits of requests.

use std::convert::Infallible;
use std::sync::Arc;

use axum::http::{Request, Response};
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
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::body::Body;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tower::{Layer, Service};

use super::cluster::ClusterService;
use super::consumer::ConsumerService;
use super::gate::Gate;
use super::groups::GroupsService;
use super::nodes::NodesService;
use super::partitions::PartitionsService;
use super::producer::ProducerService;
use super::refusals::ClearRefusals;
use super::topics::TopicsService;
use super::{Shared, connection};
use crate::net::{self, Capacity, Slot};

/// Serves until `shutdown`, then until the open calls are done.
///
/// # Errors
/// When reflection cannot be built.
pub async fn serve(
    shared: Shared,
    capacity: &Capacity,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), tonic_reflection::server::Error> {
    let bytes_max = shared.limits.request_bytes_max;
    let (health_reporter, health) = tonic_health::server::health_reporter();
    health_reporter.set_service_status("", ServingStatus::Serving).await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(flotilla_proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let draining = shared.draining.clone();
    let not_serving = async move {
        draining.cancelled().await;
        health_reporter.set_service_status("", ServingStatus::NotServing).await;
    };
    let _not_serving = AbortOnDropHandle::new(tokio::spawn(not_serving));
    let cluster = Some((shared.broker.cluster_id().into(), shared.gateway.clone()));
    let waiting = shared.broker.clone();
    let gate = Gate { cluster, ready: shared.ready.clone(), waits_for: Arc::new(move || waiting.waits_for()) };
    let load = shared.load.clone();
    let routes = Routes::new(health)
        .add_service(shared.broker.raft_service())
        .add_service(shared.broker.peer_service())
        .add_service(reflection().build_v1()?)
        // What clients still speak that are older than v1: Python's among them.
        .add_service(reflection().build_v1alpha()?)
        .add_service(ProducerServer::new(ProducerService(shared.clone())).max_decoding_message_size(bytes_max))
        .add_service(ConsumerServer::new(ConsumerService(shared.clone())).max_decoding_message_size(bytes_max))
        .add_service(GroupsServer::new(GroupsService(shared.clone())).max_decoding_message_size(bytes_max))
        .add_service(TopicsServer::new(TopicsService(shared.clone())).max_decoding_message_size(bytes_max))
        .add_service(NodesServer::new(NodesService(shared.clone())).max_decoding_message_size(bytes_max))
        .add_service(PartitionsServer::new(PartitionsService(shared.clone())).max_decoding_message_size(bytes_max))
        .add_service(ClusterServer::new(ClusterService(shared)).max_decoding_message_size(bytes_max))
        .prepare();
    let service = gate.layer(ClearRefusals { request_bytes_max: bytes_max }.layer(routes));
    let keeper = load.clone();
    let _load = AbortOnDropHandle::new(tokio::spawn(async move { keeper.keep().await }));
    serve_connections(|slot| load.counting(service.clone(), slot.clone()), capacity, listener, shutdown).await;
    Ok(())
}

/// Serves the peers of a node that belongs to no cluster yet, until `shutdown`.
pub async fn serve_newcomer(
    (peers, waits_for): (PeerServer<PeerService>, watch::Receiver<String>),
    capacity: &Capacity,
    listener: TcpListener,
    shutdown: CancellationToken,
) {
    // Nobody ever opens this gate: clients are told at once to ask again.
    let (_, ready) = watch::channel(false);
    let waits_for = Arc::new(move || waits_for.borrow().clone());
    let service = Gate { cluster: None, ready, waits_for }.layer(Routes::new(peers).prepare());
    serve_connections(|_| service.clone(), capacity, listener, shutdown).await;
}

/// Each connection gets the service that `service` makes for it.
async fn serve_connections<S>(
    service: impl Fn(&Arc<Slot>) -> S,
    capacity: &Capacity,
    listener: TcpListener,
    shutdown: CancellationToken,
) where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let serve = |stream, slot| {
        let window = capacity.windows.grant();
        let service = service(&slot);
        connection::serve(stream, slot, window, service, shutdown.clone())
    };
    net::accept(listener, &capacity.slots, shutdown.cancelled(), serve).await;
}
