//! From now on each placement gets a replica id of its own.

use std::sync::Arc;

use super::limits::{NODE_ID_COUNTED_MAX, REPLICA_ID_MAX};
use super::{ControllerAnswer, ControllerMachine, ControllerOutcome};
use crate::rows::Rows;

impl ControllerMachine {
    /// Idempotent: whoever leads the controller says so once. It stands in the log because a log that began in a version without
    /// replica ids must mean the same whenever it is applied: what was placed before is called as its node for ever.
    /// New ids lie above all ids that are in use so, and above the ids of nodes, so that nobody takes one for the other.
    pub(super) fn begin_replica_ids(&mut self, rows: &mut dyn Rows) -> ControllerOutcome {
        if self.image.next_replica_id().is_none() {
            let partitions = self.image.topics().flat_map(|topic| &topic.partitions);
            let placed = partitions.flat_map(|partition| partition.all()).map(|replica| replica.id);
            let placed = placed.filter(|id| *id < REPLICA_ID_MAX);
            let nodes = self.image.node_ids().filter(|id| *id <= NODE_ID_COUNTED_MAX);
            let highest = placed.chain(nodes).max().unwrap_or(0);
            self.change_image(rows, |image| image.set_next_replica_id(highest + 1));
        }
        Ok(ControllerAnswer::ReplicaIdsBegun)
    }

    /// Replica ids that are handed out from now on lie above this node's id. For whoever is about to change the image.
    pub(super) fn count_node_id(&mut self, node_id: u64) {
        let next = self.image.next_replica_id();
        if node_id <= NODE_ID_COUNTED_MAX && next.is_some_and(|next| next <= node_id) {
            Arc::make_mut(&mut self.image).set_next_replica_id(node_id + 1);
        }
    }
}
