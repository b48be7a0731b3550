//! Where the next batch goes: into the current file, a free one, a new one, or nowhere yet.

use std::collections::BTreeSet;
use std::io;

use super::frame::{BLOCK_BYTES, HEADER_BYTES, blocks};
use super::observer::Recycle;
use super::ring::slot_path;
use super::table::{Marks, Suspect};
use super::writer::{Current, Journal};
use crate::disk::error::Class;
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
        let Some(current) = self.next_file(is_move)? else { return Ok(Room::Full) };
        let bytes = self.options.file_bytes - overhead;
        Ok(Room::Fresh { current, bytes })
    }

    /// The file to write next; `None`: there is none yet.
    fn next_file(&mut self, is_move: bool) -> io::Result<Option<Current>> {
        let slot = self.free_slot(is_move);
        let opened = slot.and_then(|slot| slot.map(|slot| self.open_slot(slot, self.current.sequence + 1)).transpose());
        match opened {
            Err(error) if Class::of(&error).waits() => {
                self.obstacle = Some(error);
                Ok(None)
            }
            opened => {
                self.obstacle = None;
                opened
            }
        }
    }

    fn open_slot(&self, slot: u32, sequence: u64) -> io::Result<Current> {
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
        self.ring.grow(self.options.file_bytes).map(Some)
    }

    /// Tells the owner what keeps submissions waiting.
    pub(super) fn tell_obstacle(&mut self) {
        if let (Some(observer), Some(obstacle)) = (&self.observer, &self.obstacle) {
            observer.waiting(Some(obstacle));
            self.told_obstacle = true;
        }
    }

    /// Tells the owner that they wait no more.
    pub(super) fn tell_no_obstacle(&mut self) {
        if std::mem::take(&mut self.told_obstacle)
            && let Some(observer) = &self.observer
        {
            observer.waiting(None);
        }
    }

    /// Takes in a file that was created aside. If that failed, the next attempt meets the reason again.
    pub(super) fn adopt_prepared(&mut self) {
        if let Err(error) = self.ring.adopt_prepared() {
            tracing::warn!(%error, "creating a journal file aside failed; it is tried again when needed");
            self.obstacle = Some(error).filter(|error| Class::of(error).waits());
        }
    }

    pub(super) fn wants_preparation(&self) -> bool {
        let counted = self.counted_files();
        // Recycling gets half a file's time.
        let urgent = counted < FILES_BEFORE_RECYCLING || self.current.position > self.current.bytes / 2;
        let may_grow = self.obstacle.is_none() && counted < self.options.files_max as usize;
        may_grow && urgent && self.free_slots(&Marks::new()).is_empty()
    }

    /// After a file was turned to: deletes one that is too many, asks for room in time.
    pub(super) fn after_turn(&mut self) -> io::Result<()> {
        let free = self.free_slots(&Marks::new());
        if self.counted_files() > self.options.files_max as usize
            && let Some(index) = free.first()
        {
            // If that has to wait, the next turn does it.
            return self.ring.delete(*index).or_else(|error| if Class::of(&error).waits() { Ok(()) } else { Err(error) });
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
