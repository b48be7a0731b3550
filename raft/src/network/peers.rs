//! Who the other nodes are, and to which of them there is a link. Of two nodes, the one with the higher id dials.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use flotilla_proto::internal::v1 as pb;
use flotilla_proto::internal::v1::Hello;
use flotilla_proto::internal::v1::frame::Kind;
use flotilla_proto::internal::v1::raft_peer_server::RaftPeerServer;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Channel;

use super::connect;
use super::dialer::{Dialer, TcpDialer, endpoint};
use super::link::Link;
use super::outbox::Pace;
use super::receiving::Receiving;
use super::sending::Transfers;
use super::service::PeerService;
use super::wire;
use crate::data_dir::ClusterId;
use crate::group::Group;
use crate::registry::Groups;
use crate::tripwire::REPORTS_MAX;
use crate::types::{GroupId, NodeId};

/// Messages of the layer above that wait for their reader.
const CASTS_MAX: usize = 1024;
/// The version of the protocol that this code speaks: from 2 on, replicas have ids of their own; from 3 on, they tell what they
/// have. Nodes that speak another one would take one replica for another, or not understand, so there is no link to them. What
/// goes into a replica's hash chain belongs to the protocol, too.
const VERSION: u32 = 3;

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

struct Inner {
    node_id: NodeId,
    cluster_id: ClusterId,
    dialer: Arc<dyn Dialer>,
    host: OnceLock<Host>,
    nodes: Mutex<Nodes>,
    up: watch::Sender<BTreeMap<NodeId, LinkState>>,
    casts: Mutex<Option<mpsc::Sender<(NodeId, Bytes)>>>,
    next_link: AtomicU64,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// Whose links these are.
struct Host {
    groups: Arc<Groups>,
    transfers: Transfers,
    boot: u64,
}

#[derive(Default)]
struct Nodes {
    addresses: BTreeMap<NodeId, String>,
    links: BTreeMap<NodeId, Arc<Link>>,
    /// The tasks that dial; cancelled when the node is gone or is elsewhere.
    dialing: BTreeMap<NodeId, CancellationToken>,
}

impl Peers {
    /// The links of `node_id`, to nobody yet. They work once a registry was opened with them.
    #[must_use]
    pub fn new(node_id: NodeId, cluster_id: ClusterId, dialer: Arc<dyn Dialer>) -> Self {
        let inner = Inner {
            node_id,
            cluster_id,
            dialer,
            host: OnceLock::new(),
            nodes: Mutex::default(),
            up: watch::Sender::default(),
            casts: Mutex::default(),
            next_link: AtomicU64::new(1),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
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

    /// Says who the other nodes are, and where (host:port). Links to them open, those to others close; this node itself
    /// may be among them. To be called on a tokio runtime.
    pub fn set(&self, mut addresses: BTreeMap<NodeId, String>) {
        addresses.remove(&self.node_id());
        let mut nodes = self.lock();
        let moved = |node: &NodeId| nodes.addresses.get(node) != addresses.get(node);
        let moved: Vec<NodeId> = nodes.dialing.keys().copied().filter(moved).collect();
        for node in moved {
            if let Some(dialing) = nodes.dialing.remove(&node) {
                dialing.cancel();
            }
        }
        let gone = nodes.links.iter().filter(|(node, _)| !addresses.contains_key(node));
        let gone: Vec<Arc<Link>> = gone.map(|(_, link)| link.clone()).collect();
        nodes.addresses = addresses;
        drop(nodes);
        gone.iter().for_each(|link| link.close());
        self.dial();
    }

    /// Starts to dial whom this node has to dial, as soon as there is something to talk about.
    fn dial(&self) {
        let mut nodes = self.lock();
        if self.inner.host.get().is_none() || self.inner.stop.is_cancelled() {
            return;
        }
        let mut missing = nodes.addresses.clone();
        missing.retain(|node, _| *node < self.node_id() && !nodes.dialing.contains_key(node));
        for (node, address) in missing {
            let stop = self.inner.stop.child_token();
            nodes.dialing.insert(node, stop.clone());
            self.inner.tasks.spawn(connect::keep_dialing(self.clone(), node, address, stop));
        }
    }

    /// Where a node is reached, if it is known.
    #[must_use]
    pub fn address(&self, node: NodeId) -> Option<String> {
        self.lock().addresses.get(&node).cloned()
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
    pub fn cast(&self, node: NodeId, message: Bytes) -> bool {
        let Some(link) = self.link(node) else { return false };
        link.send(GroupId(0), 0, Kind::Cast(message), Pace::Now);
        true
    }

    /// Sends what replicas here have to tell to `node`, if there is a link.
    pub(crate) fn report(&self, node: NodeId, reports: Vec<pb::Report>) {
        let Some(link) = self.link(node) else { return };
        for reports in reports.chunks(REPORTS_MAX) {
            link.send(GroupId(0), 0, Kind::Reports(pb::Reports { reports: reports.to_vec() }), Pace::Idle);
        }
    }

    /// Receives what others cast, with the node that did. There is one receiver: a new one takes over. While it does not
    /// read, links stand still, and break.
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
        self.inner.stop.cancel();
        let links: Vec<Arc<Link>> = self.lock().links.values().cloned().collect();
        links.iter().for_each(|link| link.close());
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }

    /// Links lead to these groups from now on. `boot` tells this life of the node's process from all others.
    pub(crate) fn host(&self, groups: Arc<Groups>, transfers: Transfers, boot: u64) {
        if self.inner.host.set(Host { groups, transfers, boot }).is_err() {
            tracing::error!(node = self.node_id(), "these links serve another registry already");
        }
        self.dial();
    }

    pub(super) fn receiving(&self) -> Option<Receiving> {
        self.inner.host.get().map(|host| host.transfers.receiving.clone())
    }

    pub(super) fn group(&self, group: GroupId) -> Option<Group> {
        self.inner.host.get()?.groups.running(group)
    }

    pub(super) fn link(&self, node: NodeId) -> Option<Arc<Link>> {
        self.lock().links.get(&node).cloned()
    }

    /// Returns when there is a link to `node`.
    pub(super) async fn linked(&self, node: NodeId) -> Arc<Link> {
        let mut up = self.links();
        loop {
            if let Some(link) = self.link(node) {
                return link;
            }
            if up.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// A connection of its own to `node`.
    ///
    /// # Errors
    /// If it is not known, or does not answer.
    pub(super) async fn connection(&self, node: NodeId) -> io::Result<Channel> {
        let address = self.address(node);
        let address = address.ok_or_else(|| io::Error::other(format!("node {node} is not known here")))?;
        self.inner.dialer.dial(endpoint(&address)?).await
    }

    pub(super) fn stopped(&self) -> &CancellationToken {
        &self.inner.stop
    }

    pub(super) fn tasks(&self) -> &TaskTracker {
        &self.inner.tasks
    }

    pub(super) fn cluster_id(&self) -> ClusterId {
        self.inner.cluster_id
    }

    pub(super) async fn received(&self, from: NodeId, message: Bytes) {
        let casts = self.inner.casts.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(casts) = casts {
            let _ = casts.send((from, message)).await;
        }
    }

    /// The greeting of this node.
    pub(super) fn hello(&self, to: NodeId) -> Hello {
        Hello {
            cluster_id: Bytes::copy_from_slice(&self.inner.cluster_id.0),
            node_id: self.node_id(),
            to_node_id: to,
            version: VERSION,
            boot: self.inner.host.get().map_or(0, |host| host.boot),
        }
    }

    /// Checks a greeting; who sent it, and in which life.
    ///
    /// # Errors
    /// In words, if there is to be no link.
    pub(super) fn greeted(&self, hello: &Hello) -> io::Result<(NodeId, LinkState)> {
        let refused = |reason: String| Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
        let cluster_id = wire::cluster_id(&hello.cluster_id)?;
        if cluster_id != self.inner.cluster_id {
            return refused(format!("it belongs to cluster {cluster_id}, this node to {}", self.inner.cluster_id));
        }
        if hello.version != VERSION {
            let (theirs, ours) = (hello.version, VERSION);
            return refused(format!(
                "node {} speaks version {theirs} of the protocol between nodes, this node version {ours}: give both the same release",
                hello.node_id
            ));
        }
        if hello.to_node_id != self.node_id() {
            return refused(format!("it looks for node {}, this is node {}", hello.to_node_id, self.node_id()));
        }
        if self.inner.host.get().is_none() || self.inner.stop.is_cancelled() {
            return refused(format!("node {} is starting or stopping", self.node_id()));
        }
        if self.address(hello.node_id).is_none() {
            return refused(format!("node {} does not know node {}", self.node_id(), hello.node_id));
        }
        let number = self.inner.next_link.fetch_add(1, Ordering::Relaxed);
        Ok((hello.node_id, LinkState { number, boot: hello.boot }))
    }

    /// The link is up; the one before it to the same node ends.
    pub(super) fn opened(&self, link: &Arc<Link>) {
        let mut nodes = self.lock();
        let before = nodes.links.insert(link.peer, link.clone());
        self.inner.up.send_modify(|up| _ = up.insert(link.peer, link.state));
        drop(nodes);
        tracing::info!(node = self.node_id(), peer = link.peer, "link is up");
        if let Some(before) = before {
            before.close();
        }
    }

    /// The link has ended.
    pub(super) fn ended(&self, link: &Link, reason: &str) {
        link.close();
        let mut nodes = self.lock();
        if nodes.links.get(&link.peer).is_some_and(|current| current.state == link.state) {
            nodes.links.remove(&link.peer);
            self.inner.up.send_modify(|up| _ = up.remove(&link.peer));
            tracing::info!(node = self.node_id(), peer = link.peer, reason, "link is down");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Nodes> {
        self.inner.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "peers of node {} ({} known)", self.node_id(), self.lock().addresses.len())
    }
}
