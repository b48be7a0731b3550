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
struct RealFile(File);

/// Puts the operation and the path in front of an error that names neither.
fn named<T>(result: io::Result<T>, operation: &str, path: &Path) -> io::Result<T> {
    result.map_err(|error| io::Error::new(error.kind(), format!("cannot {operation} {}: {error}", path.display())))
}

impl Disk for RealDisk {
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).create(create).truncate(false).open(path);
        Ok(Arc::new(RealFile(named(file, "open", path)?)))
    }

    fn open_uncached(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = named(File::open(path), "open", path)?;
        rustix::fs::fadvise(&file, 0, None, Advice::DontNeed)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        named(fs::rename(from, to), "rename", from)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        named(fs::remove_file(path), "remove", path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        named(fs::remove_dir_all(path), "remove the directory", path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        named(fs::create_dir_all(path), "create the directory", path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let entries = named(fs::read_dir(path), "list", path)?;
        let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
        paths.sort();
        Ok(paths)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        // A relative path of one component has the parent "": that is the current directory.
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        named(File::open(path).and_then(|dir| dir.sync_all()), "sync the directory", path)
    }
}

impl DiskFile for RealFile {
    fn write_all_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let mut offset = offset;
        for chunk in slices.chunks(SLICES_PER_CALL_MAX) {
            offset += write_chunk(&self.0, chunk, offset)?;
        }
        Ok(())
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.0, FallocateFlags::empty(), 0, len) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => zero_tail(self, len),
            Err(error) => Err(error.into()),
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
