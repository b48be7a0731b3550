//! Handing the partition to a member of a group, or to nobody.

use flotilla_proto::internal::v1;

use super::groups::{Fence, Group};
use super::{PartitionAnswer, PartitionMachine, PartitionOutcome, PartitionRefusal};
use crate::item::Malformed;
use crate::name;
use crate::rows::Rows;

impl PartitionMachine {
    /// One epoch belongs to one member: the same again is answered again, another member needs a higher epoch.
    pub(super) fn raise_fence(&mut self, command: v1::RaiseFence, rows: &mut dyn Rows) -> PartitionOutcome {
        self.check_group(&command.group)?;
        let fence = Fence::from(command.fence.ok_or(Malformed::Missing { field: "fence" })?);
        if !fence.is_vacant() {
            name::check_member(&fence.member)
                .map_err(|why| PartitionRefusal::InvalidMember { member: fence.member.clone(), why })?;
        }
        let current = self.fence(&command.group);
        if fence.epoch < current.epoch || (fence.epoch == current.epoch && fence != current) {
            return Err(self.fenced(&command.group));
        }
        let committed = self.committed(&command.group).cloned();
        if fence != current {
            let group = Group { fence, committed: committed.clone() };
            self.put_group(command.group, group, rows);
        }
        Ok(PartitionAnswer::FenceRaised { committed })
    }
}
