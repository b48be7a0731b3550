//! How far a group's time goes with one stamp: a pure function of where it stands and of what its leader believes.

use flotilla_machines::time::{MachineTime, OLDER_STAMP_MS_MAX};

use super::CATCH_UP_RATE;
use super::agreement::{AGREE_MS_MAX, Reading};

/// Where a group's time stands on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamped {
    /// Its machine's proven time.
    pub now_ms: i64,
    /// How long ago that was applied, by the monotonic clock.
    pub ago_ms: i64,
}

/// The stamp that a leader would put before an entry now.
pub(crate) fn next_stamp(stamped: Stamped, reading: Reading) -> MachineTime {
    let now_ms = match reading.proven_ms {
        // Nothing is there yet that could be lost.
        proven_ms if stamped.now_ms <= 0 => proven_ms.unwrap_or(reading.likely_ms),
        Some(proven_ms) => towards(proven_ms, stamped),
        None => by_itself(stamped, reading.likely_ms),
    };
    let now_ms = now_ms.max(1);
    MachineTime { now_ms, dated_ms: reading.likely_ms.max(now_ms) }
}

fn towards(proven_ms: i64, stamped: Stamped) -> i64 {
    let reach_ms = stamped.ago_ms.max(0).saturating_mul(CATCH_UP_RATE);
    let behind_ms = proven_ms.saturating_sub(stamped.now_ms);
    if (-OLDER_STAMP_MS_MAX..=0).contains(&behind_ms) {
        // It waits until time has come so far.
        return stamped.now_ms;
    }
    stamped.now_ms.saturating_add(behind_ms.clamp(-reach_ms, reach_ms))
}

/// Nobody knows better: time goes on as it did, with the clock if it does so, too.
fn by_itself(stamped: Stamped, clock_ms: i64) -> i64 {
    let passed_ms = stamped.now_ms.saturating_add(stamped.ago_ms.max(0));
    if clock_ms.abs_diff(passed_ms) <= AGREE_MS_MAX.unsigned_abs() { clock_ms.max(stamped.now_ms) } else { passed_ms }
}

#[cfg(test)]
#[path = "stamp_tests.rs"]
mod tests;
