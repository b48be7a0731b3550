//! Who leads what, and where nodes are: all that forwarding knows of the cluster.

use flotilla_broker::{Broker, TopicMissing};

use super::target::Target;

/// The cluster as this node believes it to be. It may be wrong for a moment; the nodes that are asked say so.
pub trait Directory: Send + Sync + 'static {
    /// UUID of the cluster.
    fn cluster_id(&self) -> String;
    /// This node.
    fn node_id(&self) -> u64;
    /// The node that leads a partition's group, if one is known; or that says why there is none.
    fn leader_of(&self, group_id: u64) -> Option<u64>;
    /// The node that leads the controller's group, if one is known.
    fn controller_leader(&self) -> Option<u64>;
    /// host:port at which other nodes reach a node.
    fn peer_address(&self, node_id: u64) -> Option<String>;
    /// host:port at which clients reach a node.
    fn client_address(&self, node_id: u64) -> Option<String>;
    /// The nodes that vote on who leads and are not online; as far as is known.
    fn missing(&self, target: &Target) -> Vec<u64>;
    /// Why there is no such partition any more, if that is so.
    fn gone(&self, target: &Target) -> Option<TopicMissing>;
    /// Whether this node's link to it is up. A node is online to itself.
    fn is_online(&self, node_id: u64) -> bool;
}

impl Directory for Broker {
    fn cluster_id(&self) -> String {
        Broker::cluster_id(self)
    }

    fn node_id(&self) -> u64 {
        Broker::node_id(self)
    }

    fn leader_of(&self, group_id: u64) -> Option<u64> {
        Broker::leader_of(self, group_id).or_else(|| self.answers_for_damaged(group_id).then(|| Broker::node_id(self)))
    }

    fn controller_leader(&self) -> Option<u64> {
        Broker::controller_leader(self)
    }

    fn peer_address(&self, node_id: u64) -> Option<String> {
        Broker::peer_address(self, node_id)
    }

    fn client_address(&self, node_id: u64) -> Option<String> {
        self.node_address(node_id)
    }

    fn missing(&self, target: &Target) -> Vec<u64> {
        let mut voters = match target {
            Target::Partition { group_id, .. } => self.replicas_of(*group_id),
            Target::Controller => self.controller_voters(),
        };
        voters.retain(|node_id| !self.online(*node_id));
        voters
    }

    fn gone(&self, target: &Target) -> Option<TopicMissing> {
        let Target::Partition { topic, partition, group_id } = target else { return None };
        let image = self.image();
        let Some(named) = image.topic(topic) else { return Some(TopicMissing::UnknownTopic { topic: topic.to_string() }) };
        let is_it = named.partitions.get(*partition as usize).is_some_and(|layout| layout.group_id == *group_id);
        (!is_it).then(|| TopicMissing::Recreated { topic: topic.to_string(), topic_id: named.id })
    }

    fn is_online(&self, node_id: u64) -> bool {
        self.online(node_id)
    }
}
