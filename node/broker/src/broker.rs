//! The broker's handle: what it holds together, and the look-ups that every operation shares.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use flotilla_machines::controller::{ControllerOutcome, Image, Topic, command_payload};
use flotilla_machines::item;
use flotilla_proto::internal::v1;
use flotilla_proto::internal::v1::controller_command::Command;
use flotilla_raft::data_dir::ClusterId;
use flotilla_raft::failure::Failure;
use flotilla_raft::group::Group;
use flotilla_raft::network::Peers;
use flotilla_raft::registry::{Outage, Registry};
use flotilla_raft::troubles::Troubles;
use flotilla_raft::types::{GroupId, Item};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::NodeClock;
use crate::error::{Failed, FetchError, NotServing, TopicMissing, unknown_partition};
use crate::leaders::Leaders;
use crate::open::BrokerOptions;
use crate::partition::Partition;
use crate::peer_calls::PeerCalls;
use crate::produce::{ProduceLimits, Sticky};
use crate::producer_ids::ProducerIds;
use crate::release::Releases;

/// How long an administrative request waits for new partitions to be ready.
pub(crate) const HOSTING_PATIENCE: Duration = Duration::from_secs(30);

/// A node's broker. Cheap to clone; all clones are the same broker.
#[derive(Clone)]
pub struct Broker {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) options: BrokerOptions,
    pub(crate) cluster_id: ClusterId,
    /// UUID of the data directory.
    pub(crate) directory_id: [u8; 16],
    /// What time it is.
    pub(crate) clock: NodeClock,
    pub(crate) registry: Arc<Registry>,
    /// Links to the other nodes, for all groups.
    pub(crate) peers: Peers,
    /// Calls to the other nodes, about the cluster.
    pub(crate) calls: PeerCalls,
    /// Peer addresses that seeds told, while the metadata does not.
    pub(crate) found: Mutex<BTreeMap<u64, String>>,
    pub(crate) leaders: Leaders,
    pub(crate) releases: Releases,
    /// Held while the replicas of all groups are compared: once at a time.
    pub(crate) verifying: tokio::sync::Mutex<()>,
    /// Somebody waits for a new partition to be founded.
    pub(crate) founding: Arc<Notify>,
    /// The controller's group: another handle once it was started again.
    pub(crate) controller: ArcSwap<Group>,
    pub(crate) image: watch::Receiver<Arc<Image>>,
    /// Where whoever applies the metadata publishes it.
    pub(crate) publish_image: watch::Sender<Arc<Image>>,
    /// By Raft group: what this node hosts, or why it cannot.
    pub(crate) hosted: ArcSwap<BTreeMap<u64, Hosted>>,
    /// Version of the image up to which `hosted` is complete.
    pub(crate) reconciled: watch::Sender<u64>,
    /// Held by whoever starts or stops groups.
    pub(crate) hosting: tokio::sync::Mutex<()>,
    /// How often a group whose core had died was started again.
    pub(crate) group_restarts: AtomicU64,
    pub(crate) producer_ids: ProducerIds,
    pub(crate) sticky: Sticky,
    /// This node is about to end, and gives its leads away.
    pub(crate) handing_over: CancellationToken,
    /// The cluster has removed this node.
    pub(crate) removed: CancellationToken,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

/// A partition that this node should host.
#[derive(Clone)]
pub(crate) enum Hosted {
    Running(Arc<Partition>),
    /// Its data is damaged, or it could not be started.
    Down(Outage),
}

impl Broker {
    /// The flag that says that storage failed; see [`Failure`].
    #[must_use]
    pub fn failure(&self) -> &Failure {
        self.inner.registry.failure()
    }

    /// What is wrong with this node's storage and groups now.
    #[must_use]
    pub fn troubles(&self) -> &Troubles {
        self.inner.registry.troubles()
    }

    /// The metadata as of what is applied here.
    #[must_use]
    pub fn image(&self) -> Arc<Image> {
        self.inner.image.borrow().clone()
    }

    /// The metadata, watched.
    #[must_use]
    pub fn watch_image(&self) -> watch::Receiver<Arc<Image>> {
        self.inner.image.clone()
    }

    /// What is checked of a batch, besides the topic's own limit.
    #[must_use]
    pub fn produce_limits(&self) -> ProduceLimits {
        self.inner.options.produce
    }

    /// How far a compressed batch may expand when it is decoded, in bytes.
    #[must_use]
    pub fn decompressed_bytes_max(&self) -> usize {
        self.inner.options.produce.decompressed_bytes_max
    }

    /// This node.
    #[must_use]
    pub fn node_id(&self) -> u64 {
        self.inner.options.node_id
    }

    /// UUID of the cluster, 36 characters.
    #[must_use]
    pub fn cluster_id(&self) -> String {
        self.inner.cluster_id.to_string()
    }

    /// The node that leads the controller's group, as far as is known here.
    #[must_use]
    pub fn controller_leader(&self) -> Option<u64> {
        self.controller().leader_node()
    }

    /// The controller's group on this node.
    pub(crate) fn controller(&self) -> Arc<Group> {
        self.inner.controller.load_full()
    }

    /// The Raft groups that run here, the controller's first, for those who compare replicas.
    #[must_use]
    pub fn groups(&self) -> Vec<Group> {
        let hosted = self.inner.hosted.load();
        let running = hosted.values().filter_map(|hosted| match hosted {
            Hosted::Running(partition) => Some(partition.group.clone()),
            Hosted::Down(_) => None,
        });
        std::iter::once((*self.controller()).clone()).chain(running).collect()
    }

    pub(crate) fn sticky(&self) -> &Sticky {
        &self.inner.sticky
    }

    pub(crate) fn producer_ids(&self) -> &ProducerIds {
        &self.inner.producer_ids
    }

    /// The partition, if this node can serve it.
    pub(crate) fn partition(&self, topic: &Topic, number: u32) -> Result<Arc<Partition>, PartitionError> {
        let layout = topic.partitions.get(number as usize).ok_or_else(|| unknown_partition(topic, number))?;
        let what = || format!("partition {number} of topic {:?}", topic.name);
        match self.inner.hosted.load().get(&layout.group_id) {
            Some(Hosted::Running(partition)) => Ok(partition.clone()),
            Some(Hosted::Down(outage)) => Err(match self.led_elsewhere(layout.group_id) {
                Some(leader) => NotServing::NotLeader { what: what(), leader: Some(leader) },
                // One of the others is about to be elected.
                None if self.others_can_lead(layout) => NotServing::NotReady { what: what() },
                None => NotServing::down(what(), outage),
            }
            .into()),
            None => Err(NotServing::NotReady { what: what() }.into()),
        }
    }

    /// Proposes a command to the controller and waits for its outcome.
    pub(crate) async fn control(&self, command: Command) -> Result<ControllerOutcome, Failed> {
        let controller = self.controller();
        if let Some(offline) = controller.missing_for_quorum() {
            return Err(Failed::NotServing(NotServing::NoQuorum { what: "the controller".to_owned(), offline }));
        }
        // Whatever is placed from now on gets ids of its own. Idempotent, and once in the life of a cluster.
        if self.image().next_replica_id().is_none() {
            let begin = Command::BeginReplicaIds(v1::BeginReplicaIds {});
            let _ = propose(&controller, begin, self.failure()).await?;
        }
        propose(&controller, command, self.failure()).await
    }

    /// Waits until each partition of `topic` has a leader and can be written; not for ever.
    pub(crate) async fn wait_writable(&self, topic: &Topic) {
        let groups: Vec<GroupId> = topic.partitions.iter().map(|partition| GroupId(partition.group_id)).collect();
        if !self.wait_led(&groups, HOSTING_PATIENCE).await {
            tracing::warn!(topic = %topic.name, "not all of its partitions have a leader yet");
        }
    }
}

impl Inner {
    /// Where a node is that the metadata does not know yet.
    pub(crate) fn found_address(&self, node_id: u64) -> Option<String> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).get(&node_id).cloned()
    }
}

/// Proposes a controller command; used before there is a broker, too.
pub(crate) async fn propose(controller: &Group, command: Command, failure: &Failure) -> Result<ControllerOutcome, Failed> {
    let item = Item { kind: item::COMMAND, payload: command_payload(command) };
    let outcome = controller.propose(item).await;
    let outcome = outcome.map_err(|error| Failed::of(error, || "the controller".into(), failure.get()))?;
    match outcome.downcast::<ControllerOutcome>() {
        Ok(outcome) => Ok(*outcome),
        Err(_) => Err(Failed::Unknown { reason: "the controller answered something else: report this as a defect".into() }),
    }
}

/// Why a partition is not at hand.
pub(crate) enum PartitionError {
    Missing(TopicMissing),
    NotServing(NotServing),
}

impl From<TopicMissing> for PartitionError {
    fn from(error: TopicMissing) -> Self {
        Self::Missing(error)
    }
}

impl From<NotServing> for PartitionError {
    fn from(error: NotServing) -> Self {
        Self::NotServing(error)
    }
}

macro_rules! from_partition_error {
    ($($error:ty),*) => {$(
        impl From<PartitionError> for $error {
            fn from(error: PartitionError) -> Self {
                match error {
                    PartitionError::Missing(missing) => missing.into(),
                    PartitionError::NotServing(not_serving) => not_serving.into(),
                }
            }
        }
    )*};
}

from_partition_error!(
    FetchError,
    crate::error::ProduceError,
    crate::error::CommitError,
    crate::error::CommittedError,
    crate::error::TopicError
);
