//! Forgetting a group.

use flotilla_proto::internal::v1;

use super::{PartitionAnswer, PartitionMachine, PartitionOutcome, PartitionRefusal};
use crate::rows::{Rows, table};

impl PartitionMachine {
    /// Needs a vacant fence. The fence's epoch survives as the floor from which unknown groups start, so that an old
    /// owner whose command arrives late finds no epoch to return to. (Epochs of all groups rise together.)
    pub(super) fn delete_group(&mut self, command: &v1::DeleteGroup, rows: &mut dyn Rows) -> PartitionOutcome {
        let Some(group) = self.groups.get(&command.group) else {
            return Ok(PartitionAnswer::GroupDeleted { existed: false });
        };
        if !group.fence.is_vacant() {
            return Err(PartitionRefusal::GroupInUse { group: command.group.clone(), member: group.fence.member.clone() });
        }
        self.fence_epoch_floor = self.fence_epoch_floor.max(group.fence.epoch);
        self.groups.remove(&command.group);
        rows.delete(table::GROUP, command.group.as_bytes());
        self.put_meta(rows);
        Ok(PartitionAnswer::GroupDeleted { existed: true })
    }
}
