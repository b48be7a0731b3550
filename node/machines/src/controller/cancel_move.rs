//! A move that is given up.

use flotilla_proto::internal::v1;

use super::{ControllerAnswer, ControllerMachine, ControllerOutcome, MoveRefusal, Replica};
use crate::rows::Rows;

impl ControllerMachine {
    /// Only turns the move around: the partition's leader takes back what it changed, and reports with
    /// [`FinishMove`](Self::finish_move) like any other. Until then the nodes to which it led may be needed to elect one.
    /// Idempotent.
    pub(super) fn cancel_move(&mut self, command: v1::CancelMove, rows: &mut dyn Rows) -> ControllerOutcome {
        let group_id = command.group_id;
        let (_, partition) = self.partition_of(group_id)?;
        if partition.target.is_none() {
            return Err(MoveRefusal::NotMoving { group_id, replicas: partition.nodes().collect() }.into());
        }
        if !partition.is_taken_back() {
            self.change_partition(group_id, rows, |partition| {
                let arriving: Vec<Replica> = partition.arriving().collect();
                partition.former.extend(arriving);
                partition.move_to(partition.replicas.clone());
            })?;
        }
        Ok(ControllerAnswer::MoveCancelled { group_id })
    }
}
