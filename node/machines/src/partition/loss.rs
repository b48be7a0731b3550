//! Going on after a loss that an operator has accepted: what is left of the log is taken over as it was decided once, and
//! the offsets that are missing are remembered, and never given out again.

use std::ops::Range;

use bytes::Bytes;
use flotilla_records::BatchHeader;

use super::{OFFSET_MAX, PartitionMachine};
use crate::rows::Rows;
use crate::{Decision, item};

impl PartitionMachine {
    /// Takes over an item behind a loss. What was decided about it once stays so: a batch keeps its offsets, a command has its
    /// effect. Where that is not known, a batch is appended like a new one, but not refused because what its producer sent
    /// before it may be lost. Returns the decision.
    pub fn adopt(&mut self, kind: u8, payload: &Bytes, decision: Option<Decision>, rows: &mut dyn Rows) -> Decision {
        match (kind, decision) {
            (item::BATCH, Some(decision @ Decision::Keep { base_offset, offset_count, .. })) => {
                self.adopt_batch(payload, base_offset, offset_count, rows);
                decision
            }
            (item::BATCH, Some(Decision::Drop)) => Decision::Drop,
            (item::BATCH, None) => self.append_behind_loss(payload, rows).decision,
            _ => self.apply(kind, payload, rows).decision,
        }
    }

    /// Notes that records may be missing among `offsets`. Those from the next offset on are not given out any more, and what
    /// was known of producers is forgotten then: they may have sent what is lost.
    pub fn lose(&mut self, offsets: Range<u64>, rows: &mut dyn Rows) {
        let offsets = offsets.start..offsets.end.min(OFFSET_MAX);
        if offsets.is_empty() {
            return;
        }
        if offsets.end > self.next_offset {
            self.next_offset = offsets.end;
            self.producers.forget_all(rows);
        }
        self.lost = match self.lost.is_empty() {
            true => offsets,
            false => self.lost.start.min(offsets.start)..self.lost.end.max(offsets.end),
        };
        self.put_meta(rows);
    }

    /// The smallest range of offsets that has all in it that an operator has accepted as lost; empty if there are none.
    /// Records may be left among them.
    #[must_use]
    pub fn lost(&self) -> Range<u64> {
        self.lost.clone()
    }

    fn adopt_batch(&mut self, payload: &Bytes, base_offset: u64, offset_count: u32, rows: &mut dyn Rows) {
        self.lose(self.next_offset..base_offset, rows);
        self.next_offset = self.next_offset.max(base_offset.saturating_add(u64::from(offset_count)).min(OFFSET_MAX));
        if let Some(stamp) = BatchHeader::parse(payload).ok().and_then(|header| header.producer) {
            self.producers.record(&stamp, offset_count, base_offset, self.time.dated_ms, rows);
        }
        self.put_meta(rows);
    }
}
