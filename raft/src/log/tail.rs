//! The end of one group's log, in memory: everything that is not yet written to a segment.
//!
//! Replication, apply and tail consumers read from here, never from the disk. An entry enters by append, is marked
//! by apply with what was decided about its items, and leaves when it is in a segment. Entries that are not applied
//! live here and in the journal alone, so this is all that a truncation has to touch.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use crate::journal::JournalSeq;
use crate::segments::{Frame, StoredItem};
use crate::types::{Body, Decision, Entry};

/// One entry and what happened to it so far.
struct TailEntry {
    entry: Entry,
    /// The entry is durable here once the journal's watermark has reached this.
    seq: JournalSeq,
    applied: Option<AppliedEntry>,
}

struct AppliedEntry {
    decisions: Arc<[Decision]>,
    /// crc32c of the items' payloads; none: not known.
    checksums: Arc<[u32]>,
    /// Offset behind the last kept item of this entry and all before it.
    end_offset: u64,
}

/// See the module. Indices are contiguous from `first_index` on; the applied entries are a prefix.
pub(crate) struct Tail {
    first_index: u64,
    entries: VecDeque<TailEntry>,
    applied_count: usize,
    bytes: usize,
    applied_bytes: usize,
    /// End offset of what left, so that an entry without kept items knows where it stands.
    end_offset: u64,
}

impl Tail {
    /// An empty tail; the next entry has index `first_index`, the next kept item offset `end_offset` or higher.
    pub(crate) fn new(first_index: u64, end_offset: u64) -> Self {
        Self { first_index, entries: VecDeque::new(), applied_count: 0, bytes: 0, applied_bytes: 0, end_offset }
    }

    /// Index of the first entry in here, or of the next one to come.
    pub(crate) fn first_index(&self) -> u64 {
        self.first_index
    }

    /// Index behind the last entry.
    pub(crate) fn next_index(&self) -> u64 {
        self.first_index + self.entries.len() as u64
    }

    /// Entries that are applied and still here.
    pub(crate) fn applied_count(&self) -> usize {
        self.applied_count
    }

    /// Bytes of memory held, applied or not; see [`memory_bytes`].
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of memory that could go to a segment.
    pub(crate) fn applied_bytes(&self) -> usize {
        self.applied_bytes
    }

    /// Adds an entry behind the last one.
    ///
    /// # Errors
    /// If its index does not follow.
    pub(crate) fn push(&mut self, entry: Entry, seq: JournalSeq) -> io::Result<()> {
        if self.entries.is_empty() && self.applied_count == 0 && entry.log_id.index > self.first_index {
            return Err(gap(self.first_index, entry.log_id.index));
        }
        if entry.log_id.index != self.next_index() {
            return Err(gap(self.next_index(), entry.log_id.index));
        }
        self.bytes += memory_bytes(&entry);
        self.entries.push_back(TailEntry { entry, seq, applied: None });
        Ok(())
    }

    /// Forgets everything behind `index` (`None`: everything).
    ///
    /// # Errors
    /// If an applied entry would go: a committed entry is never truncated.
    pub(crate) fn truncate_after(&mut self, index: Option<u64>) -> io::Result<()> {
        let keep = index.map_or(0, |index| (index + 1).saturating_sub(self.first_index)) as usize;
        if keep < self.applied_count || index.is_some_and(|index| index + 1 < self.first_index) {
            return Err(io::Error::other(format!("refused to truncate applied entries behind index {index:?}")));
        }
        for dropped in self.entries.drain(keep.min(self.entries.len())..) {
            self.bytes -= memory_bytes(&dropped.entry);
        }
        Ok(())
    }

    /// Starts anew behind `index`: entries up to there leave, those behind stay. The next kept item has offset
    /// `end_offset` or higher. Returns the bytes of memory that were freed.
    ///
    /// # Errors
    /// If applied entries lie behind `index`: nothing is changed then.
    pub(crate) fn restart_behind(&mut self, index: u64, end_offset: u64) -> io::Result<usize> {
        if self.first_index + self.applied_count as u64 > index + 1 {
            return Err(io::Error::other(format!("refused to start anew behind entry {index}: later ones are applied")));
        }
        let before = self.bytes;
        while self.first_index <= index {
            let Some(held) = self.entries.pop_front() else { break };
            self.first_index += 1;
            self.bytes -= memory_bytes(&held.entry);
        }
        self.first_index = self.first_index.max(index + 1);
        (self.applied_count, self.applied_bytes) = (0, 0);
        self.end_offset = end_offset;
        Ok(before - self.bytes)
    }

    /// The journal sequence that makes the entry at `index` durable.
    pub(crate) fn seq(&self, index: u64) -> Option<JournalSeq> {
        self.entries.get(self.slot(index)?).map(|held| held.seq)
    }

    /// Entries from `from` up to, not including, `to`: about `bytes_max` payload bytes, at least one if it is here.
    pub(crate) fn range(&self, from: u64, to: u64, bytes_max: usize) -> Vec<Entry> {
        let Some(start) = self.slot(from) else { return Vec::new() };
        let mut bytes = 0;
        let wanted = (to.saturating_sub(from)) as usize;
        let entries = self.entries.iter().skip(start).take(wanted);
        let fits = entries.take_while(|held| {
            let fits = bytes == 0 || bytes + memory_bytes(&held.entry) <= bytes_max;
            bytes += memory_bytes(&held.entry).max(1);
            fits
        });
        fits.map(|held| held.entry.clone()).collect()
    }

    /// Notes what apply decided about the entry at `index`. Entries that left already are ignored: they were
    /// applied before a restart and are applied again.
    ///
    /// # Errors
    /// If entries before it are not applied, or the entry is missing.
    pub(crate) fn mark_applied(&mut self, index: u64, decisions: Arc<[Decision]>, checksums: Arc<[u32]>) -> io::Result<()> {
        let next = self.first_index + self.applied_count as u64;
        if index < next {
            return Ok(());
        }
        let before = self.applied_end_offset();
        let Some(held) = self.entries.get_mut(self.applied_count).filter(|_| index == next) else {
            return Err(gap(next, index));
        };
        let end_offset = decisions.iter().fold(before, |end, decision| match decision {
            Decision::Drop => end,
            Decision::Keep(kept) => kept.base_offset + u64::from(kept.offset_count),
        });
        self.applied_bytes += memory_bytes(&held.entry);
        held.applied = Some(AppliedEntry { decisions, checksums, end_offset });
        self.applied_count += 1;
        Ok(())
    }

    /// Applied entries from the front, at most about `bytes_max` payload bytes: what the flusher writes next.
    pub(crate) fn frames(&self, bytes_max: usize) -> Vec<Frame> {
        let mut bytes = 0;
        let applied = self.entries.iter().take(self.applied_count);
        let fits = applied.take_while(|held| {
            let fits = bytes == 0 || bytes + memory_bytes(&held.entry) <= bytes_max;
            bytes += memory_bytes(&held.entry).max(1);
            fits
        });
        fits.filter_map(|held| {
            let AppliedEntry { decisions, checksums, .. } = held.applied.as_ref()?;
            Some(Frame { entry: held.entry.clone(), decisions: decisions.clone(), checksums: checksums.clone() })
        })
        .collect()
    }

    /// Lets go of the applied entries up to and including `index`: they are in a segment now.
    pub(crate) fn release(&mut self, index: u64) -> usize {
        let mut released = 0;
        while self.applied_count > 0 && self.first_index <= index {
            let Some(held) = self.entries.pop_front() else { break };
            self.first_index += 1;
            self.applied_count -= 1;
            released += memory_bytes(&held.entry);
            if let Some(applied) = held.applied {
                self.end_offset = applied.end_offset;
            }
        }
        self.bytes -= released;
        self.applied_bytes -= released;
        released
    }

    /// Kept items from the one that contains `offset` on, about `bytes_max` bytes, at least one.
    /// `None`: `offset` lies before everything in here, look into the segments.
    pub(crate) fn read(&self, offset: u64, bytes_max: usize) -> Option<Vec<StoredItem>> {
        if offset < self.end_offset {
            return None;
        }
        let applied = |held: &TailEntry| held.applied.as_ref().is_some_and(|applied| applied.end_offset <= offset);
        let start = self.entries.partition_point(applied);
        let mut items = Vec::new();
        let mut bytes = 0;
        for held in self.entries.iter().take(self.applied_count).skip(start) {
            for stored in kept_items(held) {
                let behind = stored.kept.base_offset + u64::from(stored.kept.offset_count) <= offset;
                if behind {
                    continue;
                }
                if !items.is_empty() && bytes + stored.payload.len() > bytes_max {
                    return Some(items);
                }
                bytes += stored.payload.len();
                items.push(stored);
            }
        }
        Some(items)
    }

    /// The first kept item here that reaches behind `from` (an offset) and whose largest timestamp is `timestamp_ms` or
    /// later.
    pub(crate) fn find_timestamp(&self, timestamp_ms: i64, from: u64) -> Option<StoredItem> {
        let applied = self.entries.iter().take(self.applied_count);
        let mut items = applied.flat_map(kept_items);
        items.find(|StoredItem { kept, .. }| {
            kept.max_timestamp_ms >= timestamp_ms && kept.base_offset + u64::from(kept.offset_count) > from
        })
    }

    /// Largest timestamp of a kept item here, in milliseconds since the Unix epoch.
    pub(crate) fn newest_timestamp_ms(&self) -> Option<i64> {
        let applied = self.entries.iter().take(self.applied_count);
        applied.flat_map(kept_items).map(|stored| stored.kept.max_timestamp_ms).max()
    }

    /// Entries that are here but not applied.
    pub(crate) fn unapplied(&self) -> Vec<Entry> {
        self.entries.iter().skip(self.applied_count).map(|held| held.entry.clone()).collect()
    }

    fn applied_end_offset(&self) -> u64 {
        let last = self.applied_count.checked_sub(1).and_then(|last| self.entries.get(last));
        last.and_then(|held| held.applied.as_ref()).map_or(self.end_offset, |applied| applied.end_offset)
    }

    fn slot(&self, index: u64) -> Option<usize> {
        usize::try_from(index.checked_sub(self.first_index)?).ok()
    }
}

fn kept_items(held: &TailEntry) -> impl Iterator<Item = StoredItem> + '_ {
    let items: &[crate::types::Item] = match &held.entry.body {
        Body::Items(items) => items,
        Body::Blank | Body::Membership(_) => &[],
    };
    let decisions = held.applied.as_ref().map_or(&[][..], |applied| &applied.decisions);
    items.iter().zip(decisions).filter_map(|(item, decision)| match decision {
        Decision::Drop => None,
        Decision::Keep(kept) => {
            Some(StoredItem { log_id: held.entry.log_id, kind: item.kind, kept: *kept, payload: item.payload.clone() })
        }
    })
}

/// What an entry takes in memory, about: many small items cost more than their payloads.
fn memory_bytes(entry: &Entry) -> usize {
    const PER_ENTRY: usize = 160;
    const PER_ITEM: usize = 120;
    let items = match &entry.body {
        Body::Items(items) => items.len(),
        Body::Blank | Body::Membership(_) => 0,
    };
    entry.payload_bytes() + PER_ENTRY + PER_ITEM * items
}

fn gap(expected: u64, got: u64) -> io::Error {
    io::Error::other(format!("log entry {got} does not follow: {expected} is expected"))
}
