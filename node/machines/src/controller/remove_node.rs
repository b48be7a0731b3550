//! The end of a node.

use flotilla_proto::internal::v1;
use prost::Message;

use super::{ControllerAnswer, ControllerMachine, ControllerOutcome, NodeRefusal};
use crate::rows::{self, Rows, table};

impl ControllerMachine {
    /// Idempotent, because whoever leads repeats it until it is done. The row stays, so that nobody gets the id again.
    pub(super) fn remove_node(&mut self, command: v1::RemoveNode, rows: &mut dyn Rows) -> ControllerOutcome {
        let node_id = command.node_id;
        if self.image.removed(node_id) {
            return Ok(ControllerAnswer::NodeRemoved { node_id });
        }
        self.known_node(node_id)?;
        if self.image.nodes().len() == 1 {
            return Err(NodeRefusal::Last { node_id }.into());
        }
        let partitions = self.partitions_on(node_id);
        if partitions > 0 {
            return Err(NodeRefusal::InUse { node_id, partitions }.into());
        }
        self.check_room_for_removed(node_id)?;
        let stored = v1::StoredNode { removed: true, ..v1::StoredNode::default() };
        rows.put(table::NODE, &rows::number_key(node_id), stored.encode_to_vec());
        self.change_image(rows, |image| image.remove_node(node_id));
        Ok(ControllerAnswer::NodeRemoved { node_id })
    }

    /// Number of partitions that are on the node or move to it.
    fn partitions_on(&self, node_id: u64) -> usize {
        let partitions = self.image.topics().flat_map(|topic| &topic.partitions);
        partitions.filter(|partition| partition.hosts().any(|host| host == node_id)).count()
    }
}
