//! A replica that began to copy a group in a version that knew no replica ids, until it has what was committed when it came.
//!
//! Such a node may have had a replica before, whose data was deleted when that was moved away, or was damaged; and both were called as
//! the node. Then the log that it copies tells of a time when it voted, and in the middle of the copy it would take that time for
//! the present. So it neither campaigns nor votes before it has reached the index that was committed when its leader first spoke
//! to it. What makes it a voter again lies behind that. The index is in a file before any entry is in the log, so that a crash changes
//! nothing. A replica with an id of its own needs none of this, and no file is begun any more: its log tells of it from the entry on
//! by which it came.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::disk::Disk;
use crate::driver::Driver;
use crate::types::GroupId;

/// It waits for nothing.
const OVER: u64 = 0;
/// No leader has spoken to it yet.
const UNKNOWN: u64 = u64::MAX;
/// The index and its checksum, big endian. A file that is shorter, or does not fit together, says nothing.
const FILE_BYTES: usize = 12;

/// See the module.
#[derive(Debug)]
pub(crate) struct Joining {
    disk: Arc<dyn Disk>,
    file: PathBuf,
    driver: Driver,
    /// Where the copy must have come to.
    target: AtomicU64,
}

fn file_of(groups_dir: &Path, group: GroupId) -> PathBuf {
    groups_dir.join(format!("joining.{group}"))
}

impl Joining {
    /// Notes durably that the group is to be copied, as the version before did. Blocks.
    #[cfg(test)]
    pub(crate) fn begin(disk: &dyn Disk, groups_dir: &Path, group: GroupId) -> io::Result<()> {
        disk.create_dir_all(groups_dir)?;
        let file = disk.open(&file_of(groups_dir, group), true)?;
        file.set_len(0)?;
        file.sync()?;
        disk.sync_dir(groups_dir)
    }

    /// The group is not copied, or gone. Blocks.
    pub(crate) fn forget(disk: &dyn Disk, groups_dir: &Path, group: GroupId) -> io::Result<()> {
        match disk.remove(&file_of(groups_dir, group)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => disk.sync_dir(groups_dir),
        }
    }

    /// What is noted about a group. Blocks.
    pub(crate) fn open(disk: Arc<dyn Disk>, groups_dir: &Path, group: GroupId, driver: Driver) -> io::Result<Self> {
        let file = file_of(groups_dir, group);
        let target = match disk.open(&file, false) {
            Ok(found) => {
                let mut bytes = [0; FILE_BYTES];
                match found.read_exact_at(&mut bytes, 0) {
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => UNKNOWN,
                    read => read.map(|()| decode(bytes).unwrap_or(UNKNOWN))?,
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => OVER,
            Err(error) => return Err(error),
        };
        Ok(Self { disk, file, driver, target: AtomicU64::new(target) })
    }

    /// Whether a log that ends at `last` (an index) may take part in elections.
    pub(crate) fn is_over(&self, last: Option<u64>) -> bool {
        let target = self.target.load(Ordering::Acquire);
        target == OVER || last.is_some_and(|last| last >= target)
    }

    /// A leader says what is committed. To be awaited before anything of what it sends is taken.
    pub(crate) async fn hear(&self, committed: Option<u64>) {
        let Some(committed) = committed.filter(|_| self.target.load(Ordering::Acquire) == UNKNOWN) else { return };
        let (disk, path) = (self.disk.clone(), self.file.clone());
        let written = self.driver.try_run(move || {
            let file = disk.open(&path, true)?;
            file.write_all_at(&[IoSlice::new(&encode(committed))], 0)?;
            file.sync()
        });
        match written.await {
            Ok(()) => drop(self.target.compare_exchange(UNKNOWN, committed, Ordering::AcqRel, Ordering::Acquire)),
            // It goes on as one that does not vote.
            Err(error) => tracing::warn!(file = %self.file.display(), %error, "how far the copy must come was not noted"),
        }
    }
}

fn encode(index: u64) -> [u8; FILE_BYTES] {
    let mut bytes = [0; FILE_BYTES];
    let (number, checksum) = bytes.split_at_mut(8);
    number.copy_from_slice(&index.to_be_bytes());
    checksum.copy_from_slice(&crc32c::crc32c(&index.to_be_bytes()).to_be_bytes());
    bytes
}

fn decode(bytes: [u8; FILE_BYTES]) -> Option<u64> {
    let index = bytes.first_chunk().copied().map(u64::from_be_bytes)?;
    (encode(index) == bytes).then_some(index)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;
    use crate::disk::sim::SimDisk;

    const GROUP: GroupId = GroupId(5);
    const DIR: &str = "/data/groups";

    fn open(disk: &Arc<SimDisk>) -> Joining {
        Joining::open(disk.clone(), Path::new(DIR), GROUP, Driver::Threads).unwrap()
    }

    #[tokio::test]
    async fn who_joins_waits_for_what_was_committed_when_it_came_also_after_a_power_cut() {
        let disk = Arc::new(SimDisk::new(1));
        assert!(open(&disk).is_over(None), "nobody said that it joins");
        Joining::begin(&*disk, Path::new(DIR), GROUP).unwrap();
        disk.power_cut();
        let joining = open(&disk);
        joining.hear(None).await;
        assert!(!joining.is_over(None) && !joining.is_over(Some(1_000)), "nothing is known yet");
        joining.hear(Some(7)).await;
        joining.hear(Some(9)).await;
        for joining in [joining, {
            disk.power_cut();
            open(&disk)
        }] {
            assert!(!joining.is_over(None) && !joining.is_over(Some(6)));
            assert!(joining.is_over(Some(7)));
        }
        Joining::begin(&*disk, Path::new(DIR), GROUP).unwrap();
        assert!(!open(&disk).is_over(Some(7)), "it begins anew");
        Joining::forget(&*disk, Path::new(DIR), GROUP).unwrap();
        Joining::forget(&*disk, Path::new(DIR), GROUP).unwrap();
        assert!(open(&disk).is_over(None));
    }
}
