//! openraft's view of the network: one client for each group and target.
//!
//! Appends go in streams (`appends.rs`), snapshots over connections of their own (`sending.rs`); the rest are questions.

use std::future::Future;
use std::time::Duration;

use flotilla_proto::internal::v1::frame::Kind;
use futures::Stream;
use openraft::OptionalSend;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetworkFactory, RaftNetworkV2, stream_append_sequential};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::alias::{SnapshotOf, VoteOf};

use super::appends::Appends;
use super::link::LinkError;
use super::outbox::Pace;
use super::peers::Peers;
use super::sending::{Sending, Transfers};
use super::urgency::Urgency;
use super::wire;
use crate::log::type_config::{OnNode, TypeConfig};
use crate::snapshot::{Held, SnapshotData};
use crate::types::{GroupId, Replica, ReplicaId};

/// Between two attempts of the same, as they go on failing. Where there is no link, nothing is attempted.
const PAUSES_MS: [u64; 6] = [10, 20, 50, 100, 200, 500];

/// Makes the clients of one group.
pub(crate) struct Network {
    pub(crate) group: GroupId,
    pub(crate) peers: Peers,
    pub(crate) urgency: Urgency,
    pub(crate) transfers: Transfers,
    pub(crate) held: Held,
}

/// Reaches one replica of one group.
pub(crate) struct Client {
    group: GroupId,
    peers: Peers,
    target: Replica,
    urgency: Urgency,
    is_heartbeat: bool,
    sending: Sending,
}

impl Network {
    fn client(&self, target: Replica, is_heartbeat: bool) -> Client {
        let (group, peers, urgency) = (self.group, self.peers.clone(), self.urgency.clone());
        let sending = Sending::new(group, target, peers.clone(), self.transfers.clone(), self.held.clone());
        Client { group, peers, target, urgency, is_heartbeat, sending }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Client;

    async fn new_client(&mut self, id: ReplicaId, &OnNode(node): &OnNode) -> Client {
        self.client(Replica { id, node }, false)
    }

    async fn new_heartbeat_client(&mut self, id: ReplicaId, &OnNode(node): &OnNode) -> Client {
        self.client(Replica { id, node }, true)
    }
}

impl Client {
    async fn ask(&self, kind: Kind, pace: Pace) -> Result<Kind, RPCError<TypeConfig>> {
        let Replica { id, node } = self.target;
        let link = self.peers.link(node).ok_or_else(|| unreachable(&LinkError::Down(node)))?;
        link.ask((self.group, id), kind, pace).await.map_err(|error| unreachable(&error))
    }

    async fn ask_vote(&self, kind: Kind) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self.ask(kind, Pace::Now).await? {
            Kind::VoteResponse(response) => wire::vote_response_from_wire(response).map_err(|error| unreachable(&error)),
            _ => Err(unreachable(&LinkError::Malformed(self.target.node))),
        }
    }
}

/// With this error openraft waits a little before it tries again.
pub(super) fn unreachable<E: std::error::Error + 'static>(error: &E) -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::new(error))
}

impl RaftNetworkV2<TypeConfig> for Client {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let pace = if self.urgency.is_urgent() { Pace::Now } else { Pace::Idle };
        match self.ask(Kind::Append(wire::append_to_wire(0, request)), pace).await? {
            Kind::AppendResult(result) => wire::response_from_wire(result).map_err(|error| unreachable(&error)),
            _ => Err(unreachable(&LinkError::Malformed(self.target.node))),
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>>, RPCError<TypeConfig>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        if self.is_heartbeat {
            return stream_append_sequential(self, input, option);
        }
        let appends = Appends::new(self.group, self.peers.clone(), self.target, self.urgency.clone(), input);
        Box::pin(async move { Ok(appends.into_results()) })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask_vote(Kind::Vote(wire::vote_request_to_wire(&request))).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask_vote(Kind::PreVote(wire::vote_request_to_wire(&request))).await
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteOf<TypeConfig>,
        snapshot: SnapshotOf<TypeConfig, SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = self.sending.send(vote, snapshot) => {
                sent.map(SnapshotResponse::new).map_err(|error| StreamingError::Unreachable(Unreachable::new(&error)))
            }
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask(Kind::TransferLeader(wire::transfer_to_wire(&request)), Pace::Now).await.map(|_| Ok(()))
    }

    fn backoff(&self) -> Option<Backoff> {
        let last = PAUSES_MS.last().copied().unwrap_or(1_000);
        let pauses = PAUSES_MS.into_iter().chain(std::iter::repeat(last));
        Some(Backoff::new(pauses.map(Duration::from_millis)))
    }
}
