//! What can go wrong on a simulated disk, by plan or by chance.
//!
//! Any operation of the seam can be made to fail, with any error code, once or for a while:
//!
//! ```
//! use flotilla_raft::disk::error::Operation;
//! use flotilla_raft::disk::sim::{Injection, SimDisk, code};
//!
//! let disk = SimDisk::new(1);
//! // The third read below `groups/` and the one after it cannot be done.
//! disk.inject(Injection::new(Operation::Read, code::EIO).on("/groups/").after(2).times(2));
//! // Two sectors of one file are unreadable, for good.
//! disk.inject(Injection::new(Operation::Read, code::EIO).on("00000001.journal").within(4096..5120).forever());
//! // The next read of the same file gives a wrong bit; the one after it does not.
//! disk.inject(Injection::new(Operation::Read, code::MISREAD).on("00000001.journal"));
//! // Nothing can be opened, created, renamed, …, until the injection is removed.
//! disk.inject(Injection::new(None, code::EMFILE).forever());
//! disk.faults(|faults| faults.injections.clear());
//! ```
//!
//! What fails has not happened, but for a write, of which some blocks may have been written, and a sync, after which nobody
//! knows what was dirty. Injections are of the disk: they outlive kills and power cuts.

use std::ops::Range;
use std::path::Path;

use super::Rng;
use crate::disk::error::Operation;

/// Error codes of Linux, and one of our own.
pub mod code {
    /// No error: of what is read, a bit is wrong.
    pub const MISREAD: i32 = 0;
    /// Interrupted by a signal.
    pub const EINTR: i32 = 4;
    /// The device cannot.
    pub const EIO: i32 = 5;
    /// Not enough memory.
    pub const ENOMEM: i32 = 12;
    /// No right to.
    pub const EACCES: i32 = 13;
    /// Too many open files on the machine.
    pub const ENFILE: i32 = 23;
    /// Too many open files in the process.
    pub const EMFILE: i32 = 24;
    /// The disk is full.
    pub const ENOSPC: i32 = 28;
    /// The file system takes no writes.
    pub const EROFS: i32 = 30;
    /// The quota is used up.
    pub const EDQUOT: i32 = 122;
}

/// An error that operations meet. See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Injection {
    /// Which operation; `None`: any.
    pub operation: Option<Operation>,
    /// A part of the path of the file or directory (of a rename: the old one); empty: any. An open file has the path under
    /// which it was opened.
    pub path_part: String,
    /// Which bytes must be touched, of a read or write.
    pub bytes: Range<u64>,
    /// Operations that match and still go well.
    pub after: u64,
    /// Operations that fail then.
    pub times: u64,
    /// With which code.
    pub code: i32,
}

impl Injection {
    /// The next operation of this kind, whatever the file, fails with `code`.
    #[must_use]
    pub fn new(operation: impl Into<Option<Operation>>, code: i32) -> Self {
        Self { operation: operation.into(), path_part: String::new(), bytes: 0..u64::MAX, after: 0, times: 1, code }
    }

    /// Only where the path contains `path_part`.
    #[must_use]
    pub fn on(mut self, path_part: impl Into<String>) -> Self {
        self.path_part = path_part.into();
        self
    }

    /// Only reads and writes that touch these bytes.
    #[must_use]
    pub fn within(mut self, bytes: Range<u64>) -> Self {
        self.bytes = bytes;
        self
    }

    /// So many that match go well first.
    #[must_use]
    pub fn after(mut self, operations: u64) -> Self {
        self.after = operations;
        self
    }

    /// So many fail.
    #[must_use]
    pub fn times(mut self, times: u64) -> Self {
        self.times = times;
        self
    }

    /// All fail, until the injection is removed.
    #[must_use]
    pub fn forever(self) -> Self {
        self.times(u64::MAX)
    }

    fn matches(&self, operation: Operation, path: &Path, bytes: &Range<u64>) -> bool {
        self.operation.is_none_or(|wanted| wanted == operation)
            && (self.path_part.is_empty() || path.to_string_lossy().contains(&self.path_part))
            && bytes.start < self.bytes.end
            && self.bytes.start < bytes.end
    }
}

/// The switches of a [`SimDisk`](super::SimDisk). Counts are of the operations still to come: `Some(0)` is the next one.
#[derive(Debug, Clone)]
pub struct Faults {
    /// The sync that fails.
    pub sync_fails_in: Option<u64>,
    /// The write that fails with an I/O error, some of its blocks written.
    pub write_fails_in: Option<u64>,
    /// The writing operation (write, sync, length, name) during which the power fails: it may have happened in
    /// part, and everything fails until [`SimDisk::power_cut`](super::SimDisk::power_cut).
    pub power_fails_in: Option<u64>,
    /// Chance that any sync fails.
    pub sync_fails_ppm: u32,
    /// Chance that any write fails.
    pub write_fails_ppm: u32,
    /// Chance, per write, that the kernel writes each dirty block of the file back on its own.
    pub writeback_ppm: u32,
    /// Bytes that all files may have together; growing past them fails with `StorageFull`.
    pub capacity_bytes: u64,
    /// Syncs return without doing anything: used to prove that a test notices.
    pub lying_sync: bool,
    /// Errors that operations meet; the first that matches counts. See [`SimDisk::inject`](super::SimDisk::inject).
    pub injections: Vec<Injection>,
    /// Operations that have met one so far.
    pub injected: u64,
    /// The write or sync that is just being done fails.
    pub(super) fails_now: bool,
    /// The read that is just being done gives a wrong bit.
    pub(super) misreads_now: bool,
    /// The power has failed and `power_cut` was not called yet.
    pub(super) powered_off: bool,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            sync_fails_in: None,
            write_fails_in: None,
            power_fails_in: None,
            sync_fails_ppm: 0,
            write_fails_ppm: 0,
            writeback_ppm: 50_000,
            capacity_bytes: u64::MAX,
            lying_sync: false,
            injections: Vec::new(),
            injected: 0,
            fails_now: false,
            misreads_now: false,
            powered_off: false,
        }
    }
}

impl Faults {
    /// Whether the power has failed, as planned, and everything fails until it is cut and comes back.
    #[must_use]
    pub fn power_is_off(&self) -> bool {
        self.powered_off
    }

    /// The error that this operation meets, if one was injected.
    pub(super) fn injected(&mut self, operation: Operation, path: &Path, bytes: &Range<u64>) -> Option<i32> {
        let found = self.injections.iter_mut().find(|injection| injection.matches(operation, path, bytes))?;
        if found.after > 0 {
            found.after -= 1;
            return None;
        }
        let code = found.code;
        if found.times != u64::MAX {
            found.times = found.times.saturating_sub(1);
        }
        self.injections.retain(|injection| injection.times > 0);
        self.injected += 1;
        Some(code)
    }

    /// Clears what was planned; chances, capacity, injections and the lying sync stay.
    pub(super) fn clear_plan(&mut self) {
        self.sync_fails_in = None;
        self.write_fails_in = None;
        self.power_fails_in = None;
        self.powered_off = false;
    }

    pub(super) fn sync_fails(&mut self, rng: &mut Rng) -> bool {
        self.fails_now || count_down(&mut self.sync_fails_in) || rng.chance_ppm(self.sync_fails_ppm)
    }

    pub(super) fn write_fails(&mut self, rng: &mut Rng) -> bool {
        self.fails_now || count_down(&mut self.write_fails_in) || rng.chance_ppm(self.write_fails_ppm)
    }

    pub(super) fn power_fails(&mut self) -> bool {
        self.powered_off |= count_down(&mut self.power_fails_in);
        self.powered_off
    }
}

/// Counts a plan down by one operation; true when its turn has come.
fn count_down(plan: &mut Option<u64>) -> bool {
    match plan.take() {
        None => false,
        Some(0) => true,
        Some(left) => {
            *plan = Some(left - 1);
            false
        }
    }
}
