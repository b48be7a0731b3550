//! Committing an offset, as the member that holds the fence or by hand where nobody does.

use flotilla_proto::internal::v1;

use super::groups::{Fence, Group};
use super::{PartitionAnswer, PartitionMachine, PartitionOutcome};
use crate::rows::Rows;

impl PartitionMachine {
    /// A member's commit must match the fence exactly; a manual one (no fence) needs a vacant fence.
    /// The offset may go back: that is how a reader starts over.
    pub(super) fn commit_offset(&mut self, command: v1::CommitOffset, rows: &mut dyn Rows) -> PartitionOutcome {
        self.check_group(&command.group)?;
        let fence = self.fence(&command.group);
        let admitted = match command.fence {
            Some(claimed) => Fence::from(claimed) == fence,
            None => fence.is_vacant(),
        };
        if !admitted {
            return Err(self.fenced(&command.group));
        }
        let commit = self.new_commit(command.offset, command.metadata)?;
        let group = Group { fence, committed: Some(commit) };
        self.put_group(command.group, group, rows);
        Ok(PartitionAnswer::OffsetCommitted)
    }
}
