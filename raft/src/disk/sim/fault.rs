//! What can go wrong on a simulated disk, by plan or by chance.

use super::Rng;

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

    /// Clears what was planned; chances, capacity and the lying sync stay.
    pub(super) fn clear_plan(&mut self) {
        self.sync_fails_in = None;
        self.write_fails_in = None;
        self.power_fails_in = None;
        self.powered_off = false;
    }

    pub(super) fn sync_fails(&mut self, rng: &mut Rng) -> bool {
        count_down(&mut self.sync_fails_in) || rng.chance_ppm(self.sync_fails_ppm)
    }

    pub(super) fn write_fails(&mut self, rng: &mut Rng) -> bool {
        count_down(&mut self.write_fails_in) || rng.chance_ppm(self.write_fails_ppm)
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
