//! A replica that is lost or damaged: another takes its place on the same node.

use flotilla_proto::internal::v1;
use prost::Message;

use super::node::Node;
use super::{ControllerAnswer, ControllerMachine, ControllerOutcome, NodeRefusal, RenewRefusal, Replica};
use crate::rows::{self, Rows, table};

impl ControllerMachine {
    /// Said by the leader of the group once its members have decided to go on without the replica: the id is not used again, and
    /// the new one may begin with nothing. A replica of which nobody is sure that others have what it had keeps its id.
    pub(super) fn renew_replica(&mut self, command: v1::RenewReplica, rows: &mut dyn Rows) -> ControllerOutcome {
        let v1::RenewReplica { group_id, replica_id } = command;
        let Some(next) = self.image.next_replica_id() else { return Err(RenewRefusal::NoIdsYet.into()) };
        if group_id == 0 {
            return self.renew_controller_replica(replica_id, next, rows);
        }
        let (_, partition) = self.partition_of(group_id)?;
        let known = partition.all().find(|replica| replica.id == replica_id);
        let known = known.ok_or(RenewRefusal::Unknown { group_id, replica_id })?;
        let others = partition.replicas.iter().filter(|replica| replica.id != replica_id);
        if !known.fresh && partition.is_founded() && others.clone().all(|replica| replica.fresh) {
            return Err(RenewRefusal::Last { group_id, replica_id }.into());
        }
        if partition.former.contains(&known) {
            self.change_partition(group_id, rows, |partition| partition.former.retain(|replica| *replica != known))?;
            return Ok(ControllerAnswer::ReplicaRenewed { replica_id: None });
        }
        let renewed = Replica { id: next, node: known.node, fresh: true };
        self.take_replica_ids(1);
        self.change_partition(group_id, rows, |partition| {
            // A report about the target of before says nothing about this one.
            partition.move_epoch += u64::from(partition.target.is_some());
            partition.each_mut(|replica| *replica = if *replica == known { renewed } else { *replica });
        })?;
        Ok(ControllerAnswer::ReplicaRenewed { replica_id: Some(next) })
    }

    /// A node's first replica in the controller's group has the node's id. So an id that goes to a later one is reserved: no node
    /// gets it.
    fn renew_controller_replica(&mut self, replica_id: u64, next: u64, rows: &mut dyn Rows) -> ControllerOutcome {
        let of = self.image.nodes().find(|(_, node)| node.controller_replica == replica_id);
        let Some((node_id, node)) = of.map(|(node_id, node)| (node_id, node.clone())) else {
            return Err(RenewRefusal::Unknown { group_id: 0, replica_id }.into());
        };
        let taken = |id: u64| self.image.node(id).is_some() || self.image.removed(id);
        let id = (next..).find(|id| !taken(*id)).unwrap_or(next);
        self.check_room_for_removed(id)?;
        let node = Node { controller_replica: id, ..node };
        let reserved = v1::StoredNode { removed: true, ..v1::StoredNode::default() };
        rows.put(table::NODE, &rows::number_key(id), reserved.encode_to_vec());
        rows.put(table::NODE, &rows::number_key(node_id), node.stored().encode_to_vec());
        self.change_image(rows, |image| {
            image.set_next_replica_id(id + 1);
            image.remove_node(id);
            image.insert_node(node_id, node);
        });
        Ok(ControllerAnswer::ReplicaRenewed { replica_id: Some(id) })
    }

    /// Ids of removed nodes are remembered for ever.
    pub(super) fn check_room_for_removed(&self, node_id: u64) -> Result<(), NodeRefusal> {
        match self.image.removed_count() >= super::NODES_REMOVED_MAX {
            true => Err(NodeRefusal::TooManyRemoved { node_id }),
            false => Ok(()),
        }
    }
}
