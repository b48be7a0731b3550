//! The files: slots `00000000.journal`, `00000001.journal`, …, each written from front to back, then recycled. A slot
//! lives many lives; each has a *file sequence* of its own, so that frames of an earlier life are told apart.
//!
//! Which slot is free: one that holds no live entry, no damage that nobody dealt with, and is not one of the two
//! newest files (if the newest one's checkpoint turned out bad, the one before it must still be there).

use std::collections::BTreeSet;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::frame::BLOCK_BYTES;
use super::handle::Shared;
use crate::disk::{Disk, DiskFile};

/// Bytes of zeros written at once into a new file.
const ZERO_CHUNK_BYTES: u64 = 1 << 20;

/// What a slot holds now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Life {
    /// The file sequence.
    pub(super) file: u64,
    /// The last batch in it that counts.
    pub(super) last_batch: u64,
}

/// One file on disk.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub(super) index: u32,
    pub(super) bytes: u64,
    pub(super) life: Option<Life>,
}

/// All files.
#[derive(Debug)]
pub(super) struct Ring {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    slots: Vec<Slot>,
    preparing: Arc<Mutex<Preparing>>,
}

/// Where a new file that is created aside stands.
#[derive(Debug, Default)]
enum Preparing {
    #[default]
    Nothing,
    Running,
    Done(io::Result<Slot>),
}

/// The name of a slot's file.
pub(super) fn slot_path(dir: &Path, index: u32) -> PathBuf {
    dir.join(format!("{index:08}.journal"))
}

/// The slot that a path names, if it is one of ours.
pub(super) fn slot_of(path: &Path) -> Option<u32> {
    let digits = path.file_name()?.to_str()?.strip_suffix(".journal")?;
    digits.parse().ok().filter(|_| digits.len() == 8)
}

/// Creates a file of zeros, so that later writes only overwrite allocated blocks.
fn create(disk: &dyn Disk, dir: &Path, index: u32, bytes: u64) -> io::Result<Slot> {
    let file = disk.open(&slot_path(dir, index), true)?;
    file.set_len(0)?;
    file.allocate(bytes)?;
    let zeros = vec![0; ZERO_CHUNK_BYTES.min(bytes) as usize];
    let mut at = 0;
    while at < bytes {
        let count = ZERO_CHUNK_BYTES.min(bytes - at);
        file.write_all_at(&[IoSlice::new(zeros.get(..count as usize).unwrap_or_default())], at)?;
        at += count;
    }
    file.sync()?;
    disk.sync_dir(dir)?;
    Ok(Slot { index, bytes, life: None })
}

/// A file to be created aside, so that the writer does not wait for it. Run it on any thread.
#[derive(Debug)]
pub struct Preparation {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    index: u32,
    bytes: u64,
    preparing: Arc<Mutex<Preparing>>,
    shared: Arc<Shared>,
}

impl Preparation {
    /// Writes the file full of zeros and syncs it. A failure is not lost: the writer meets it when it needs the file.
    pub fn run(self) {
        let result = create(&*self.disk, &self.dir, self.index, self.bytes);
        *self.preparing.lock().unwrap_or_else(PoisonError::into_inner) = Preparing::Done(result);
        self.shared.rouse();
    }
}

impl Drop for Preparation {
    /// If it never ran, the writer shall not wait for it.
    fn drop(&mut self) {
        let mut preparing = self.preparing.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*preparing, Preparing::Running) {
            *preparing = Preparing::Nothing;
        }
    }
}

impl Ring {
    pub(super) fn new(disk: Arc<dyn Disk>, dir: PathBuf, slots: Vec<Slot>) -> Self {
        Self { disk, dir, slots, preparing: Arc::default() }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes durable what a process may have left behind that was killed while it created a file: its name and length.
    pub(super) fn settle(&self) -> io::Result<()> {
        for slot in self.slots.iter().filter(|slot| slot.life.is_none()) {
            self.open(slot.index)?.sync()?;
        }
        self.disk.sync_dir(&self.dir)
    }

    pub(super) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    pub(super) fn open(&self, index: u32) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.open(&slot_path(&self.dir, index), false)
    }

    /// Slots that may be overwritten. `damaged` slots and `live` files stay.
    pub(super) fn free(&self, live: &BTreeSet<u64>, damaged: &BTreeSet<u32>) -> Vec<u32> {
        let mut lives: Vec<_> = self.slots.iter().filter_map(|slot| slot.life.map(|life| life.file)).collect();
        lives.sort_unstable_by(|a, b| b.cmp(a));
        let kept: BTreeSet<_> = lives.into_iter().take(2).collect();
        let mut free: Vec<_> = self
            .slots
            .iter()
            .filter(|slot| !damaged.contains(&slot.index))
            .filter(|slot| slot.life.is_none_or(|life| !live.contains(&life.file) && !kept.contains(&life.file)))
            .map(|slot| (slot.life.map(|life| life.file), slot.index))
            .collect();
        free.sort_unstable();
        free.into_iter().map(|(_, index)| index).collect()
    }

    pub(super) fn slot(&self, index: u32) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.index == index)
    }

    /// Gives a slot a new life.
    pub(super) fn set_life(&mut self, index: u32, life: Life) {
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.index == index) {
            slot.life = Some(life);
        }
    }

    /// Deletes a free slot's file: it is one too many, or has another size than files have now.
    pub(super) fn delete(&mut self, index: u32) -> io::Result<()> {
        match self.disk.remove(&slot_path(&self.dir, index)) {
            // An earlier attempt came so far.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed?,
        }
        self.disk.sync_dir(&self.dir)?;
        self.slots.retain(|slot| slot.index != index);
        Ok(())
    }

    fn next_index(&self) -> u32 {
        (0..).find(|index| self.slot(*index).is_none()).unwrap_or(u32::MAX)
    }

    /// Creates one more file and waits for it.
    pub(super) fn grow(&mut self, bytes: u64) -> io::Result<u32> {
        let slot = create(&*self.disk, &self.dir, self.next_index(), bytes)?;
        let index = slot.index;
        self.slots.push(slot);
        Ok(index)
    }

    /// Whether a file is being created aside, or was and is not taken in yet. None may be created meanwhile: it would be the same.
    pub(super) fn is_preparing(&self) -> bool {
        !matches!(*self.preparing.lock().unwrap_or_else(PoisonError::into_inner), Preparing::Nothing)
    }

    /// Starts creating one more file aside.
    pub(super) fn prepare(&self, bytes: u64, shared: Arc<Shared>) -> Option<Preparation> {
        let mut preparing = self.preparing.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(*preparing, Preparing::Nothing) {
            return None;
        }
        *preparing = Preparing::Running;
        let (disk, dir, index) = (self.disk.clone(), self.dir.clone(), self.next_index());
        Some(Preparation {
            disk,
            dir,
            index,
            bytes: bytes.next_multiple_of(BLOCK_BYTES),
            preparing: self.preparing.clone(),
            shared,
        })
    }

    /// Takes in a file that was created aside, or the reason why it could not be.
    pub(super) fn adopt_prepared(&mut self) -> io::Result<()> {
        let mut preparing = self.preparing.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(*preparing, Preparing::Done(_)) {
            return Ok(());
        }
        if let Preparing::Done(result) = std::mem::take(&mut *preparing) {
            self.slots.push(result?);
        }
        Ok(())
    }
}
