//! Partitions on the replicas that the leader chose for them.

use std::collections::BTreeSet;

use flotilla_proto::internal::v1;

use super::image::Partition;
use super::limits::{PARTITIONS_MAX, REPLICATION_FACTOR_MAX};
use super::{ControllerMachine, ControllerRefusal, Replica};

impl ControllerMachine {
    pub(super) fn check_replication_factor(factor: u32) -> Result<(), ControllerRefusal> {
        if !(1..=REPLICATION_FACTOR_MAX).contains(&(factor as usize)) {
            return Err(ControllerRefusal::InvalidReplicationFactor { replication_factor: factor });
        }
        Ok(())
    }

    /// New partitions, the first with number `first_number`, on the groups that come next, with the replica ids that come next.
    /// Both are taken only when the caller moves the counters past them.
    pub(super) fn place(
        &self,
        chosen: Vec<v1::Replicas>,
        first_number: usize,
        replication_factor: u32,
    ) -> Result<Vec<Partition>, ControllerRefusal> {
        if self.image.partition_count() + chosen.len() > PARTITIONS_MAX {
            return Err(ControllerRefusal::LimitReached { what: "partitions", max: PARTITIONS_MAX });
        }
        let mut ids = self.new_replicas();
        let numbered = chosen.into_iter().zip(first_number..);
        (numbered.zip(self.next_group_id..))
            .map(|((chosen, number), group_id)| {
                self.check_replicas(number, replication_factor, &chosen.nodes)?;
                let replicas = chosen.nodes.into_iter().map(&mut ids).collect();
                Ok(Partition { group_id, replicas, target: None, former: Vec::new(), move_epoch: 0 })
            })
            .collect()
    }

    /// Makes replicas on nodes, with the ids that come next.
    pub(super) fn new_replicas(&self) -> impl FnMut(u64) -> Replica + use<> {
        let mut next = self.image.next_replica_id();
        move |node| match &mut next {
            None => Replica::of_node(node),
            Some(next) => {
                let id = *next;
                *next += 1;
                Replica { id, node, fresh: true }
            }
        }
    }

    fn check_replicas(&self, partition: usize, replication_factor: u32, nodes: &[u64]) -> Result<(), ControllerRefusal> {
        let distinct: BTreeSet<&u64> = nodes.iter().collect();
        if nodes.len() != replication_factor as usize || distinct.len() != nodes.len() {
            return Err(ControllerRefusal::InvalidReplicas { partition, replication_factor, nodes: nodes.to_vec() });
        }
        for node_id in nodes.iter().copied() {
            let node = self.image.node(node_id).ok_or(ControllerRefusal::UnknownNode { node_id })?;
            if !node.is_active() {
                return Err(ControllerRefusal::NodeNotActive { node_id, state: node.state });
            }
        }
        Ok(())
    }
}
