//! A move that is given up.

use flotilla_proto::internal::v1;

use super::{ControllerAnswer, ControllerMachine, ControllerOutcome, MoveRefusal};
use crate::rows::Rows;

impl ControllerMachine {
    /// Only clears the target: the partition's leader takes back what it changed.
    pub(super) fn cancel_move(&mut self, command: v1::CancelMove, rows: &mut dyn Rows) -> ControllerOutcome {
        let group_id = command.group_id;
        let (_, partition) = self.partition_of(group_id)?;
        if partition.target.is_none() {
            return Err(MoveRefusal::NotMoving { group_id, replicas: partition.replicas.clone() }.into());
        }
        self.change_partition(group_id, rows, |partition| partition.target = None)?;
        Ok(ControllerAnswer::MoveCancelled { group_id })
    }
}
