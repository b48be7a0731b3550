//! The real disk: thin wrappers over the operating system's files (Linux, through `rustix`).
//!
//! "Uncached" here means: pages that are clean are dropped from the page cache when the file is opened
//! (`posix_fadvise(DONTNEED)`), so that what is read is what the device holds. `O_DIRECT` is not used, because it
//! needs aligned buffers and is refused by some file systems.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Advice, FallocateFlags};
use rustix::io::Errno;

use super::error::{DiskError, Operation};
use super::{Disk, DiskFile};

/// Slices that one `pwritev` may take (`IOV_MAX` on Linux).
const SLICES_PER_CALL_MAX: usize = 1024;
/// Bytes of zeros written per call where `fallocate` is not supported.
const ZERO_CHUNK_BYTES: usize = 1 << 20;

/// The operating system's file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

/// An open file of the operating system.
#[derive(Debug)]
struct RealFile {
    file: File,
    path: PathBuf,
}

/// Says what failed.
fn named<T>(result: io::Result<T>, operation: Operation, path: &Path) -> io::Result<T> {
    result.map_err(|error| DiskError::wrap(operation, path, error))
}

impl Disk for RealDisk {
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).create(create).truncate(false).open(path);
        let operation = if create { Operation::Create } else { Operation::Open };
        Ok(Arc::new(RealFile { file: named(file, operation, path)?, path: path.to_owned() }))
    }

    fn open_uncached(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = named(File::open(path), Operation::Open, path)?;
        named(rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).map_err(io::Error::from), Operation::Open, path)?;
        Ok(Arc::new(RealFile { file, path: path.to_owned() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        named(fs::rename(from, to), Operation::Rename, from)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        named(fs::remove_file(path), Operation::Remove, path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        named(fs::remove_dir_all(path), Operation::RemoveDir, path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        named(fs::create_dir_all(path), Operation::CreateDir, path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let entries = named(fs::read_dir(path), Operation::List, path)?;
        let paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
        let mut paths = named(paths, Operation::List, path)?;
        paths.sort();
        Ok(paths)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        // A relative path of one component has the parent "": that is the current directory.
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        named(File::open(path).and_then(|dir| dir.sync_all()), Operation::SyncDir, path)
    }
}

impl DiskFile for RealFile {
    fn write_all_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let mut offset = offset;
        for chunk in slices.chunks(SLICES_PER_CALL_MAX) {
            offset += named(write_chunk(&self.file, chunk, offset), Operation::Write, &self.path)?;
        }
        Ok(())
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        named(self.file.read_exact_at(buf, offset), Operation::Read, &self.path)
    }

    fn sync(&self) -> io::Result<()> {
        named(self.file.sync_data(), Operation::Sync, &self.path)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(named(self.file.metadata(), Operation::Length, &self.path)?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        named(self.file.set_len(len), Operation::SetLength, &self.path)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, len) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => zero_tail(self, len),
            Err(error) => named(Err(error.into()), Operation::Allocate, &self.path),
        }
    }
}

/// Writes all of at most [`SLICES_PER_CALL_MAX`] slices; returns their bytes.
fn write_chunk(file: &File, slices: &[IoSlice<'_>], offset: u64) -> io::Result<u64> {
    let total: usize = slices.iter().map(|slice| slice.len()).sum();
    let mut owned: Vec<IoSlice<'_>> = slices.to_vec();
    let mut rest = &mut owned[..];
    let mut written = 0;
    while written < total {
        match rustix::io::pwritev(file, rest, offset + written as u64) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                written += count;
                IoSlice::advance_slices(&mut rest, count);
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(total as u64)
}

/// Extends a file to `len` bytes by writing zeros, where the file system cannot reserve blocks.
fn zero_tail(file: &RealFile, len: u64) -> io::Result<()> {
    let zeros = vec![0; ZERO_CHUNK_BYTES];
    let mut at = file.len()?;
    while at < len {
        let count = zeros.len().min(usize::try_from(len - at).unwrap_or(usize::MAX));
        file.write_all_at(&[IoSlice::new(zeros.get(..count).unwrap_or(&zeros))], at)?;
        at += count as u64;
    }
    Ok(())
}
