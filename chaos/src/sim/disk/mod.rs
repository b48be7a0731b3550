//! The disk of a simulated node: a [`SimDisk`] at whose seam every single operation can be made to fail, or to be the one
//! during which the process is killed; with sectors that cannot be read until they are written again.
//!
//! `rules.rs` says which operation does what.

mod corrupt;
mod rules;

use std::fmt;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flotilla_raft::disk::sim::{Faults, Rng, SimDisk};
use flotilla_raft::disk::{Disk, DiskFile};

pub use corrupt::Damage;
use rules::Rules;
pub use rules::{DiskError, Op, Place, Rule};

/// See the module. Clones are the same disk.
#[derive(Clone)]
pub struct MeddledDisk {
    disk: SimDisk,
    rules: Arc<Mutex<Rules>>,
}

/// An open file of it.
struct MeddledFile {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    disk: MeddledDisk,
}

impl MeddledDisk {
    /// An empty disk whose every random choice follows from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let disk = SimDisk::new(rng.next_u64());
        Self { disk, rules: Arc::new(Mutex::new(Rules::new(rng))) }
    }

    /// Changes what goes wrong with the device.
    pub fn faults<R>(&self, change: impl FnOnce(&mut Faults) -> R) -> R {
        self.disk.faults(change)
    }

    /// Writing operations that were done so far.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.disk.operations()
    }

    /// From now on, some operations fail. Returns what names the rule.
    pub fn rule(&self, rule: Rule) -> u64 {
        self.rules().add(rule)
    }

    /// The rule holds no more; how many operations it had met.
    pub fn lift(&self, rule: u64) -> u64 {
        self.rules().lift(rule)
    }

    /// No rule holds any more, sectors are whole, there is room.
    pub fn heal(&self) {
        self.rules().heal();
        self.faults(|faults| {
            (faults.power_fails_in, faults.sync_fails_in, faults.write_fails_in) = (None, None, None);
            faults.capacity_bytes = u64::MAX;
        });
    }

    /// What was written last to the journal cannot be read from now on.
    pub fn spoil_tail(&self) {
        self.rules().spoil_tail();
    }

    /// All sectors can be read again.
    pub fn readable(&self) {
        self.rules().heal_sectors();
    }

    /// No file can grow, or all can again. `quota`: it is a user's room that is used up.
    pub fn full(&self, full: bool, quota: bool) {
        let mut rules = self.rules();
        (rules.quota, rules.refused) = (quota, false);
        drop(rules);
        self.faults(|faults| faults.capacity_bytes = if full { 0 } else { u64::MAX });
    }

    /// Whether no file can grow, and somebody wanted one to.
    #[must_use]
    pub fn is_found_full(&self) -> bool {
        self.rules().refused && self.faults(|faults| faults.capacity_bytes == 0)
    }

    /// Whether the process was killed during an operation, and its end is still to be seen to.
    #[must_use]
    pub fn is_dying(&self) -> bool {
        self.rules().dying
    }

    /// The process is gone: the machine keeps what it was told.
    pub fn kill(&self) {
        self.rules().dying = false;
        self.disk.kill();
    }

    /// The power is gone, and comes back.
    pub fn power_cut(&self) {
        self.rules().dying = false;
        self.disk.power_cut();
    }

    fn rules(&self) -> MutexGuard<'_, Rules> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, path: &Path, file: io::Result<Arc<dyn DiskFile>>) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(MeddledFile { path: path.to_owned(), file: file?, disk: self.clone() }))
    }

    /// Does an operation unless a rule says otherwise. Of one in which the process dies, it is open whether it happened.
    fn act<T>(&self, op: Op, path: &Path, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let met = self.rules().meet(op, path);
        match met {
            None => self.in_words_of_quota(act()),
            Some(met) => {
                if met.half_done {
                    drop(act());
                }
                Err(met.error)
            }
        }
    }

    fn in_words_of_quota<T>(&self, done: io::Result<T>) -> io::Result<T> {
        done.map_err(|error| {
            if error.kind() != io::ErrorKind::StorageFull {
                return error;
            }
            let mut rules = self.rules();
            rules.refused = true;
            if rules.quota { DiskError::Edquot.as_io() } else { DiskError::Enospc.as_io() }
        })
    }
}

impl Disk for MeddledDisk {
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        self.act(Op::Open, path, || self.file(path, self.disk.open(path, create)))
    }

    fn open_uncached(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.act(Op::Open, path, || self.file(path, self.disk.open_uncached(path)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.act(Op::Rename, from, || self.disk.rename(from, to))?;
        self.rules().renamed(from, to);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.act(Op::Remove, path, || self.disk.remove(path))?;
        self.rules().removed(path);
        Ok(())
    }

    /// As the C library does it: what is in it goes one by one, in no order that anybody can rely on.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut entries = self.list(path)?;
        while !entries.is_empty() {
            let next = self.rules().below(entries.len());
            let entry = entries.swap_remove(next);
            match self.remove(&entry) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.remove_dir_all(&entry)?,
                removed => removed?,
            }
        }
        self.act(Op::RemoveDir, path, || self.disk.remove_dir_all(path))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.act(Op::CreateDir, path, || self.disk.create_dir_all(path))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.act(Op::List, path, || self.disk.list(path))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.act(Op::SyncDir, path, || self.disk.sync_dir(path))
    }
}

impl DiskFile for MeddledFile {
    fn write_all_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let bytes: usize = slices.iter().map(|slice| slice.len()).sum();
        let met = self.disk.rules().meet(Op::Write, &self.path);
        if let Some(met) = met {
            if met.half_done {
                // The device writes some of it, and fails.
                self.disk.faults(|faults| faults.write_fails_in = Some(0));
                let _ = self.file.write_all_at(slices, offset);
            }
            return Err(met.error);
        }
        self.disk.in_words_of_quota(self.file.write_all_at(slices, offset))?;
        self.disk.rules().written(&self.path, offset..offset + bytes as u64);
        Ok(())
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let range = offset..offset + buf.len() as u64;
        let readable = self.disk.rules().readable(&self.path, range);
        readable?;
        self.disk.act(Op::Read, &self.path, || self.file.read_exact_at(buf, offset))
    }

    fn sync(&self) -> io::Result<()> {
        let met = self.disk.rules().meet(Op::Sync, &self.path);
        if let Some(met) = met {
            if met.half_done {
                // Some of it reaches the device, and nobody knows what.
                self.disk.faults(|faults| faults.sync_fails_in = Some(0));
                let _ = self.file.sync();
            }
            return Err(met.error);
        }
        self.file.sync()
    }

    fn len(&self) -> io::Result<u64> {
        self.disk.act(Op::Len, &self.path, || self.file.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.act(Op::SetLen, &self.path, || self.file.set_len(len))
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.disk.act(Op::SetLen, &self.path, || self.file.allocate(len))
    }
}

impl fmt::Debug for MeddledDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeddledDisk").finish_non_exhaustive()
    }
}

impl fmt::Debug for MeddledFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeddledFile").field("path", &self.path).finish_non_exhaustive()
    }
}
