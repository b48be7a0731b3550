//! The disk's free space. Below a reserve nothing is produced any more, while everything else goes on: reading, deleting,
//! retention, and the small writes that these and the cluster need. So space can be freed through the node itself.

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use flotilla_broker::{Broker, BrokerOptions, Class, Subject};
use tokio::sync::watch;

use crate::config::{Auto, Config, Size};
use crate::telemetry::metrics::Metrics;
use crate::units::format_size;

const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// The reserve where none is configured: this, or a part of a smaller disk.
const RESERVE_BYTES: u64 = 256 << 20;
const RESERVE_PART: u64 = 20;

/// See the module.
#[derive(Debug)]
pub struct Space {
    data_dir: PathBuf,
    look: fn(&Path) -> io::Result<Disk>,
    reserve: Auto<Size>,
    /// What the journal may take at once.
    journal_file_bytes: u64,
    /// What may still be written before the next look.
    room: AtomicI64,
    /// What was taken, and is not yet proposed.
    claimed: AtomicU64,
    free: AtomicU64,
    /// What producers leave alone.
    left_alone: AtomicU64,
    is_short: AtomicBool,
}

/// Nothing can be produced: too little of the disk is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the node's disk is nearly full ({} are free, and {} must stay so: disk_reserve_bytes, the journal's next file, and what is still to be \
     written): delete topics or records, lower their retention, give the disk more space, or lower journal_bytes",
    about(*free_bytes),
    about(*claimed_bytes)
)]
pub struct DiskFull {
    /// What is free.
    pub free_bytes: u64,
    /// What producers leave alone.
    pub claimed_bytes: u64,
}

impl Space {
    /// Of the disk that holds the data directory; looked at for the first time.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn new(config: &Config, options: &BrokerOptions) -> io::Result<Self> {
        let space = Self {
            data_dir: options.data_dir.clone(),
            look: disk,
            reserve: config.disk_reserve_bytes,
            journal_file_bytes: options.journal.file_bytes,
            room: AtomicI64::new(0),
            claimed: AtomicU64::new(0),
            free: AtomicU64::new(0),
            left_alone: AtomicU64::new(0),
            is_short: AtomicBool::new(false),
        };
        space.found(space.disk(|| 0)?);
        Ok(space)
    }

    /// Takes space for a batch, if there is some; to be kept until the batch is proposed. `unwritten`: bytes in memory that will
    /// be written, whatever happens.
    ///
    /// # Errors
    /// If there is none.
    pub fn take(&self, bytes: usize, unwritten: impl FnOnce() -> u64) -> Result<Claim<'_>, DiskFull> {
        let bytes = bytes as u64;
        if !self.has_room(bytes) {
            // A fast producer fills a small disk between two looks.
            if let Ok(found) = self.disk(unwritten) {
                self.found(found);
            }
            if !self.has_room(bytes) {
                return Err(self.disk_full());
            }
        }
        self.claimed.fetch_add(bytes, Ordering::Relaxed);
        Ok(Claim { space: self, bytes })
    }

    /// Why nothing can be produced, if nothing can.
    fn full(&self) -> Option<DiskFull> {
        self.is_short.load(Ordering::Relaxed).then(|| self.disk_full())
    }

    fn disk_full(&self) -> DiskFull {
        let [free_bytes, claimed_bytes] = [&self.free, &self.left_alone].map(|bytes| bytes.load(Ordering::Relaxed));
        DiskFull { free_bytes, claimed_bytes }
    }

    fn has_room(&self, bytes: u64) -> bool {
        let bytes = i64::try_from(written(bytes)).unwrap_or(i64::MAX);
        let left = self.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |room| Some(room.saturating_sub(bytes)));
        left.is_ok_and(|room| room > 0)
    }

    /// Looks at the disk again and again. Never returns.
    /// What it finds is told as a trouble of the node, and as what keeps it from being ready.
    pub async fn keep(&self, broker: &Broker, metrics: &Metrics, impaired: &watch::Sender<Option<String>>) -> Infallible {
        loop {
            match self.disk(|| broker.unwritten_bytes()) {
                Ok(found) => self.found(found),
                Err(error) => tracing::warn!(%error, "the disk does not say how much of it is free"),
            }
            metrics.disk(self.free.load(Ordering::Relaxed), self.is_short.load(Ordering::Relaxed));
            let full = self.full().map(|full| full.to_string());
            match &full {
                Some(full) => broker.troubles().raise(Subject::Space, Class::Full, Some(&self.data_dir), full.clone()),
                None => broker.troubles().clear(Subject::Space),
            }
            impaired.send_if_modified(|before| std::mem::replace(before, full.clone()).is_some() != full.is_some());
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// What the system says of the disk: a question that no disk is waited for. What will be written comes first: what is
    /// written meanwhile counts twice then, and not never.
    fn disk(&self, unwritten: impl FnOnce() -> u64) -> io::Result<Disk> {
        let unwritten = written(self.claimed.load(Ordering::Relaxed)).saturating_add(unwritten());
        Ok(Disk { unwritten, ..(self.look)(&self.data_dir)? })
    }

    fn found(&self, disk: Disk) {
        let reserve = match self.reserve {
            Auto::Auto => RESERVE_BYTES.min(disk.bytes / RESERVE_PART),
            Auto::Given(reserve) => reserve.0,
        };
        // Without a reserve, the disk itself says when it is full.
        let claimed = if reserve == 0 { 0 } else { reserve + self.journal_file_bytes + disk.unwritten };
        let is_short = reserve > 0 && disk.free <= claimed;
        let room = if reserve == 0 { u64::MAX } else { disk.free.saturating_sub(claimed) };
        self.room.store(i64::try_from(room).unwrap_or(i64::MAX), Ordering::Relaxed);
        self.free.store(disk.free, Ordering::Relaxed);
        self.left_alone.store(claimed, Ordering::Relaxed);
        if self.is_short.swap(is_short, Ordering::Relaxed) != is_short {
            let (free, claimed) = (about(disk.free), about(claimed));
            if is_short {
                tracing::warn!(free, claimed, "the disk is nearly full: nothing is produced here until some of it is free again");
            } else {
                tracing::info!(free, claimed, "there is space on the disk again");
            }
        }
    }
}

/// Space that was taken for a batch.
#[derive(Debug)]
pub struct Claim<'a> {
    space: &'a Space,
    bytes: u64,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.space.claimed.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Bytes as people compare them, in whole MiB.
fn about(bytes: u64) -> String {
    const MIB: u64 = 1 << 20;
    format_size(bytes / MIB * MIB)
}

/// What a payload may take of the disk: the journal, while it grows, and a segment.
fn written(payload: u64) -> u64 {
    payload.saturating_mul(2)
}

/// What the system says of a disk, in bytes.
#[derive(Debug, Clone, Copy)]
struct Disk {
    bytes: u64,
    free: u64,
    /// What will be written, whatever happens.
    unwritten: u64,
}

fn disk(path: &Path) -> io::Result<Disk> {
    let found = rustix::fs::statvfs(path)?;
    Ok(Disk {
        bytes: found.f_blocks.saturating_mul(found.f_frsize),
        free: found.f_bavail.saturating_mul(found.f_frsize),
        unwritten: 0,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    const MIB: u64 = 1 << 20;

    fn space(reserve: Auto<Size>) -> Space {
        Space {
            data_dir: PathBuf::new(),
            look: |_| Ok(Disk { bytes: 1_000 * MIB, free: 196 * MIB, unwritten: 0 }),
            reserve,
            journal_file_bytes: 32 * MIB,
            room: AtomicI64::new(0),
            claimed: AtomicU64::new(0),
            free: AtomicU64::new(0),
            left_alone: AtomicU64::new(0),
            is_short: AtomicBool::new(false),
        }
    }

    /// How many MiB can be taken of a disk, which does not fill up meanwhile.
    fn taken(space: &Space, bytes: u64, free: u64, unwritten: u64) -> u64 {
        space.found(Disk { bytes, free, unwritten });
        (0..10_000).take_while(|_| space.has_room(MIB)).count() as u64
    }

    #[test]
    fn what_is_claimed_is_not_given_to_producers() {
        let given = space(Auto::Given(Size(100 * MIB)));
        assert_eq!(taken(&given, 1_000 * MIB, 500 * MIB, 68 * MIB), 150);
        assert_eq!(taken(&given, 1_000 * MIB, 200 * MIB, 68 * MIB), 0);
        assert_eq!(taken(&given, 1_000 * MIB, 201 * MIB, 68 * MIB), 1, "space has come back");
    }

    #[test]
    fn who_finds_no_room_looks_again_and_what_is_on_its_way_counts() {
        let given = space(Auto::Given(Size(100 * MIB)));
        let claims: Vec<Claim<'_>> = (0..10_000).map_while(|_| given.take(MIB as usize, || 24 * MIB).ok()).collect();
        // Of 196 MiB 100 are reserved, the journal may take 32, and 24 wait.
        assert_eq!(claims.len(), 20);
        assert_eq!(given.take(1, || 24 * MIB).unwrap_err().free_bytes, 196 * MIB);
        drop(claims);
        assert!(given.take(1, || 24 * MIB).is_ok(), "nothing was written after all");
    }

    #[test]
    fn without_a_setting_the_reserve_fits_the_disk() {
        let auto = space(Auto::Auto);
        assert_eq!(taken(&auto, 200 * MIB, 50 * MIB, 0), 4);
        assert_eq!(taken(&auto, 100_000 * MIB, 300 * MIB, 0), 6);
    }

    #[test]
    fn no_reserve_means_none() {
        let none = space(Auto::Given(Size(0)));
        assert_eq!(taken(&none, 200 * MIB, 0, 0), 10_000);
    }

    #[test]
    fn the_system_says_how_large_a_disk_is() {
        let found = disk(Path::new("/")).unwrap();
        assert!(found.bytes >= found.free && found.bytes > MIB);
    }
}
