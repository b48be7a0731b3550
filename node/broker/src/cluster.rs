//! What the cluster consists of.

use std::collections::BTreeMap;

use flotilla_machines::controller::{Image, NodeState, Partition as Layout};

use crate::broker::Broker;
use flotilla_raft::planted::{Bug, is_planted};

/// The cluster as this node knows it.
#[derive(Debug, Clone)]
pub struct ClusterDescription {
    /// UUID, 36 characters.
    pub cluster_id: String,
    /// Node that leads the controller's group, if any.
    pub controller_leader: Option<u64>,
    /// Nodes, by id.
    pub nodes: Vec<NodeDescription>,
    /// Topics there are.
    pub topic_count: usize,
    /// Partitions of all of them.
    pub partition_count: usize,
    /// Number of changes of the metadata.
    pub metadata_version: u64,
    /// Partitions without a leader that a majority of their replicas could follow.
    pub leaderless_partitions: usize,
    /// Partitions with a replica that is not in sync.
    pub under_replicated_partitions: usize,
    /// Partitions on their way to other nodes.
    pub moving_partitions: usize,
    /// Replicas of the partition that has most.
    pub replicas_max: usize,
}

/// A node.
#[derive(Debug, Clone)]
pub struct NodeDescription {
    /// Its id.
    pub node_id: u64,
    /// host:port at which clients reach it.
    pub address: String,
    /// Empty: unknown.
    pub rack: String,
    /// What it is there for.
    pub state: NodeState,
    /// Whether this node can reach it.
    pub online: bool,
    /// Replicas that it holds.
    pub replicas: u32,
    /// Partitions that it leads, with a majority of their replicas online.
    pub leaders: u32,
    /// Whether it votes in the controller's group.
    pub controller_voter: bool,
}

/// How the partitions of a cluster stand, as far as this node knows.
#[derive(Debug, Clone, Default)]
pub struct PartitionHealth {
    /// Without a leader that a majority of the replicas could follow.
    pub leaderless: usize,
    /// With a replica that is not in sync.
    pub under_replicated: usize,
    /// On their way to other nodes.
    pub moving: usize,
    /// Replicas of the partition that has most.
    pub replicas_max: usize,
    /// By node: replicas held, partitions led.
    pub by_node: BTreeMap<u64, (u32, u32)>,
}

impl Broker {
    /// The cluster as this node knows it.
    #[must_use]
    pub fn describe_cluster(&self) -> ClusterDescription {
        let image = self.image();
        let health = self.partition_health(&image);
        let voters = self.controller().membership().voter_nodes();
        let node = |(node_id, node): (u64, &flotilla_machines::controller::Node)| {
            let (replicas, leaders) = health.by_node.get(&node_id).copied().unwrap_or_default();
            NodeDescription {
                node_id,
                address: node.address.clone(),
                rack: node.rack.clone(),
                state: node.state,
                online: self.online(node_id),
                replicas,
                leaders,
                controller_voter: voters.contains(&node_id),
            }
        };
        ClusterDescription {
            cluster_id: self.cluster_id(),
            // One that is gone is remembered until there is another, and one whom no majority follows leads in vain.
            controller_leader: self
                .controller_leader()
                .filter(|leader| self.online(*leader) && self.controller().missing_for_quorum().is_none()),
            nodes: image.nodes().map(node).collect(),
            topic_count: image.topics().len(),
            partition_count: image.partition_count(),
            metadata_version: image.version(),
            leaderless_partitions: health.leaderless,
            under_replicated_partitions: health.under_replicated,
            moving_partitions: health.moving,
            replicas_max: health.replicas_max,
        }
    }

    /// How the partitions stand, as far as this node knows.
    #[must_use]
    pub fn partition_health(&self, image: &Image) -> PartitionHealth {
        let mut health = PartitionHealth::default();
        if is_planted(Bug::HealthAlwaysWell) {
            return health;
        }
        for partition in image.topics().flat_map(|topic| &topic.partitions) {
            for node_id in partition.nodes() {
                health.by_node.entry(node_id).or_default().0 += 1;
            }
            health.replicas_max = health.replicas_max.max(partition.replicas.len());
            health.moving += usize::from(partition.target.is_some());
            let in_sync = self.in_sync(partition.group_id);
            health.under_replicated += usize::from(!partition.nodes().all(|node_id| in_sync.contains(&node_id)));
            match self.followed_leader(partition) {
                Some(leader) => health.by_node.entry(leader).or_default().1 += 1,
                None => health.leaderless += 1,
            }
        }
        health
    }

    /// Whether this node reaches most replicas of a partition. While it moves, who votes is known to its leader alone.
    pub(crate) fn may_be_led(&self, layout: &Layout) -> bool {
        layout.target.is_some() || self.reaches_majority(layout)
    }

    /// Who leads a partition, as far as is known here. Whom no majority follows leads in vain, and does not count.
    pub(crate) fn followed_leader(&self, layout: &Layout) -> Option<u64> {
        self.leader_of(layout.group_id).filter(|_| self.may_be_led(layout))
    }

    fn reaches_majority(&self, layout: &Layout) -> bool {
        layout.nodes().filter(|node_id| self.online(*node_id)).count() > layout.replicas.len() / 2
    }

    /// Who leads the partitions of a topic, by number.
    #[must_use]
    pub fn leaders(&self, topic: &crate::Topic) -> Vec<Option<u64>> {
        topic.partitions.iter().map(|partition| self.followed_leader(partition)).collect()
    }
}
