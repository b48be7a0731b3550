//! What a machine knows of the time. It reads no clock: its leader stamps entries with what it knows.
//!
//! There are two times. What is *proven*, by most clocks of the cluster, decides what is too old and may be forgotten or
//! deleted. What is *likeliest*, which is never earlier, dates what happens. So whatever a single clock says, things live
//! too long rather than too short.

use bytes::Bytes;
use flotilla_proto::internal::v1;
use prost::Message;

use crate::item::Malformed;

/// Leaders' stamps differ a little, so an older one than the last leaves machine time as it is. One that is older by more
/// than this many milliseconds takes it back: most clocks of the cluster say that it was wrong.
pub const OLDER_STAMP_MS_MAX: i64 = 60 * 1000;

/// See the module. Milliseconds since the Unix epoch; 0 before the first stamp.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MachineTime {
    /// Proven: what is too old by it may be given up.
    pub now_ms: i64,
    /// The likeliest, never before `now_ms`: what happens is dated by it.
    pub dated_ms: i64,
}

impl MachineTime {
    pub(crate) fn stamp(&mut self, stamp: &v1::Stamp) {
        self.now_ms = later(self.now_ms, stamp.now_ms);
        self.dated_ms = later(self.dated_ms, stamp.dated_ms).max(self.now_ms);
    }

    /// A stamp of earlier versions.
    pub(crate) fn clock(&mut self, leader_ms: i64) {
        self.now_ms = self.now_ms.max(leader_ms);
        self.dated_ms = self.dated_ms.max(self.now_ms);
    }
}

/// Where a time goes that is stamped with `stamp_ms`.
pub(crate) fn later(now_ms: i64, stamp_ms: i64) -> i64 {
    let taken_back = now_ms.saturating_sub(stamp_ms) > OLDER_STAMP_MS_MAX;
    if stamp_ms > now_ms || taken_back { stamp_ms } else { now_ms }
}

pub(crate) fn parse(payload: &Bytes) -> Result<v1::Stamp, Malformed> {
    let stamp = v1::Stamp::decode(payload.clone()).map_err(Malformed::Stamp)?;
    if stamp.now_ms <= 0 {
        return Err(Malformed::Missing { field: "time" });
    }
    Ok(stamp)
}
