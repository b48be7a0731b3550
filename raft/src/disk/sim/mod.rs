//! A simulated disk, deterministic from its seed: it forgets what was not synced when the power is cut, keeps some
//! of it, tears blocks at sector boundaries, and fails on demand.
//!
//! What it models: a page cache of 4 KiB blocks over a device with atomic 512-byte sectors; the kernel writing
//! dirty blocks back whenever it likes; names (create, rename, remove, directories) that reach the device in order,
//! on their own or at the latest with `sync_dir`; a failed sync that forgets which blocks were dirty, as Linux
//! does. `rng.rs` holds the random numbers, `model.rs` the device and its cache, `fault.rs` what can go wrong.

#![allow(clippy::indexing_slicing, reason = "an index out of range is a bug of the simulation and shall be loud")]

mod fault;
mod model;
mod rng;

use std::fmt;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use fault::Faults;
pub use rng::Rng;

use super::{Disk, DiskFile};
use model::{InodeId, Model, NameOp};

/// A simulated file system. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    model: Arc<Mutex<Model>>,
}

/// An open file of a [`SimDisk`]; it fails once the power was cut or the process "killed".
struct SimFile {
    model: Arc<Mutex<Model>>,
    inode: InodeId,
    generation: u64,
    uncached: bool,
}

impl SimDisk {
    /// An empty disk whose every random choice follows from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { model: Arc::new(Mutex::new(Model::new(seed))) }
    }

    /// Changes what goes wrong from now on.
    pub fn faults<R>(&self, change: impl FnOnce(&mut Faults) -> R) -> R {
        change(&mut self.lock().faults)
    }

    /// The power goes off and on again: of what was not synced, blocks are kept, lost or torn, names are kept up to
    /// some point; every open handle is dead. Planned failures and a pending power failure are cleared.
    pub fn power_cut(&self) {
        self.lock().power_cut();
    }

    /// The process dies and the machine lives: handles are dead, the page cache keeps everything.
    pub fn kill(&self) {
        self.lock().kill();
    }

    /// Inverts `count` random bits of `range` in a file, on the device and in the cache.
    ///
    /// # Errors
    /// If the file does not exist or ends before `range`.
    pub fn flip_bits(&self, path: &Path, range: Range<u64>, count: usize) -> io::Result<()> {
        self.lock().flip_bits(path, range, count)
    }

    /// Writing operations done so far: the positions that [`Faults::power_fails_in`] counts.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    fn lock(&self) -> MutexGuard<'_, Model> {
        lock(&self.model)
    }

    fn file(&self, path: &Path, create: bool, uncached: bool) -> io::Result<Arc<dyn DiskFile>> {
        let mut model = self.lock();
        let inode = model.open(path, create)?;
        Ok(Arc::new(SimFile { model: self.model.clone(), inode, generation: model.generation, uncached }))
    }
}

fn lock(model: &Mutex<Model>) -> MutexGuard<'_, Model> {
    model.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimDisk").finish_non_exhaustive()
    }
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimFile").field("inode", &self.inode).finish_non_exhaustive()
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        self.file(path, create, false)
    }

    fn open_uncached(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.file(path, false, true)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.lock().name_op(NameOp::Rename { from: from.to_owned(), to: to.to_owned() })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.lock().name_op(NameOp::Remove(path.to_owned()))
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.lock().name_op(NameOp::RemoveAll(path.to_owned()))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.lock().create_dir_all(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.lock().list(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.lock().sync_dir(path)
    }
}

impl SimFile {
    fn with<R>(&self, act: impl FnOnce(&mut Model) -> io::Result<R>) -> io::Result<R> {
        let mut model = lock(&self.model);
        if model.generation != self.generation {
            return Err(io::Error::other("simulated disk: this handle was opened before the power cut or kill"));
        }
        act(&mut model)
    }
}

impl DiskFile for SimFile {
    fn write_all_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        if self.uncached {
            return Err(io::Error::other("simulated disk: this handle is for reading only"));
        }
        self.with(|model| model.write(self.inode, slices, offset))
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.with(|model| model.read(self.inode, buf, offset, self.uncached))
    }

    fn sync(&self) -> io::Result<()> {
        self.with(|model| model.sync(self.inode))
    }

    fn len(&self) -> io::Result<u64> {
        self.with(|model| model.len(self.inode))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(|model| model.set_len(self.inode, len))
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.with(|model| {
            let grown = model.len(self.inode)?.max(len);
            model.set_len(self.inode, grown)
        })
    }
}
