//! What is wrong on the nodes: each says so itself, and is asked when somebody wants to know.

use std::sync::Arc;
use std::time::Duration;

use flotilla_machines::controller::Image;
use flotilla_proto::internal::v1;
use flotilla_raft::troubles::Trouble;
use futures::future::join_all;

use crate::broker::Broker;

/// What is wrong on one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeTrouble {
    /// The node.
    pub node_id: u64,
    /// What has it, in words.
    pub subject: String,
    /// Of which class, in one word: see [`flotilla_raft::disk::error::Class`].
    pub class: String,
    /// What is wrong, and what to do about it.
    pub message: String,
    /// The partition that it concerns, if it is one: topic and number.
    pub partition: Option<(Arc<str>, u32)>,
    /// For how long.
    pub age: Duration,
}

/// What is wrong on all nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterTroubles {
    /// By node.
    pub troubles: Vec<NodeTrouble>,
    /// Nodes that are linked and did not answer.
    pub silent: Vec<u64>,
}

impl Broker {
    /// As this node tells others.
    pub(crate) fn told_troubles(&self) -> Vec<v1::Trouble> {
        self.troubles().now().into_iter().map(told).collect()
    }

    /// What is wrong on all nodes that can be reached.
    pub async fn cluster_troubles(&self) -> ClusterTroubles {
        let image = self.image();
        let nodes = image.nodes().map(|(node_id, _)| node_id).filter(|node_id| self.online(*node_id));
        let answers = join_all(nodes.map(|node_id| async move { (node_id, self.troubles_of(node_id).await) })).await;
        let mut all = ClusterTroubles::default();
        for (node_id, answer) in answers {
            match answer {
                Some(told) => all.troubles.extend(told.into_iter().map(|trouble| named(node_id, trouble, &image))),
                None => all.silent.push(node_id),
            }
        }
        all
    }

    async fn troubles_of(&self, node_id: u64) -> Option<Vec<v1::Trouble>> {
        if node_id == self.node_id() {
            return Some(self.told_troubles());
        }
        self.inner.calls.troubles(&self.peer_address(node_id)?).await
    }
}

fn told(trouble: Trouble) -> v1::Trouble {
    v1::Trouble {
        subject: trouble.subject.to_string(),
        class: trouble.class.to_string(),
        message: trouble.message,
        group_id: trouble.subject.group().map(|group| group.0),
        age_ms: u64::try_from(trouble.since.elapsed().as_millis()).unwrap_or(u64::MAX),
    }
}

fn named(node_id: u64, told: v1::Trouble, image: &Image) -> NodeTrouble {
    let v1::Trouble { subject, class, message, group_id, age_ms } = told;
    let partition = group_id.and_then(|group_id| image.partition_of_group(group_id));
    let partition = partition.map(|(topic, number)| (topic.name.clone(), number));
    NodeTrouble { node_id, subject, class, message, partition, age: Duration::from_millis(age_ms) }
}
