//! Moving the log's start forward: because a user wants the records gone, or because retention gave them up.

use flotilla_proto::internal::v1;

use super::{PartitionAnswer, PartitionMachine, PartitionOutcome, PartitionRefusal};
use crate::rows::Rows;

impl PartitionMachine {
    /// Idempotent: what lies below the start already is gone already.
    pub(super) fn delete_records(&mut self, command: &v1::DeleteRecords, rows: &mut dyn Rows) -> PartitionOutcome {
        if command.before_offset > self.next_offset {
            return Err(PartitionRefusal::OffsetOutOfRange { offset: command.before_offset, next_offset: self.next_offset });
        }
        if command.before_offset > self.log_start_offset {
            self.log_start_offset = command.before_offset;
            self.put_meta(rows);
        }
        Ok(PartitionAnswer::LogStart { log_start_offset: self.log_start_offset })
    }
}
