//! Opening and closing a broker.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use flotilla_machines::controller::Image;
use flotilla_proto::internal::v1;
use flotilla_proto::internal::v1::raft_peer_server::RaftPeerServer;
use flotilla_raft::data_dir::DataDir;
use flotilla_raft::group::Group;
use flotilla_raft::journal::JournalOptions;
use flotilla_raft::network::{PeerService, Peers};
use flotilla_raft::registry::{Begin, Cause, Registry, RegistryOptions, StartError, TransferOptions};
use flotilla_raft::segments::SegmentOptions;
use flotilla_raft::types::GroupId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::broker::{Broker, Hosted, Inner};
use crate::clock::NodeClock;
use crate::enrol::first_replica;
use crate::error::OpenError;
use crate::founding::Member;
use crate::heal::Asking;
use crate::hosts::ControllerHost;
use crate::leaders::Leaders;
use crate::peer_calls::PeerCalls;
use crate::produce::{ProduceLimits, Sticky};
use crate::producer_ids::ProducerIds;
use crate::release::Releases;
use crate::surroundings::Surroundings;

/// Pauses after which the controller's group is tried again that could not be started: what passes does so soon.
const CONTROLLER_PAUSES_MS: [u64; 5] = [100, 200, 400, 800, 1_600];
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

/// How long the tasks of a broker that closes may take to end.
const TASKS_PATIENCE: Duration = Duration::from_secs(2);

impl Broker {
    /// Recovers everything acknowledged that is in the data directory and begins to take part in its cluster. Blocks the
    /// calling task while it recovers. Requests are served once [`Broker::wait_ready`] has returned, and refused before.
    ///
    /// # Errors
    /// See [`OpenError`]. Damaged partitions do not fail it: they stay down, and say so.
    pub async fn open(options: BrokerOptions, member: Member, surroundings: Surroundings) -> Result<Self, OpenError> {
        let Member { data_dir, known } = member;
        let identity = data_dir.identity();
        let peers = Peers::new(options.node_id, identity.cluster_id, surroundings.dialer.clone());
        let opening = (options.clone(), peers.clone(), surroundings.clone());
        let opened = surroundings.driver.run(move || open_storage(opening, data_dir)).await;
        let registry = Arc::new(opened??);
        let (publish_image, image) = watch::channel(Arc::default());
        let asking = Asking {
            node_id: options.node_id,
            directory_id: identity.directory_id,
            calls: PeerCalls::new(surroundings.dialer.clone()),
        };
        let others = Self::first_addresses(&options.seeds, &known, &options.peer_address);
        let clock = NodeClock::new(options.node_id, surroundings.clock.clone());
        let controller = start_controller(&registry, &publish_image, &clock, (&asking, &others)).await?;
        let inner = Inner {
            options,
            cluster_id: identity.cluster_id,
            directory_id: identity.directory_id,
            calls: PeerCalls::new(surroundings.dialer.clone()),
            clock,
            registry,
            peers,
            found: Mutex::new(known),
            leaders: Leaders::default(),
            releases: Releases::default(),
            verifying: tokio::sync::Mutex::default(),
            founding: Arc::default(),
            controller: ArcSwap::from_pointee(controller),
            image,
            publish_image,
            hosted: ArcSwap::from_pointee(BTreeMap::new()),
            reconciled: watch::Sender::new(0),
            hosting: tokio::sync::Mutex::default(),
            group_restarts: AtomicU64::new(0),
            producer_ids: ProducerIds::default(),
            sticky: Sticky::default(),
            handing_over: CancellationToken::new(),
            removed: CancellationToken::new(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        let broker = Self { inner: Arc::new(inner) };
        broker.inner.tasks.spawn(broker.clone().follow_nodes());
        broker.inner.tasks.spawn(broker.clone().exchange_leaders());
        broker.inner.tasks.spawn(broker.clone().keep_time());
        Ok(broker)
    }

    /// Returns when this node is a registered member of its cluster, hosts what the metadata places on it, and serves.
    ///
    /// # Errors
    /// If the cluster refuses the node.
    pub async fn wait_ready(&self) -> Result<(), OpenError> {
        self.check_seeds().await.map_err(OpenError::Controller)?;
        self.enrol().await.map_err(OpenError::Controller)?;
        self.metadata_is_current().await;
        self.wait_for_time().await;
        self.reconcile(&self.image()).await;
        let tasks = &self.inner.tasks;
        tasks.spawn(self.clone().follow_metadata());
        tasks.spawn(self.clone().revive_groups());
        tasks.spawn(self.clone().heal_replicas());
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

    /// What this node still needs before [`Broker::wait_ready`] returns, in words.
    #[must_use]
    pub fn waits_for(&self) -> String {
        let controller = self.controller();
        if controller.leader().is_none() {
            let voters = controller.membership().voter_nodes();
            let reached = voters.iter().filter(|node_id| self.online(**node_id));
            let list = |nodes: Vec<String>| if nodes.is_empty() { "none".to_owned() } else { nodes.join(", ") };
            let reached = list(reached.map(u64::to_string).collect());
            let voters = list(voters.iter().map(u64::to_string).collect());
            return format!(
                "the controller has no leader: its voters are the nodes {voters}, of which node {} reaches {reached}",
                self.node_id()
            );
        }
        if self.image().node(self.node_id()).is_none() {
            return format!("the controller has not registered node {} yet", self.node_id());
        }
        format!("node {} starts its partitions", self.node_id())
    }

    /// Returns when everything that was decided about the cluster before this node started is applied here.
    async fn metadata_is_current(&self) {
        const RETRY: Duration = Duration::from_millis(50);
        while !self.knows_what_is_decided().await && !self.inner.stop.is_cancelled() {
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Whether everything is applied here that was decided about the cluster before this was asked, as the controller's leader
    /// says.
    pub(crate) async fn knows_what_is_decided(&self) -> bool {
        let controller = self.controller();
        if controller.is_leader() {
            return controller.read_barrier().await.is_ok();
        }
        let leader = controller.leader_node();
        let address = leader.and_then(|leader| self.peer_address(leader).or_else(|| self.inner.found_address(leader)));
        let Some(address) = address else { return false };
        let introduction =
            v1::IntroduceRequest { node_id: self.node_id(), directory_id: Bytes::copy_from_slice(&self.inner.directory_id) };
        let answer = self.inner.calls.introduce(&address, introduction).await;
        answer.and_then(|answer| answer.metadata_version).is_some_and(|version| self.image().version() >= version)
    }

    /// What other nodes' Raft groups ask of this node's.
    #[must_use]
    pub fn raft_service(&self) -> RaftPeerServer<PeerService> {
        self.inner.peers.service()
    }

    /// Lets go of everything at once, as if the process had died: the storage has failed. Other nodes notice at once.
    pub async fn abandon(&self) {
        self.inner.stop.cancel();
        self.inner.peers.close().await;
    }

    /// Stops everything and leaves the data directory clean. What was submitted and not answered becomes unknown.
    pub async fn close(&self) {
        self.inner.stop.cancel();
        self.inner.tasks.close();
        // What one of them proposed may never be answered: a leader of the controller that removes itself leads nothing then.
        if tokio::time::timeout(TASKS_PATIENCE, self.inner.tasks.wait()).await.is_err() {
            tracing::warn!(tasks = self.inner.tasks.len(), "not all tasks have ended: closing without them");
        }
        self.inner.peers.close().await;
        self.inner.registry.close().await;
    }
}

fn open_storage(
    (options, peers, surroundings): (BrokerOptions, Peers, Surroundings),
    data_dir: DataDir,
) -> Result<Registry, OpenError> {
    let registry = RegistryOptions {
        node_id: options.node_id,
        peers,
        journal: options.journal.clone(),
        segments: options.segments,
        proposal_bytes_max: options.proposal_bytes_max,
        tail_bytes_max: options.tail_bytes_max,
        transfers: TransferOptions::default(),
        driver: surroundings.driver,
    };
    let state = (surroundings.state)(&data_dir.state_dir()).map_err(flotilla_raft::registry::OpenError::from)?;
    Ok(Registry::open(registry, data_dir, surroundings.disk, state)?)
}

/// Starts the controller's group; if its data here is damaged or lost, as another replica that copies from the others, once these
/// go on without this one.
async fn start_controller(
    registry: &Registry,
    publish: &watch::Sender<Arc<Image>>,
    clock: &NodeClock,
    (asking, others): (&Asking, &BTreeSet<String>),
) -> Result<Group, OpenError> {
    const CONTROLLER: GroupId = GroupId(0);
    let before = registry.replica_here(CONTROLLER).or(registry.replica_removed(CONTROLLER));
    // Who has other groups had this one, too.
    let mut begin = if before.is_some() || !registry.idle_groups().is_empty() { Begin::Resume } else { Begin::Wait };
    let mut replica = before.unwrap_or(first_replica(asking.node_id).id);
    let mut pauses = CONTROLLER_PAUSES_MS.into_iter().map(Duration::from_millis);
    loop {
        let host = ControllerHost::new(publish.clone());
        let stamps = host.stamps(clock);
        match registry.start(CONTROLLER, replica, Box::new(host), Some(stamps), begin.clone()).await {
            Ok(group) => return Ok(group),
            Err(StartError::Damaged { reason, .. }) if !others.is_empty() && registry.failure().get().is_none() => {
                tracing::error!(%replica, reason, "this node's replica of the controller is damaged: the others are asked for another");
                replica = asking.renew_controller(others, replica).await;
                registry.set_aside(CONTROLLER).await?;
                begin = Begin::Wait;
            }
            Err(error) => {
                if let Some(reason) = registry.failure().get() {
                    return Err(OpenError::StorageFailed(reason));
                }
                let passing = error.outage().cause == Cause::Passing;
                let Some(pause) = pauses.next().filter(|_| passing) else {
                    return Err(OpenError::Controller(error.to_string()));
                };
                tracing::warn!(%error, "the controller's group did not start: trying again");
                tokio::time::sleep(pause).await;
            }
        }
    }
}
