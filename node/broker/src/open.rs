//! Opening and closing a broker.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use flotilla_machines::controller::Image;
use flotilla_proto::internal::v1::raft_peer_server::RaftPeerServer;
use flotilla_raft::data_dir::DataDir;
use flotilla_raft::disk::Disk;
use flotilla_raft::group::Group;
use flotilla_raft::journal::JournalOptions;
use flotilla_raft::network::{PeerService, Peers, TcpDialer};
use flotilla_raft::registry::{Begin, Registry, RegistryOptions, TransferOptions};
use flotilla_raft::segments::SegmentOptions;
use flotilla_raft::state::{RocksOptions, RocksState};
use flotilla_raft::types::GroupId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::broker::{Broker, Hosted, Inner};
use crate::error::OpenError;
use crate::founding::Member;
use crate::hosts::{ControllerHost, clock_preamble};
use crate::leaders::Leaders;
use crate::peer_calls::PeerCalls;
use crate::produce::{ProduceLimits, Sticky};
use crate::producer_ids::ProducerIds;

/// How long a node that starts waits for its partitions to have leaders before it says that it is ready.
const LEADERS_PATIENCE: Duration = Duration::from_secs(10);

/// What a broker is started with.
#[derive(Debug, Clone)]
pub struct BrokerOptions {
    /// This node; not 0.
    pub node_id: u64,
    /// Where its data lives.
    pub data_dir: PathBuf,
    /// host:port at which clients reach it.
    pub advertised_address: String,
    /// host:port at which other nodes reach it.
    pub peer_address: String,
    /// Peer addresses of the cluster's first nodes, the same list on each; empty: this node is a cluster of its own.
    pub seeds: Vec<String>,
    /// Where it stands; may be empty.
    pub rack: String,
    /// The journal's files.
    pub journal: JournalOptions,
    /// How segments are cut.
    pub segments: SegmentOptions,
    /// Bytes of proposals that may wait or be on their way.
    pub proposal_bytes_max: usize,
    /// Bytes of memory that applied entries may take before they are in segments.
    pub tail_bytes_max: u64,
    /// What is checked of a batch.
    pub produce: ProduceLimits,
    /// How often retention is applied.
    pub retention_interval: Duration,
}

impl Broker {
    /// Recovers everything acknowledged that is in the data directory and begins to take part in its cluster. Blocks the
    /// calling task while it recovers. Requests are served once [`Broker::wait_ready`] has returned, and refused before.
    ///
    /// # Errors
    /// See [`OpenError`]. Damaged partitions do not fail it: they stay down, and say so.
    pub async fn open(options: BrokerOptions, member: Member, disk: Arc<dyn Disk>) -> Result<Self, OpenError> {
        let Member { data_dir, known } = member;
        let identity = data_dir.identity();
        let peers = Peers::new(options.node_id, identity.cluster_id, Arc::new(TcpDialer));
        let opening = (options.clone(), peers.clone());
        let opened = tokio::task::spawn_blocking(move || open_storage(opening, data_dir, disk)).await;
        let registry = Arc::new(opened.map_err(std::io::Error::other)??);
        let (controller, image) = start_controller(&registry).await?;
        let inner = Inner {
            options,
            cluster_id: identity.cluster_id,
            directory_id: identity.directory_id,
            registry,
            peers,
            calls: PeerCalls::default(),
            found: Mutex::default(),
            leaders: Leaders::default(),
            controller,
            image,
            hosted: ArcSwap::from_pointee(BTreeMap::new()),
            reconciled: watch::Sender::new(0),
            producer_ids: ProducerIds::default(),
            sticky: Sticky::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        let broker = Self { inner: Arc::new(inner) };
        broker.inner.tasks.spawn(broker.clone().follow_nodes(known));
        broker.inner.tasks.spawn(broker.clone().exchange_leaders());
        Ok(broker)
    }

    /// Returns when this node is a registered member of its cluster, hosts what the metadata places on it, and serves.
    ///
    /// # Errors
    /// If the cluster refuses the node.
    pub async fn wait_ready(&self) -> Result<(), OpenError> {
        self.enrol().await.map_err(OpenError::Controller)?;
        self.metadata_is_current().await;
        self.reconcile(&self.image()).await;
        let tasks = &self.inner.tasks;
        tasks.spawn(self.clone().follow_metadata());
        tasks.spawn(self.clone().keep_memberships());
        tasks.spawn(self.clone().steward());
        tasks.spawn(self.clone().keep_retention());
        tasks.spawn(self.clone().scrub());
        // What stays down is not waited for.
        let hosted = self.inner.hosted.load();
        let running = hosted.iter().filter(|(_, hosted)| matches!(hosted, Hosted::Running(_)));
        let groups: Vec<GroupId> = running.map(|(group_id, _)| GroupId(*group_id)).collect();
        drop(hosted);
        if !self.wait_led(&groups, LEADERS_PATIENCE).await {
            tracing::warn!("some partitions have no leader yet");
        }
        Ok(())
    }

    /// Returns when everything that was decided about the cluster before this node started is applied here.
    async fn metadata_is_current(&self) {
        const RETRY: Duration = Duration::from_millis(50);
        let controller = &self.inner.controller;
        loop {
            let current = if controller.is_leader() {
                controller.read_barrier().await.is_ok()
            } else {
                // What the leader has committed comes with its next word; what it said before must be applied.
                controller.leader().is_some_and(|leader| self.online(leader)) && controller.is_applied()
            };
            if current || self.inner.stop.is_cancelled() {
                return;
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// What other nodes' Raft groups ask of this node's.
    #[must_use]
    pub fn raft_service(&self) -> RaftPeerServer<PeerService> {
        self.inner.peers.service()
    }

    /// Stops everything and leaves the data directory clean. What was submitted and not answered becomes unknown.
    pub async fn close(&self) {
        self.inner.stop.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
        self.inner.peers.close().await;
        self.inner.registry.close().await;
    }
}

fn open_storage((options, peers): (BrokerOptions, Peers), data_dir: DataDir, disk: Arc<dyn Disk>) -> Result<Registry, OpenError> {
    let registry = RegistryOptions {
        node_id: options.node_id,
        peers,
        journal: options.journal.clone(),
        segments: options.segments,
        proposal_bytes_max: options.proposal_bytes_max,
        tail_bytes_max: options.tail_bytes_max,
        transfers: TransferOptions::default(),
    };
    let state = RocksState::open(&data_dir.state_dir(), &RocksOptions::default());
    let state = Arc::new(state.map_err(flotilla_raft::registry::OpenError::from)?);
    Ok(Registry::open(registry, data_dir, disk, state)?)
}

async fn start_controller(registry: &Registry) -> Result<(Group, watch::Receiver<Arc<Image>>), OpenError> {
    let (host, image) = ControllerHost::new();
    let started = registry.start(GroupId(0), Box::new(host), Some(clock_preamble()), Begin::Wait).await;
    Ok((started.map_err(|error| OpenError::Controller(error.to_string()))?, image))
}
