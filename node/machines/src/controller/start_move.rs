//! Other replicas for a partition.

use std::collections::BTreeSet;

use flotilla_proto::internal::v1;

use super::image::Partition;
use super::{ControllerAnswer, ControllerMachine, ControllerOutcome, MoveRefusal, Replica};
use crate::rows::Rows;

impl ControllerMachine {
    /// Only sets the target: the partition's leader carries it out and reports with
    /// [`FinishMove`](Self::finish_move). Another order of the same replicas has nothing to carry out. While a move is taken
    /// back another one may start: perhaps the way back is barred, because one of the old nodes is gone.
    pub(super) fn start_move(&mut self, command: v1::StartMove, rows: &mut dyn Rows) -> ControllerOutcome {
        let group_id = command.group_id;
        let target = command.target.unwrap_or_default().nodes;
        let (topic, partition) = self.partition_of(group_id)?;
        let to_same_nodes = same_nodes(partition.nodes(), target.iter().copied());
        match partition.target_nodes() {
            Some(under_way) if to_same_nodes || !partition.is_taken_back() => {
                return Err(MoveRefusal::Moving { group_id, target: under_way }.into());
            }
            _ if partition.nodes().eq(target.iter().copied()) => {
                return Err(MoveRefusal::AlreadyThere { group_id, replicas: target }.into());
            }
            _ => self.check_target(partition, topic.replication_factor, &target)?,
        }
        // Whoever is there already, in whatever role, stays the same replica.
        let (mut new_replica, mut taken) = (self.new_replicas(), 0);
        let new_target: Vec<Replica> = (target.into_iter())
            .map(|node_id| {
                partition.on(node_id).unwrap_or_else(|| {
                    taken += 1;
                    new_replica(node_id)
                })
            })
            .collect();
        if to_same_nodes {
            self.change_partition(group_id, rows, |partition| partition.replicas = new_target)?;
            return Ok(ControllerAnswer::MoveFinished { group_id });
        }
        self.take_replica_ids(taken);
        self.change_partition(group_id, rows, |partition| {
            partition.former.retain(|replica| !new_target.contains(replica));
            partition.move_to(new_target);
        })?;
        Ok(ControllerAnswer::MoveStarted { group_id })
    }

    /// Nodes that are new to the partition must be active; those that have it already may stay whatever they are.
    fn check_target(&self, partition: &Partition, replication_factor: u32, target: &[u64]) -> Result<(), MoveRefusal> {
        let distinct: BTreeSet<&u64> = target.iter().collect();
        if target.len() != replication_factor as usize || distinct.len() != target.len() {
            return Err(MoveRefusal::InvalidReplicas { replication_factor, nodes: target.to_vec() });
        }
        for node_id in target.iter().copied() {
            let node = self.image.node(node_id).ok_or(MoveRefusal::UnknownNode { node_id })?;
            if !node.is_active() && !partition.nodes().any(|has| has == node_id) {
                return Err(MoveRefusal::NodeNotActive { node_id, state: node.state });
            }
        }
        Ok(())
    }
}

/// Whether two lists, each of distinct nodes, name the same ones.
pub(super) fn same_nodes(left: impl Iterator<Item = u64>, right: impl Iterator<Item = u64>) -> bool {
    let (left, right): (Vec<u64>, Vec<u64>) = (left.collect(), right.collect());
    let set = |nodes: &[u64]| nodes.iter().copied().collect::<BTreeSet<u64>>();
    left.len() == right.len() && set(&left) == set(&right)
}
