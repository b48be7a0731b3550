//! A move that is done.

use flotilla_proto::internal::v1;

use super::start_move::same_nodes;
use super::{ControllerAnswer, ControllerMachine, ControllerOutcome, MoveRefusal, nodes};
use crate::rows::Rows;

impl ControllerMachine {
    /// Idempotent, because the partition's leader repeats it until it is heard. The order is that of the target.
    pub(super) fn finish_move(&mut self, command: v1::FinishMove, rows: &mut dyn Rows) -> ControllerOutcome {
        let group_id = command.group_id;
        let reported = command.replicas.unwrap_or_default().nodes;
        let (_, partition) = self.partition_of(group_id)?;
        let Some(target) = partition.target.clone() else {
            if same_nodes(partition.nodes(), reported.iter().copied()) {
                return Ok(ControllerAnswer::MoveFinished { group_id });
            }
            return Err(MoveRefusal::NotMoving { group_id, replicas: partition.nodes().collect() }.into());
        };
        if !same_nodes(nodes(&target), reported.iter().copied()) || partition.move_epoch != command.move_epoch {
            return Err(MoveRefusal::OtherTarget { group_id, target: nodes(&target).collect(), reported }.into());
        }
        if let Some(fresh) = target.iter().find(|replica| replica.fresh) {
            return Err(MoveRefusal::NotEstablished { group_id, replica_id: fresh.id }.into());
        }
        self.change_partition(group_id, rows, |partition| {
            partition.replicas = target;
            partition.target = None;
            partition.former.clear();
        })?;
        Ok(ControllerAnswer::MoveFinished { group_id })
    }
}
