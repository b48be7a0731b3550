//! The Nodes service: administration of nodes. Every change is one command of the controller.

use flotilla_broker::Image;
use flotilla_proto::internal::v1::NodeState;
use flotilla_proto::v1;
use flotilla_proto::v1::nodes_client::NodesClient;
use flotilla_proto::v1::nodes_server::Nodes;
use tonic::{Request, Response, Status};

use super::Shared;
use super::call::{Call, unary};
use super::cluster;
use super::forward::{Repeat, Target, verbatim};
use super::problem::Problem;

/// See the module.
pub struct NodesService(pub Shared);

/// Implements one call: the node becomes `$state`, and the answer says how it stands.
macro_rules! set_state {
    ($service:expr, $name:literal, $request:expr, $state:expr, $method:ident -> $response:ident) => {{
        let (metadata, _, request) = $request.into_parts();
        let (call, shared) = (Call::of(&metadata), &$service.0);
        let set = async {
            let here = || async {
                shared.broker.set_node_state(request.node_id, $state).await?;
                Ok(v1::$response { node: None })
            };
            let there = verbatim!(shared.gateway, NodesClient::$method(request));
            shared.gateway.at_leader(call, &Target::Controller, Repeat::Idempotent, here, there).await?;
            Ok(v1::$response { node: Some($service.node(call, request.node_id, $state).await?) })
        };
        unary(&shared.metrics, $name, &metadata, set).await
    }};
}

#[tonic::async_trait]
impl Nodes for NodesService {
    async fn drain_node(&self, request: Request<v1::DrainNodeRequest>) -> Result<Response<v1::DrainNodeResponse>, Status> {
        set_state!(self, "DrainNode", request, NodeState::Draining, drain_node -> DrainNodeResponse)
    }

    async fn undrain_node(&self, request: Request<v1::UndrainNodeRequest>) -> Result<Response<v1::UndrainNodeResponse>, Status> {
        set_state!(self, "UndrainNode", request, NodeState::Active, undrain_node -> UndrainNodeResponse)
    }

    async fn remove_node(&self, request: Request<v1::RemoveNodeRequest>) -> Result<Response<v1::RemoveNodeResponse>, Status> {
        set_state!(self, "RemoveNode", request, NodeState::Leaving, remove_node -> RemoveNodeResponse)
    }
}

impl NodesService {
    /// How the node stands, once this one has heard of its new state. One that had nothing to give away may be gone already.
    async fn node(&self, call: Call, node_id: u64, state: NodeState) -> Result<v1::Node, Problem> {
        let wanted = match state {
            NodeState::Draining => v1::NodeState::Draining,
            NodeState::Leaving => v1::NodeState::Leaving,
            NodeState::Active | NodeState::Unspecified => v1::NodeState::Active,
        };
        let heard = |image: &Image| image.node(node_id).is_none_or(|node| cluster::state(node.state) == wanted);
        self.0.gateway.caught_up(&self.0.broker, call, heard).await;
        let described = self.0.broker.describe_cluster();
        let found = described.nodes.iter().find(|node| node.node_id == node_id).map(cluster::node);
        Ok(found.unwrap_or(v1::Node { node_id, state: wanted.into(), ..v1::Node::default() }))
    }
}
