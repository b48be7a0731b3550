//! What the cluster consists of.

use crate::broker::Broker;

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
}

/// A node.
#[derive(Debug, Clone)]
pub struct NodeDescription {
    /// Its id.
    pub node_id: u64,
    /// host:port at which clients reach it.
    pub address: String,
}

impl Broker {
    /// The cluster as this node knows it.
    #[must_use]
    pub fn describe_cluster(&self) -> ClusterDescription {
        let image = self.image();
        let nodes = image.nodes().map(|(node_id, node)| NodeDescription { node_id, address: node.address.clone() });
        ClusterDescription {
            cluster_id: self.cluster_id().to_owned(),
            controller_leader: self.controller_leader(),
            nodes: nodes.collect(),
            topic_count: image.topics().len(),
            partition_count: image.partition_count(),
            metadata_version: image.version(),
        }
    }

    /// Who leads the partitions of a topic, by number.
    #[must_use]
    pub fn leaders(&self, topic: &crate::Topic) -> Vec<Option<u64>> {
        let numbers = 0..u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX);
        numbers.map(|number| self.partition(topic, number).ok().and_then(|partition| partition.group.leader())).collect()
    }
}
