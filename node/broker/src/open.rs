//! Opening and closing a broker.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use flotilla_machines::controller::Image;
use flotilla_proto::internal::v1::RegisterNode;
use flotilla_proto::internal::v1::controller_command::Command;
use flotilla_raft::data_dir::{ClusterId, DataDir, Identity};
use flotilla_raft::disk::Disk;
use flotilla_raft::group::Group;
use flotilla_raft::journal::JournalOptions;
use flotilla_raft::network::Peers;
use flotilla_raft::registry::{Begin, Registry, RegistryOptions, TransferOptions};
use flotilla_raft::segments::SegmentOptions;
use flotilla_raft::state::{RocksOptions, RocksState};
use flotilla_raft::types::GroupId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::broker::{Broker, Inner, propose};
use crate::error::{Failed, OpenError};
use crate::hosts::{ControllerHost, clock_preamble, now_ms};
use crate::produce::{ProduceLimits, Sticky};
use crate::producer_ids::ProducerIds;

/// How long the controller may take to be ready after a start.
const CONTROLLER_PATIENCE: Duration = Duration::from_secs(60);

/// What a broker is started with.
#[derive(Debug, Clone)]
pub struct BrokerOptions {
    /// This node; not 0.
    pub node_id: u64,
    /// Where its data lives.
    pub data_dir: PathBuf,
    /// host:port at which clients reach it.
    pub advertised_address: String,
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
    /// Opens the data directory (or creates it), recovers everything acknowledged, and returns when this node's
    /// partitions can be written. Blocks the calling task while it recovers.
    ///
    /// # Errors
    /// See [`OpenError`]. Damaged partitions do not fail it: they stay down, and say so.
    pub async fn open(options: BrokerOptions, disk: Arc<dyn Disk>) -> Result<Self, OpenError> {
        let opening = options.clone();
        let opened = tokio::task::spawn_blocking(move || open_storage(&opening, disk)).await;
        let (registry, cluster_id) = opened.map_err(std::io::Error::other)??;
        let (controller, image) = start_controller(&registry, &options).await?;
        let inner = Inner {
            options,
            cluster_id,
            registry,
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
        broker.register().await?;
        broker.reconcile(&broker.image()).await;
        broker.inner.tasks.spawn(broker.clone().follow_metadata());
        broker.inner.tasks.spawn(broker.clone().keep_retention());
        broker.inner.tasks.spawn(broker.clone().scrub());
        Ok(broker)
    }

    /// Stops everything and leaves the data directory clean. What was submitted and not answered becomes unknown.
    pub async fn close(&self) {
        self.inner.stop.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
        self.inner.registry.close().await;
    }

    async fn register(&self) -> Result<(), OpenError> {
        let (node_id, address) = (self.node_id(), self.inner.options.advertised_address.clone());
        if self.image().node(node_id).is_some_and(|node| node.address == address) {
            return Ok(());
        }
        let command = Command::RegisterNode(RegisterNode { node_id, address, ..RegisterNode::default() });
        match propose(&self.inner.controller, command, self.failure()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(refused)) => Err(OpenError::Controller(refused.to_string())),
            Err(Failed::NotServing(not_serving)) => Err(OpenError::Controller(not_serving.to_string())),
            Err(Failed::Unknown { reason }) => Err(OpenError::Controller(reason)),
        }
    }
}

fn open_storage(options: &BrokerOptions, disk: Arc<dyn Disk>) -> Result<(Registry, String), OpenError> {
    let fresh =
        || Identity { cluster_id: ClusterId(*Uuid::new_v4().as_bytes()), node_id: options.node_id, created_at_ms: now_ms() };
    let data_dir = DataDir::open(&options.data_dir, fresh)?;
    let identity = data_dir.identity();
    if identity.node_id != options.node_id {
        return Err(OpenError::ForeignNode {
            path: options.data_dir.clone(),
            found: identity.node_id,
            expected: options.node_id,
        });
    }
    let registry = RegistryOptions {
        node_id: options.node_id,
        journal: options.journal.clone(),
        segments: options.segments,
        proposal_bytes_max: options.proposal_bytes_max,
        tail_bytes_max: options.tail_bytes_max,
        peers: Peers::alone(options.node_id),
        transfers: TransferOptions::default(),
    };
    let state = RocksState::open(&data_dir.state_dir(), &RocksOptions::default());
    let state = Arc::new(state.map_err(flotilla_raft::registry::OpenError::from)?);
    Ok((Registry::open(registry, data_dir, disk, state)?, identity.cluster_id.to_string()))
}

async fn start_controller(
    registry: &Registry,
    options: &BrokerOptions,
) -> Result<(Group, watch::Receiver<Arc<Image>>), OpenError> {
    let (host, image) = ControllerHost::new();
    let failed = |reason: String| OpenError::Controller(reason);
    let begin = Begin::Initialize(vec![options.node_id]);
    let started = registry.start(GroupId(0), Box::new(host), Some(clock_preamble()), begin).await;
    let controller = started.map_err(|error| failed(error.to_string()))?;
    controller.wait_ready(CONTROLLER_PATIENCE).await.map_err(|error| failed(error.to_string()))?;
    Ok((controller, image))
}
