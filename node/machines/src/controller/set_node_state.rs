//! What a node is meant to do from now on.

use flotilla_proto::internal::v1;

use super::node::{Node, NodeState};
use super::{ControllerAnswer, ControllerMachine, ControllerOutcome, NodeRefusal};
use crate::rows::Rows;

impl ControllerMachine {
    /// Every state can follow every other: a node that is leaving may be taken back until it is removed, unless another
    /// one took its address.
    pub(super) fn set_node_state(&mut self, command: v1::SetNodeState, rows: &mut dyn Rows) -> ControllerOutcome {
        let v1::SetNodeState { node_id, state: code } = command;
        let state = NodeState::parse(code).ok_or(NodeRefusal::InvalidState { code })?;
        let known = self.known_node(node_id)?;
        if known.state != state {
            let node = Node { state, ..known.clone() };
            if known.state == NodeState::Leaving {
                self.check_addresses(node_id, &node)?;
            }
            let stays = |(other, node): (u64, &Node)| other != node_id && node.state != NodeState::Leaving;
            if state == NodeState::Leaving && !self.image.nodes().any(stays) {
                return Err(NodeRefusal::Last { node_id }.into());
            }
            self.put_node(node_id, node, rows);
        }
        Ok(ControllerAnswer::NodeStateSet { node_id, state })
    }

    pub(super) fn known_node(&self, node_id: u64) -> Result<&Node, NodeRefusal> {
        match self.image.node(node_id) {
            Some(node) => Ok(node),
            None if self.image.removed(node_id) => Err(NodeRefusal::Removed { node_id }),
            None => Err(NodeRefusal::Unknown { node_id }),
        }
    }
}
