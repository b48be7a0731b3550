//! A simulated disk, deterministic from its seed: it forgets what was not synced when the power is cut, keeps some
//! of it, tears blocks at sector boundaries, and fails on demand.
//!
//! What it models: a page cache of 4 KiB blocks over a device with atomic 512-byte sectors; the kernel writing
//! dirty blocks back whenever it likes; names (create, rename, remove, directories) that reach the device in order,
//! on their own or at the latest with `sync_dir`; a failed sync that forgets which blocks were dirty, as Linux
//! does. `rng.rs` holds the random numbers, `model.rs` the device and its cache, `fault.rs` what can go wrong: see there for how
//! to make any operation fail ([`SimDisk::inject`]).

#![allow(clippy::indexing_slicing, reason = "an index out of range is a bug of the simulation and shall be loud")]

mod fault;
mod model;
mod rng;

use std::fmt;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use fault::{Faults, Injection, code};
pub use rng::Rng;

use super::error::{DiskError, Operation};
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
    path: PathBuf,
    generation: u64,
    uncached: bool,
}

/// Bytes that are touched by what touches none in particular: any.
const ANY_BYTES: Range<u64> = 0..u64::MAX;

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

    /// Makes operations fail: see [`fault`](Injection).
    pub fn inject(&self, injection: Injection) {
        self.faults(|faults| faults.injections.push(injection));
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
        let operation = if create { Operation::Create } else { Operation::Open };
        let (inode, generation) = self.act(operation, path, |model| Ok((model.open(path, create)?, model.generation)))?;
        Ok(Arc::new(SimFile { model: self.model.clone(), inode, path: path.to_owned(), generation, uncached }))
    }

    fn act<R>(&self, operation: Operation, path: &Path, act: impl FnOnce(&mut Model) -> io::Result<R>) -> io::Result<R> {
        doing(&mut self.lock(), operation, path, &ANY_BYTES, act)
    }
}

/// Does something on the disk, unless that is to fail.
fn doing<R>(
    model: &mut Model,
    operation: Operation,
    path: &Path,
    bytes: &Range<u64>,
    act: impl FnOnce(&mut Model) -> io::Result<R>,
) -> io::Result<R> {
    let injected = if model.faults.power_is_off() { None } else { model.faults.injected(operation, path, bytes) };
    let done = match injected {
        None => act(model),
        Some(code::MISREAD) => {
            model.faults.misreads_now = operation == Operation::Read;
            act(model)
        }
        Some(code) => {
            if matches!(operation, Operation::Write | Operation::Sync) && code != code::EINTR {
                model.faults.fails_now = true;
                drop(act(model));
                model.faults.fails_now = false;
            }
            Err(io::Error::from_raw_os_error(code))
        }
    };
    done.map_err(|error| DiskError::wrap(operation, path, error))
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
        let op = NameOp::Rename { from: from.to_owned(), to: to.to_owned() };
        self.act(Operation::Rename, from, |model| model.name_op(op))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.act(Operation::Remove, path, |model| model.name_op(NameOp::Remove(path.to_owned())))
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.act(Operation::RemoveDir, path, |model| model.name_op(NameOp::RemoveAll(path.to_owned())))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.act(Operation::CreateDir, path, |model| model.create_dir_all(path))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.act(Operation::List, path, |model| model.list(path))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.act(Operation::SyncDir, path, |model| model.sync_dir(path))
    }
}

impl SimFile {
    fn act<R>(&self, operation: Operation, bytes: &Range<u64>, act: impl FnOnce(&mut Model) -> io::Result<R>) -> io::Result<R> {
        let mut model = lock(&self.model);
        if model.generation != self.generation {
            return Err(io::Error::other("simulated disk: this handle was opened before the power cut or kill"));
        }
        doing(&mut model, operation, &self.path, bytes, act)
    }
}

impl DiskFile for SimFile {
    fn write_all_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        if self.uncached {
            return Err(io::Error::other("simulated disk: this handle is for reading only"));
        }
        let bytes: u64 = slices.iter().map(|slice| slice.len() as u64).sum();
        self.act(Operation::Write, &(offset..offset + bytes), |model| model.write(self.inode, slices, offset))
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let bytes = offset..offset.saturating_add(buf.len() as u64);
        self.act(Operation::Read, &bytes, |model| {
            let misread = std::mem::take(&mut model.faults.misreads_now);
            model.read(self.inode, buf, offset, self.uncached)?;
            if let Some(byte) = buf.first_mut().filter(|_| misread) {
                *byte ^= 1;
            }
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.act(Operation::Sync, &ANY_BYTES, |model| model.sync(self.inode))
    }

    fn len(&self) -> io::Result<u64> {
        self.act(Operation::Length, &ANY_BYTES, |model| model.len(self.inode))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.act(Operation::SetLength, &ANY_BYTES, |model| model.set_len(self.inode, len))
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.act(Operation::Allocate, &ANY_BYTES, |model| {
            let grown = model.len(self.inode)?.max(len);
            model.set_len(self.inode, grown)
        })
    }
}
