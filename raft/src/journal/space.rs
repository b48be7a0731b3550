//! Where the next batch goes: into the current file, a free one, a new one, or nowhere yet.

use std::collections::BTreeSet;
use std::io;

use super::frame::{BLOCK_BYTES, HEADER_BYTES, blocks};
use super::observer::Recycle;
use super::ring::slot_path;
use super::table::{Marks, Suspect};
use super::writer::{Current, Journal};
use crate::types::GroupId;

/// Files that shall be free, or allowed to be created, before the owner is asked to make room.
const FREE_FILES_MIN: usize = 2;
/// Files from which on recycling is tried before the ring grows: filling a new file with zeros costs as much as
/// writing it, so a ring that can be kept small is.
const FILES_BEFORE_RECYCLING: usize = 4;

/// Room for a batch, in bytes of records.
#[derive(Debug)]
pub(super) enum Room {
    /// In the current file.
    Here { bytes: u64 },
    /// In another file, behind a checkpoint.
    Fresh { current: Current, bytes: u64 },
    /// Not even an empty file would hold it.
    TooLarge,
    /// No file is free.
    Full,
}

impl Journal {
    /// Finds room for `bytes` of records. Moves may extend the ring beyond `files_max`.
    pub(super) fn make_room(&mut self, bytes: u64, is_move: bool) -> io::Result<Room> {
        // Records written now may give groups their first live entries, and so marks to come: hence one more block.
        let reserve = self.reserve() + BLOCK_BYTES;
        if self.fits(bytes, reserve) {
            let left = self.current.bytes - self.current.position - reserve;
            return Ok(Room::Here { bytes: left - HEADER_BYTES as u64 });
        }
        let overhead = HEADER_BYTES as u64 + self.checkpoint_bytes() + reserve;
        if blocks(overhead + bytes) > self.options.file_bytes {
            return Ok(Room::TooLarge);
        }
        let Some(slot) = self.free_slot(is_move)? else { return Ok(Room::Full) };
        let current = self.open_slot(slot, self.current.sequence + 1)?;
        let bytes = self.options.file_bytes - overhead;
        Ok(Room::Fresh { current, bytes })
    }

    pub(super) fn open_slot(&self, slot: u32, sequence: u64) -> io::Result<Current> {
        let bytes = self.ring.slot(slot).map_or(0, |slot| slot.bytes);
        Ok(Current { file: self.ring.open(slot)?, slot, bytes, sequence, position: 0 })
    }

    /// Slots with damage that nobody dealt with.
    fn damaged_slots(&self) -> BTreeSet<u32> {
        self.table.damage.iter().map(|row| row.slot).collect()
    }

    /// Slots that may be overwritten once `marks` are written.
    pub(super) fn free_slots(&self, marks: &Marks) -> Vec<u32> {
        self.ring.free(&self.table.live_files(marks), &self.damaged_slots())
    }

    /// Files that count against the limits: all but damaged ones, which wait for an operator.
    fn counted_files(&self) -> usize {
        let damaged = self.damaged_slots();
        self.ring.slots().iter().filter(|slot| !damaged.contains(&slot.index)).count()
    }

    /// A slot to overwrite, or a new one.
    fn free_slot(&mut self, is_move: bool) -> io::Result<Option<u32>> {
        for index in self.free_slots(&Marks::new()) {
            if self.ring.slot(index).is_some_and(|slot| slot.bytes == self.options.file_bytes) {
                return Ok(Some(index));
            }
            self.ring.delete(index)?;
        }
        let limit = if is_move { self.options.files_hard_max } else { self.options.files_max };
        if self.ring.is_preparing() || self.counted_files() >= limit as usize {
            return Ok(None);
        }
        match self.ring.grow(self.options.file_bytes) {
            Ok(slot) => {
                self.disk_full = false;
                Ok(Some(slot))
            }
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                self.note_disk_full(&error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn note_disk_full(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.disk_full, true) {
            let dir = self.ring.dir().display();
            tracing::error!(%error, %dir, "no space for one more journal file: writes wait until a file or space is free");
        }
    }

    /// Takes in a file that was created aside. If that failed, the next attempt meets the reason again.
    pub(super) fn adopt_prepared(&mut self) {
        match self.ring.adopt_prepared() {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::StorageFull => self.note_disk_full(&error),
            Err(error) => tracing::warn!(%error, "creating a journal file aside failed; it is tried again when needed"),
        }
    }

    pub(super) fn wants_preparation(&self) -> bool {
        let counted = self.counted_files();
        // Recycling gets half a file's time.
        let urgent = counted < FILES_BEFORE_RECYCLING || self.current.position > self.current.bytes / 2;
        let may_grow = !self.disk_full && counted < self.options.files_max as usize;
        may_grow && urgent && self.free_slots(&Marks::new()).is_empty()
    }

    /// After a file was turned to: deletes one that is too many, asks for room in time.
    pub(super) fn after_turn(&mut self) -> io::Result<()> {
        let free = self.free_slots(&Marks::new());
        if self.counted_files() > self.options.files_max as usize
            && let Some(index) = free.first()
        {
            self.ring.delete(*index)?;
            return Ok(());
        }
        let creatable = FILES_BEFORE_RECYCLING.min(self.options.files_max as usize).saturating_sub(self.counted_files());
        if free.len() + creatable < FREE_FILES_MIN {
            self.ask_for_room();
        }
        Ok(())
    }

    /// Asks the owner to empty the oldest files.
    pub(super) fn ask_for_room(&mut self) {
        let live = self.table.live_files(&Marks::new());
        let oldest: BTreeSet<u64> = live.into_iter().take(FREE_FILES_MIN).collect();
        let mut wishes = Vec::new();
        for (id, group) in &self.table.groups {
            let in_the_way = group.log.runs().iter().rev().find(|run| oldest.contains(&run.file));
            if let Some(run) = in_the_way
                && self.asked.insert(*id, (run.file, run.last)) != Some((run.file, run.last))
            {
                wishes.push(Recycle { group: *id, incarnation: group.incarnation, upto: run.last });
            }
        }
        self.asked.retain(|id, _| self.table.groups.contains_key(id));
        if let (Some(observer), false) = (&self.observer, wishes.is_empty()) {
            observer.recycle(&wishes);
        }
    }

    /// Says at opening which damage waits for somebody.
    pub(super) fn log_damage(&self) {
        for row in &self.table.damage {
            let groups: Option<&Vec<GroupId>> = match &row.groups {
                Suspect::Named(groups) => Some(groups),
                Suspect::All => None,
            };
            let file = slot_path(self.ring.dir(), row.slot);
            tracing::error!(file = %file.display(), range = ?row.range, ?groups, reason = row.reason, "the journal is damaged");
        }
    }
}
