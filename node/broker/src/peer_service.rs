//! The Peer service: what other nodes ask this one about the cluster, before and after it belongs to one.

use std::sync::Arc;

use bytes::Bytes;
use flotilla_machines::controller::{ControllerAnswer, ControllerOutcome};
use flotilla_proto::internal::v1;
use flotilla_proto::internal::v1::control_response::Result as Controlled;
use flotilla_proto::internal::v1::controller_command::Command;
use flotilla_proto::internal::v1::peer_server::{Peer, PeerServer};
use flotilla_raft::data_dir::ClusterId;
use prost::Message;
use tonic::{Request, Response, Status};

use crate::broker::Broker;
use crate::error::{Failed, NotServing};
use crate::founding::{Newcomer, Shared, Told};

/// See the module.
pub struct PeerService(Stage);

enum Stage {
    Newcomer(Arc<Shared>),
    Member(Broker),
}

impl Newcomer {
    /// What its peers may ask of a node while it belongs to no cluster.
    #[must_use]
    pub fn peer_service(&self) -> PeerServer<PeerService> {
        PeerServer::new(PeerService(Stage::Newcomer(self.shared.clone())))
    }
}

impl Broker {
    /// What its peers may ask of a node.
    #[must_use]
    pub fn peer_service(&self) -> PeerServer<PeerService> {
        PeerServer::new(PeerService(Stage::Member(self.clone())))
    }

    async fn controlled(&self, command: Command, forwarded: bool) -> Controlled {
        let outcome = if forwarded { self.control(command).await } else { return self.control_anywhere(command).await.into() };
        controlled(outcome)
    }
}

/// A controller's outcome as the wire says it.
pub(crate) fn controlled(outcome: Result<ControllerOutcome, Failed>) -> Controlled {
    match outcome {
        Ok(Ok(ControllerAnswer::ProducerIds { first, .. })) => {
            Controlled::Done(v1::ControlDone { first_producer_id: Some(first), ..v1::ControlDone::default() })
        }
        Ok(Ok(ControllerAnswer::ReplicaRenewed { replica_id })) => {
            Controlled::Done(v1::ControlDone { replica_id, ..v1::ControlDone::default() })
        }
        Ok(Ok(_)) => Controlled::Done(v1::ControlDone::default()),
        Ok(Err(refused)) => Controlled::Refused(refused.to_string()),
        Err(Failed::NotServing(NotServing::NotLeader { leader, .. })) => {
            Controlled::NotLeader(leader.map_or(0, |(node_id, _)| node_id))
        }
        Err(Failed::NotServing(_)) => Controlled::NotLeader(0),
        Err(Failed::Unknown { reason }) => Controlled::Unknown(reason),
    }
}

#[tonic::async_trait]
impl Peer for PeerService {
    async fn introduce(&self, request: Request<v1::IntroduceRequest>) -> Result<Response<v1::IntroduceResponse>, Status> {
        let answer = match &self.0 {
            Stage::Newcomer(shared) => v1::IntroduceResponse {
                node_id: shared.node_id,
                directory_id: Bytes::copy_from_slice(&shared.directory_id),
                cluster_id: None,
                peer_address: shared.options.peer_address.clone(),
                nodes: Vec::new(),
                seeds: shared.options.seeds.clone(),
                metadata_version: None,
                removed: false,
            },
            Stage::Member(broker) => broker.introduction(request.get_ref().node_id).await,
        };
        Ok(Response::new(answer))
    }

    async fn form(&self, request: Request<v1::FormRequest>) -> Result<Response<v1::FormResponse>, Status> {
        let request = request.into_inner();
        let cluster_id = <[u8; 16]>::try_from(&request.cluster_id[..]);
        let cluster_id = ClusterId(cluster_id.map_err(|_| Status::invalid_argument("a cluster id has 16 bytes"))?);
        match &self.0 {
            Stage::Newcomer(shared) => {
                let nodes = request.nodes.into_iter().map(|node| (node.node_id, node.peer_address)).collect();
                shared.form(Told { cluster_id, nodes }).await.map_err(Status::failed_precondition)?;
            }
            Stage::Member(broker) if broker.inner.cluster_id == cluster_id => {}
            Stage::Member(_) => return Err(Status::failed_precondition("this node belongs to another cluster")),
        }
        Ok(Response::new(v1::FormResponse {}))
    }

    async fn control(&self, request: Request<v1::ControlRequest>) -> Result<Response<v1::ControlResponse>, Status> {
        let request = request.into_inner();
        let command = v1::ControllerCommand::decode(request.command).ok().and_then(|command| command.command);
        let command = command.ok_or_else(|| Status::invalid_argument("not a controller command of this version"))?;
        let result = match &self.0 {
            Stage::Newcomer(_) => Controlled::NotLeader(0),
            Stage::Member(broker) => broker.controlled(command, request.forwarded).await,
        };
        Ok(Response::new(v1::ControlResponse { result: Some(result) }))
    }

    async fn describe_partitions(
        &self,
        request: Request<v1::DescribePartitionsRequest>,
    ) -> Result<Response<v1::DescribePartitionsResponse>, Status> {
        let partitions = match &self.0 {
            Stage::Newcomer(_) => Vec::new(),
            Stage::Member(broker) => broker.describe_led(request.into_inner().group_ids).await,
        };
        Ok(Response::new(v1::DescribePartitionsResponse { partitions }))
    }

    async fn troubles(&self, _: Request<v1::TroublesRequest>) -> Result<Response<v1::TroublesResponse>, Status> {
        let troubles = match &self.0 {
            Stage::Newcomer(_) => Vec::new(),
            Stage::Member(broker) => broker.told_troubles(),
        };
        Ok(Response::new(v1::TroublesResponse { troubles }))
    }

    async fn tracks(&self, request: Request<v1::TracksRequest>) -> Result<Response<v1::TracksResponse>, Status> {
        let replicas = match &self.0 {
            Stage::Newcomer(_) => Vec::new(),
            Stage::Member(broker) => broker.told_tracks(request.into_inner().group_ids),
        };
        Ok(Response::new(v1::TracksResponse { replicas }))
    }

    async fn release(&self, request: Request<v1::ReleaseRequest>) -> Result<Response<v1::ReleaseResponse>, Status> {
        match &self.0 {
            Stage::Newcomer(_) => Ok(Response::new(v1::ReleaseResponse::default())),
            Stage::Member(broker) => broker.release(request.into_inner()).await.map(Response::new),
        }
    }
}
