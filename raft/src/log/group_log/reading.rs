//! Reading a group's log: from memory where it is recent, else from segments; and the damage that is met there.

use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;

use tokio::sync::watch;

use super::GroupLog;
use crate::disk::error::Class;
use crate::segments::{SegmentError, StoredItem};
use crate::state::WriteBatch;
use crate::state::keys::GroupKeys;
use crate::troubles::Subject;
use crate::types::Entry;

/// Most payload bytes that one read of the log returns to openraft.
const READ_BYTES_MAX: usize = 4 << 20;

impl GroupLog {
    /// What is read at once is what a follower is to append at once. It says nothing before all of that is durable, and what it
    /// has not said it does not apply: more than its ring of journal files holds would wait for room that only applying makes.
    fn read_bytes_max(&self) -> usize {
        READ_BYTES_MAX.min(self.journal.append_bytes_max())
    }

    /// Entries from `from` up to, not including, `to`, from memory; stops early at a size, but returns at least one
    /// where there is one. `None`: older than that, ask [`GroupLog::entries`].
    pub(crate) fn tail_entries(&self, from: u64, to: u64) -> Option<Vec<Entry>> {
        let inner = self.lock();
        (from >= inner.tail.first_index()).then(|| inner.tail.range(from, to, self.read_bytes_max()))
    }

    /// The same from memory or segments. Blocks.
    pub(crate) fn entries(&self, from: u64, to: u64) -> Result<Vec<Entry>, SegmentError> {
        match self.tail_entries(from, to) {
            Some(entries) => Ok(entries),
            None => self.noting_damage(self.reader().entries(from, to, self.read_bytes_max())),
        }
    }

    /// Remembers the damage that a read met.
    pub(crate) fn noting_damage<T>(&self, read: Result<T, SegmentError>) -> Result<T, SegmentError> {
        if let Err(SegmentError::Damaged(damage)) = &read {
            self.note_damage(Some(&damage.file), damage.to_string());
        }
        read
    }

    fn note_damage(&self, file: Option<&Path>, damage: String) {
        self.lives.troubles().raise(Subject::Group(self.group), Class::Damage, file, damage.clone());
        self.damage.send_if_modified(|noted| {
            let first = noted.is_none();
            noted.get_or_insert(damage);
            first
        });
    }

    /// What this replica has applied is not what its group has: it counts as damaged from now on, after a restart, too.
    pub(crate) async fn condemn(&self, reason: String) {
        if self.is_condemned() {
            return;
        }
        let (state, key) = (self.lives.state().clone(), GroupKeys::new(self.group, self.incarnation()).condemned());
        let row = reason.clone();
        let note = move || {
            let mut batch = WriteBatch::default();
            batch.put(key, row);
            state.write(batch)?;
            state.flush()
        };
        let noted = self.lives.driver().try_run(move || note().map_err(io::Error::other)).await;
        match noted {
            Ok(()) => self.condemned.store(true, Ordering::SeqCst),
            Err(error) => tracing::error!(group = %self.group, %error, "a restart will not know that the replica is condemned"),
        }
        self.note_damage(None, reason);
    }

    /// Whether a start from the disk would find this replica condemned.
    pub(crate) fn is_condemned(&self) -> bool {
        self.condemned.load(Ordering::SeqCst)
    }

    /// The damage that reads have met, the first of it; watched.
    pub(crate) fn damage(&self) -> watch::Receiver<Option<String>> {
        self.damage.subscribe()
    }

    /// Index of the first entry that is in memory, or of the next one to come.
    pub(crate) fn tail_first_index(&self) -> u64 {
        self.lock().tail.first_index()
    }

    /// Kept items from the one that contains `offset` on, from memory. `None`: older than that, ask the segments.
    pub(crate) fn read_tail(&self, offset: u64, bytes_max: usize) -> Option<Vec<StoredItem>> {
        self.lock().tail.read(offset, bytes_max)
    }

    /// The first kept item in memory that reaches behind `from` and whose largest timestamp is `timestamp_ms` or later.
    pub(crate) fn find_timestamp_in_tail(&self, timestamp_ms: i64, from: u64) -> Option<StoredItem> {
        self.lock().tail.find_timestamp(timestamp_ms, from)
    }

    /// Largest timestamp of what is kept in memory or in the open segment, in milliseconds since the Unix epoch.
    pub(crate) fn newest_open_timestamp_ms(&self) -> Option<i64> {
        let in_tail = self.lock().tail.newest_timestamp_ms();
        let open = self.reader().segments().last().filter(|segment| !segment.closed).and_then(|open| open.max_timestamp_ms);
        in_tail.max(open)
    }
}
