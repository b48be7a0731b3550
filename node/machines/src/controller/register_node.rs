//! Making a node known, or telling what is new about it.

use flotilla_proto::internal::v1;

use super::limits::NODES_MAX;
use super::node::{DirectoryId, Node, NodeState};
use super::{ControllerAnswer, ControllerMachine, ControllerOutcome, ControllerRefusal, NodeRefusal};
use crate::name;
use crate::rows::Rows;

impl ControllerMachine {
    /// Idempotent: a node registers each time it starts. Its state stays as it was.
    pub(super) fn register_node(&mut self, command: v1::RegisterNode, rows: &mut dyn Rows) -> ControllerOutcome {
        let node_id = command.node_id;
        let node = self.registered(command)?;
        self.check_addresses(node_id, &node)?;
        match self.image.node(node_id) {
            Some(known) if *known == node => return Ok(ControllerAnswer::NodeRegistered),
            None if self.image.nodes().len() >= NODES_MAX => {
                return Err(ControllerRefusal::LimitReached { what: "nodes", max: NODES_MAX });
            }
            _ => {}
        }
        self.count_node_id(node_id);
        self.put_node(node_id, node, rows);
        Ok(ControllerAnswer::NodeRegistered)
    }

    /// The node as the command would make it.
    fn registered(&self, command: v1::RegisterNode) -> Result<Node, NodeRefusal> {
        let v1::RegisterNode { node_id, address, peer_address, rack, directory_id } = command;
        if node_id == 0 {
            return Err(NodeRefusal::InvalidId);
        }
        if self.image.removed(node_id) {
            return Err(NodeRefusal::Removed { node_id });
        }
        let peer_address = if peer_address.is_empty() { address.clone() } else { peer_address };
        for address in [&address, &peer_address] {
            let invalid = |why| NodeRefusal::InvalidAddress { node_id, address: address.clone(), why };
            name::check_address(address).map_err(invalid)?;
        }
        if let Err(why) = name::check_rack(&rack) {
            return Err(NodeRefusal::InvalidRack { node_id, rack, why });
        }
        let bytes = directory_id.len();
        let directory_id = DirectoryId::parse(&directory_id).map_err(|()| NodeRefusal::InvalidDirectoryId { node_id, bytes })?;
        let known = self.image.node(node_id);
        match known.and_then(|known| Some((known.directory_id?, &known.address))) {
            Some((registered, address)) if directory_id != Some(registered) => {
                Err(NodeRefusal::OtherData { node_id, address: address.clone(), registered })
            }
            _ => {
                let state = known.map_or(NodeState::Active, |known| known.state);
                let controller_replica = known.map_or(node_id, |known| known.controller_replica);
                Ok(Node { address, peer_address, rack, directory_id, state, controller_replica })
            }
        }
    }

    /// Two nodes at one address would take each other's requests. One that is leaving keeps nobody away: often it is dead,
    /// and its replacement starts in its place, where its replicas are to go. Addresses of clients and of peers may lie in
    /// different networks, so they are not compared with each other.
    pub(super) fn check_addresses(&self, node_id: u64, node: &Node) -> Result<(), NodeRefusal> {
        let others = self.image.nodes().filter(|(other, node)| *other != node_id && node.state != NodeState::Leaving);
        for (owner, other) in others {
            let same = [(&node.address, &other.address), (&node.peer_address, &other.peer_address)];
            if let Some((address, _)) = same.into_iter().find(|(own, taken)| own == taken) {
                return Err(NodeRefusal::AddressTaken { node_id, address: address.clone(), owner });
            }
        }
        Ok(())
    }
}
