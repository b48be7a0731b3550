//! The gRPC service that other nodes call: it accepts links and snapshots.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use flotilla_proto::internal::v1::raft_peer_server::{RaftPeer, RaftPeerServer};
use flotilla_proto::internal::v1::{LinkMessage, SnapshotMessage};
use futures::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use super::peers::Peers;
use super::{connect, receiving};

/// Longest message of a link or a snapshot, in bytes: the largest entry or frame, and what may stand before it.
pub(super) const MESSAGE_BYTES_MAX: usize = 40 << 20;

/// See the module. Until it is opened, it says that this node belongs to no cluster: so the port can be served before
/// that is known. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct PeerService {
    peers: Arc<Mutex<Option<Peers>>>,
}

impl PeerService {
    /// From now on other nodes reach the groups behind `peers`.
    pub fn open(&self, peers: &Peers) {
        *self.peers.lock().unwrap_or_else(PoisonError::into_inner) = Some(peers.clone());
    }

    /// For a tonic server.
    #[must_use]
    pub fn server(&self) -> RaftPeerServer<Self> {
        RaftPeerServer::new(self.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    fn peers(&self) -> Result<Peers, Status> {
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        peers.ok_or_else(|| Status::unavailable("this node belongs to no cluster yet"))
    }
}

#[tonic::async_trait]
impl RaftPeer for PeerService {
    type LinkStream = Pin<Box<dyn Stream<Item = Result<LinkMessage, Status>> + Send>>;
    type SnapshotStream = receiving::Answers;

    async fn link(&self, request: Request<Streaming<LinkMessage>>) -> Result<Response<Self::LinkStream>, Status> {
        let outgoing = connect::accept(self.peers()?, request.into_inner()).await.map_err(refused)?;
        Ok(Response::new(Box::pin(outgoing.map(Ok))))
    }

    async fn snapshot(&self, request: Request<Streaming<SnapshotMessage>>) -> Result<Response<Self::SnapshotStream>, Status> {
        let answers = receiving::accept(self.peers()?, request.into_inner()).await.map_err(refused)?;
        Ok(Response::new(answers))
    }
}

fn refused(error: io::Error) -> Status {
    match error.kind() {
        io::ErrorKind::InvalidData => Status::invalid_argument(error.to_string()),
        io::ErrorKind::PermissionDenied => Status::failed_precondition(error.to_string()),
        _ => Status::unavailable(error.to_string()),
    }
}
