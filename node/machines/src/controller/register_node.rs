//! Making a node known, or telling its new address.

use flotilla_proto::internal::v1;
use prost::Message;

use super::image::{Node, NodeState};
use super::limits::NODES_MAX;
use super::{ControllerAnswer, ControllerMachine, ControllerOutcome, ControllerRefusal};
use crate::name;
use crate::rows::{self, Rows, table};

impl ControllerMachine {
    /// Idempotent: a node registers each time it starts.
    pub(super) fn register_node(&mut self, command: v1::RegisterNode, rows: &mut dyn Rows) -> ControllerOutcome {
        let v1::RegisterNode { node_id, address, peer_address, rack, directory_id } = command;
        let peer_address = if peer_address.is_empty() { address.clone() } else { peer_address };
        if node_id == 0 {
            return Err(ControllerRefusal::InvalidNodeId);
        }
        if let Err(why) = name::check_address(&address) {
            return Err(ControllerRefusal::InvalidAddress { node_id, address, why });
        }
        match self.image.node(node_id) {
            Some(known) if known.address == address && known.peer_address == peer_address && known.rack == rack => {
                return Ok(ControllerAnswer::NodeRegistered);
            }
            None if self.image.nodes().len() >= NODES_MAX => {
                return Err(ControllerRefusal::LimitReached { what: "nodes", max: NODES_MAX });
            }
            _ => {}
        }
        let node = Node { address, peer_address, rack, directory_id, state: NodeState::Active };
        let stored = v1::StoredNode::from(&node);
        rows.put(table::NODE, &rows::number_key(node_id), stored.encode_to_vec());
        self.change_image(rows, |image| image.insert_node(node_id, node));
        Ok(ControllerAnswer::NodeRegistered)
    }
}
