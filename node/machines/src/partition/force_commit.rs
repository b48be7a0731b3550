//! Committing an offset whoever owns the partition: the owner loses it, under a new epoch.

use flotilla_proto::internal::v1;

use super::groups::{Fence, Group};
use super::{PartitionAnswer, PartitionMachine, PartitionOutcome};
use crate::rows::Rows;

impl PartitionMachine {
    /// The epoch must be new. With the current one, a late retry could undo what was committed since.
    pub(super) fn force_commit(&mut self, command: v1::ForceCommit, rows: &mut dyn Rows) -> PartitionOutcome {
        self.check_group(&command.group)?;
        if command.epoch <= self.fence(&command.group).epoch {
            return Err(self.fenced(&command.group));
        }
        let commit = self.new_commit(command.offset, command.metadata)?;
        let group = Group { fence: Fence::vacant(command.epoch), committed: Some(commit) };
        self.put_group(command.group, group, rows);
        Ok(PartitionAnswer::OffsetCommitted)
    }
}
