//! A disk that tries again what may pass: an interruption, too few descriptors, too little memory, a first unreadable read.
//! What it hands on has failed [`ATTEMPTS`] times, or must not be tried again: see [`error`](super::error).
//!
//! A failed write or sync is never tried again, unless it was interrupted: the page cache may have dropped what it held.

use std::fmt;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::error::{ATTEMPTS, DiskError};
use super::{Disk, DiskFile};
use crate::driver::Driver;
use crate::troubles::Troubles;

/// Before the second attempt; each later pause is [`PAUSE_FACTOR`] times as long, 1.7 s all together.
const PAUSE_FIRST: Duration = Duration::from_millis(5);
const PAUSE_FACTOR: u32 = 4;

/// See the module.
#[derive(Debug)]
pub struct PatientDisk {
    disk: Arc<dyn Disk>,
    patience: Patience,
}

#[derive(Debug)]
struct PatientFile {
    file: Arc<dyn DiskFile>,
    patience: Patience,
}

/// Waits between attempts, and counts what has passed.
#[derive(Clone)]
pub(crate) struct Patience {
    pause: fn(Duration),
    troubles: Troubles,
}

impl PatientDisk {
    /// One over `disk`. Where `driver` is a simulation's, there are no pauses: its disk answers without waiting.
    #[must_use]
    pub fn new(disk: Arc<dyn Disk>, driver: &Driver, troubles: Troubles) -> Self {
        Self { disk, patience: Patience::new(driver, troubles) }
    }

    fn file(&self, open: impl FnMut() -> io::Result<Arc<dyn DiskFile>>) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.patience.again(open)?;
        Ok(Arc::new(PatientFile { file, patience: self.patience.clone() }))
    }
}

impl Patience {
    pub(crate) fn new(driver: &Driver, troubles: Troubles) -> Self {
        let pause = match driver {
            Driver::Threads => std::thread::sleep,
            Driver::Tasks(_) => |_| {},
        };
        Self { pause, troubles }
    }

    /// Does `what` until it works, or fails for what does not pass.
    fn again<T>(&self, mut what: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        let mut pause = PAUSE_FIRST;
        let mut met = None;
        for attempts in 1.. {
            let mut error = match (what(), met) {
                (Ok(done), None) => return Ok(done),
                (Ok(done), Some(error)) => {
                    self.troubles.passed(&error, attempts);
                    return Ok(done);
                }
                (Err(error), _) => error,
            };
            let Some(failed) = DiskError::inside_mut(&mut error) else { return Err(error) };
            failed.attempts = attempts;
            if !failed.may_pass() || attempts >= ATTEMPTS {
                return Err(error);
            }
            met = Some(error);
            (self.pause)(pause);
            pause *= PAUSE_FACTOR;
        }
        what()
    }
}

impl Disk for PatientDisk {
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        self.file(|| self.disk.open(path, create))
    }

    fn open_uncached(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.file(|| self.disk.open_uncached(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.patience.again(|| self.disk.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.patience.again(|| self.disk.remove(path))
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.patience.again(|| self.disk.remove_dir_all(path))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.patience.again(|| self.disk.create_dir_all(path))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.patience.again(|| self.disk.list(path))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.patience.again(|| self.disk.sync_dir(path))
    }
}

impl DiskFile for PatientFile {
    fn write_all_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.patience.again(|| self.file.write_all_at(slices, offset))
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.patience.again(|| self.file.read_exact_at(buf, offset))
    }

    fn sync(&self) -> io::Result<()> {
        self.patience.again(|| self.file.sync())
    }

    fn len(&self) -> io::Result<u64> {
        self.patience.again(|| self.file.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.patience.again(|| self.file.set_len(len))
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.patience.again(|| self.file.allocate(len))
    }
}

impl fmt::Debug for Patience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Patience")
    }
}
