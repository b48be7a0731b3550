//! Who the other nodes are, and to which of them there is a link.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use flotilla_proto::internal::v1::raft_peer_server::RaftPeerServer;
use tokio::sync::{mpsc, watch};

use super::dialer::{Dialer, TcpDialer};
use super::service::PeerService;
use crate::data_dir::ClusterId;
use crate::types::NodeId;

/// Messages of the layer above that wait for their reader.
const CASTS_MAX: usize = 1024;

/// This node's links. Cheap to clone.
#[derive(Clone)]
pub struct Peers {
    inner: Arc<Inner>,
}

/// A link that is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkState {
    /// Which link it is: another number is another link, and what was sent over the last one may be lost.
    pub number: u64,
    /// Which life of the peer's process it leads to: another number is another process.
    pub boot: u64,
}

#[expect(dead_code, reason = "links come with the next step")]
struct Inner {
    node_id: NodeId,
    cluster_id: ClusterId,
    dialer: Arc<dyn Dialer>,
    known: watch::Sender<BTreeMap<NodeId, String>>,
    up: watch::Sender<BTreeMap<NodeId, LinkState>>,
    casts: Mutex<Option<mpsc::Sender<(NodeId, Bytes)>>>,
}

impl Peers {
    /// The links of `node_id`, to nobody yet. They work once a registry was opened with them.
    #[must_use]
    pub fn new(node_id: NodeId, cluster_id: ClusterId, dialer: Arc<dyn Dialer>) -> Self {
        let inner = Inner {
            node_id,
            cluster_id,
            dialer,
            known: watch::Sender::default(),
            up: watch::Sender::default(),
            casts: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// For a node that will never have peers.
    #[must_use]
    pub fn alone(node_id: NodeId) -> Self {
        Self::new(node_id, ClusterId([0; 16]), Arc::new(TcpDialer))
    }

    /// This node.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.inner.node_id
    }

    /// Says who the other nodes are, and where (host:port). Links to them open, the others close; this node itself may be
    /// among them.
    pub fn set(&self, peers: BTreeMap<NodeId, String>) {
        self.inner.known.send_replace(peers);
    }

    /// Where a node is reached, if it is known.
    #[must_use]
    pub fn address(&self, node: NodeId) -> Option<String> {
        self.inner.known.borrow().get(&node).cloned()
    }

    /// Whether there is a link to `node`.
    #[must_use]
    pub fn is_up(&self, node: NodeId) -> bool {
        self.inner.up.borrow().contains_key(&node)
    }

    /// The links that are up, watched.
    #[must_use]
    pub fn links(&self) -> watch::Receiver<BTreeMap<NodeId, LinkState>> {
        self.inner.up.subscribe()
    }

    /// Sends a message of the layer above to `node`; `false` if there is no link. It is lost if the link breaks.
    pub fn cast(&self, _node: NodeId, _message: Bytes) -> bool {
        false
    }

    /// Receives what others cast, with the node that did. There is one receiver: a new one takes over.
    #[must_use]
    pub fn casts(&self) -> mpsc::Receiver<(NodeId, Bytes)> {
        let (tx, rx) = mpsc::channel(CASTS_MAX);
        *self.inner.casts.lock().unwrap_or_else(PoisonError::into_inner) = Some(tx);
        rx
    }

    /// The gRPC service over which others reach this node.
    #[must_use]
    pub fn service(&self) -> RaftPeerServer<PeerService> {
        let service = PeerService::default();
        service.open(self);
        service.server()
    }

    /// Closes all links for good.
    pub async fn close(&self) {
        self.inner.known.send_replace(BTreeMap::new());
    }
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "peers of node {} ({} known)", self.inner.node_id, self.inner.known.borrow().len())
    }
}
