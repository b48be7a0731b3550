//! Setting producer ids aside, in blocks, so that a node hands them out without asking for each.

use flotilla_proto::internal::v1;

use super::limits::{PRODUCER_ID_MAX, PRODUCER_IDS_PER_BLOCK_MAX};
use super::{ControllerAnswer, ControllerMachine, ControllerOutcome, ControllerRefusal};
use crate::rows::Rows;

impl ControllerMachine {
    /// What a node does not hand out of its block is lost, never reused.
    pub(super) fn allocate_producer_ids(&mut self, command: &v1::AllocateProducerIds, rows: &mut dyn Rows) -> ControllerOutcome {
        let count = command.count;
        if !(1..=PRODUCER_IDS_PER_BLOCK_MAX).contains(&count) {
            return Err(ControllerRefusal::InvalidBlock { count });
        }
        let first = self.next_producer_id;
        if PRODUCER_ID_MAX.saturating_sub(first) < u64::from(count) {
            return Err(ControllerRefusal::ProducerIdsExhausted);
        }
        self.next_producer_id = first + u64::from(count);
        self.put_meta(rows);
        Ok(ControllerAnswer::ProducerIds { first, count })
    }
}
