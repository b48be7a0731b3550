//! What a group's log holds, for those who compare replicas: where its entries stand, and a checksum of each.

use std::io;

use openraft::async_runtime::WatchReceiver as _;

use crate::group::Group;
use crate::log::convert::log_id_from_raft;
use crate::types::{Body, Entry, LogId};

/// An entry of a log, without what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint {
    /// Where it stands.
    pub log_id: LogId,
    /// crc32c of what it holds.
    pub checksum: u32,
}

/// How far a replica's log reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Extent {
    /// The last entry of its log, be it committed or not.
    pub last: Option<LogId>,
    /// The last entry that it has applied.
    pub applied: Option<LogId>,
    /// The last entry that it has let go of: what is behind it can be read.
    pub purged: Option<LogId>,
}

impl Group {
    /// How far this replica is.
    #[must_use]
    pub fn extent(&self) -> Extent {
        let applied = self.raft().metrics().borrow_watched().last_applied.as_ref().map(log_id_from_raft);
        Extent { last: self.log().last(), applied, purged: self.log().purged() }
    }

    /// The entries of its log from index `from` up to `to`, as many as one read gives: none where there are none. Blocks
    /// where they are not in memory any more.
    ///
    /// # Errors
    /// If they are gone, damaged or cannot be read.
    pub fn fingerprints(&self, from: u64, to: u64) -> io::Result<Vec<Fingerprint>> {
        let entries = self.log().entries(from, to).map_err(io::Error::other)?;
        Ok(entries.iter().map(fingerprint).collect())
    }
}

fn fingerprint(entry: &Entry) -> Fingerprint {
    let checksum = match &entry.body {
        Body::Items(items) => items.iter().fold(1, |checksum, item| {
            let head = [u64::from(item.kind).to_le_bytes(), (item.payload.len() as u64).to_le_bytes()].concat();
            crc32c::crc32c_append(crc32c::crc32c_append(checksum, &head), &item.payload)
        }),
        other => crc32c::crc32c(format!("{other:?}").as_bytes()),
    };
    Fingerprint { log_id: entry.log_id, checksum }
}
