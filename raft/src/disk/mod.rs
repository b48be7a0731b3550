//! The disk seam: the few file operations that journal and segments use, so that the same code runs on a real
//! disk ([`RealDisk`](real::RealDisk)) and on a simulated one that loses, tears, reorders, delays and corrupts
//! what was not synced ([`SimDisk`](sim::SimDisk)).
//!
//! What fails says what failed on which file, and [`error`] knows what to think of it; [`PatientDisk`](patient::PatientDisk) tries
//! again what may pass.
//!
//! All calls block; they are made from writer and flusher threads (or a simulation), never from async tasks.

#[cfg(test)]
mod contract;
pub mod error;
pub mod patient;
pub mod real;
pub mod sim;

use std::fmt;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file system, as far as we need one. Paths are absolute or relative to the process.
pub trait Disk: Send + Sync + fmt::Debug + 'static {
    /// Opens `path` for reading and writing; creates it empty if `create` is set and it is missing.
    /// A created file survives a power cut only after [`Disk::sync_dir`] on its directory.
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens `path` for reading only, past the page cache where the platform can.
    fn open_uncached(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Atomically replaces `to` by `from`. Durable only after [`Disk::sync_dir`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file. Open handles stay readable.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory and everything below it.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Creates a directory and its parents.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// The entries of a directory, sorted by name.
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>>;
    /// Makes creations, renames and removals inside `path` durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
}

/// An open file. Reads and writes name their position; there is no cursor. Shared between threads.
pub trait DiskFile: Send + Sync + fmt::Debug {
    /// Writes all of `slices`, one behind the other, from byte `offset` on.
    fn write_all_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<()>;
    /// Reads exactly `buf.len()` bytes from byte `offset` on; `UnexpectedEof` behind the end.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    /// Makes everything written so far durable (`fdatasync`). After an error nothing unsynced may be trusted again.
    fn sync(&self) -> io::Result<()>;
    /// Current length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file holds no byte.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Cuts or extends (with zeros) to `len` bytes.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Reserves blocks for `len` bytes and sets the length, so that later writes below it need no allocation.
    fn allocate(&self, len: u64) -> io::Result<()>;
}
