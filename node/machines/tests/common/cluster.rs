//! A controller with short words for its commands, as the tests of plans need it.

use std::collections::BTreeSet;
use std::sync::Arc;

use flotilla_machines::controller::{ControllerMachine, ControllerOutcome, Image, Partition, command_payload};
use flotilla_machines::item;
use flotilla_proto::internal::v1;
use flotilla_proto::internal::v1::controller_command::Command;

use super::Store;

pub const DRAINING: v1::NodeState = v1::NodeState::Draining;
pub const LEAVING: v1::NodeState = v1::NodeState::Leaving;

#[derive(Default)]
pub struct Cluster {
    machine: ControllerMachine,
    topics: u128,
}

impl Cluster {
    /// Nodes 1 to `count`, which do not say where they stand.
    pub fn with_nodes(count: u64) -> Self {
        let mut cluster = Self::default();
        (1..=count).for_each(|node_id| cluster.register(node_id, ""));
        cluster
    }

    /// Nodes from 1 on, one in each of these racks.
    pub fn with_racks(racks: &[&str]) -> Self {
        let mut cluster = Self::default();
        (1..).zip(racks).for_each(|(node_id, rack)| cluster.register(node_id, rack));
        cluster
    }

    pub fn run(&mut self, command: Command) -> ControllerOutcome {
        self.machine.apply(item::COMMAND, &command_payload(command), &mut Store::default()).outcome
    }

    pub fn register(&mut self, node_id: u64, rack: &str) {
        let (address, rack) = (format!("host-{node_id}:1"), rack.to_owned());
        self.run(Command::RegisterNode(v1::RegisterNode { node_id, address, rack, ..Default::default() })).unwrap();
    }

    pub fn set_state(&mut self, node_id: u64, state: v1::NodeState) {
        self.run(Command::SetNodeState(v1::SetNodeState { node_id, state: state.into() })).unwrap();
    }

    /// A topic with these partitions.
    pub fn create(&mut self, partitions: Vec<Vec<u64>>) {
        self.topics += 1;
        self.run(Command::CreateTopic(v1::CreateTopic {
            name: format!("topic-{}", self.topics),
            topic_id: self.topics.to_be_bytes().to_vec().into(),
            replication_factor: partitions[0].len() as u32,
            config: None,
            partitions: partitions.into_iter().map(|nodes| v1::Replicas { nodes }).collect(),
        }))
        .unwrap();
    }

    pub fn start(&mut self, group_id: u64, nodes: Vec<u64>) -> ControllerOutcome {
        self.run(Command::StartMove(v1::StartMove { group_id, target: Some(v1::Replicas { nodes }) }))
    }

    /// Ends the move of a partition; its voters are as its target says.
    pub fn finish(&mut self, group_id: u64) {
        let partition = self.image().partition(group_id).unwrap().clone();
        let replicas = Some(v1::Replicas { nodes: partition.target_nodes().unwrap() });
        self.run(Command::FinishMove(v1::FinishMove { group_id, replicas, move_epoch: partition.move_epoch })).unwrap();
    }

    pub fn image(&self) -> Arc<Image> {
        self.machine.image()
    }

    pub fn partitions(&self) -> Vec<Partition> {
        self.image().topics().flat_map(|topic| topic.partitions.clone()).collect()
    }

    /// Groups of the partitions that move.
    pub fn moving(&self) -> Vec<u64> {
        let moving = self.partitions().into_iter().filter(|partition| partition.target.is_some());
        moving.map(|partition| partition.group_id).collect()
    }

    /// Replicas on a node.
    pub fn replicas(&self, node_id: u64) -> usize {
        self.partitions().iter().filter(|partition| partition.nodes().any(|has| has == node_id)).count()
    }

    /// Partitions that prefer a node as their leader.
    pub fn leaders(&self, node_id: u64) -> usize {
        self.partitions().iter().filter(|partition| partition.nodes().next() == Some(node_id)).count()
    }

    pub fn everyone(&self) -> BTreeSet<u64> {
        self.image().nodes().map(|(node_id, _)| node_id).collect()
    }
}
