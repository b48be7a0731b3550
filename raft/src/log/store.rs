//! openraft's log store and log reader over a [`GroupLog`].

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};

use super::convert::{entry_from_raft, entry_to_raft, log_id_from_raft, log_id_to_raft, vote_from_raft, vote_to_raft};
use super::group_log::GroupLog;
use super::type_config::{RaftEntry, RaftLogId, RaftVote, TypeConfig};
use crate::planted::{Bug, is_planted};
use crate::types::LogId;

/// See the module. A cheap handle; all clones see the same log.
#[derive(Clone)]
pub(crate) struct LogStore {
    log: Arc<GroupLog>,
}

impl LogStore {
    pub(crate) fn new(log: Arc<GroupLog>) -> Self {
        Self { log }
    }

    /// Reads off the async threads where the disk may be touched.
    async fn read(&self, from: u64, to: u64) -> io::Result<Vec<RaftEntry>> {
        if from >= to {
            return Ok(Vec::new());
        }
        let entries = match self.log.tail_entries(from, to) {
            Some(entries) => entries,
            None => {
                let log = self.log.clone();
                let driver = self.log.lives().driver();
                driver.try_run(move || log.entries(from, to).map_err(io::Error::other)).await?
            }
        };
        entries.iter().map(entry_to_raft).collect()
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<RaftEntry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let from = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => *index + 1,
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(index) => *index + 1,
            Bound::Excluded(index) => *index,
            Bound::Unbounded => u64::MAX,
        };
        // One storage read stops at a size; this call must return the whole range.
        let to = to.min(self.log.last().map_or(0, |last| last.index + 1));
        let mut from = from.max(self.log.purged().map_or(0, |purged| purged.index + 1));
        let mut all = Vec::new();
        while from < to {
            let some = self.read(from, to).await?;
            let Some(last) = some.last() else {
                return Err(io::Error::other(format!("log entry {from} is missing in group {}", self.log.group())));
            };
            from = last.log_id.index + 1;
            all.extend(some);
        }
        Ok(all)
    }

    async fn read_vote(&mut self) -> io::Result<Option<RaftVote>> {
        Ok(self.log.vote().map(vote_to_raft))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<RaftEntry>> {
        let entries = self.read(start, end).await?;
        if entries.is_empty() && start < end {
            return Err(io::Error::other(format!("log entry {start} is missing in group {}", self.log.group())));
        }
        Ok(entries)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        Ok(LogState {
            last_purged_log_id: self.log.purged().map(log_id_to_raft),
            last_log_id: self.log.last().max(self.log.purged()).map(log_id_to_raft),
        })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &RaftVote) -> io::Result<()> {
        if is_planted(Bug::VoteNotStored) {
            return Ok(());
        }
        self.log.save_vote(vote_from_raft(vote)).await
    }

    async fn save_committed(&mut self, committed: Option<RaftLogId>) -> io::Result<()> {
        if let Some(committed) = committed {
            self.log.save_committed(log_id_from_raft(&committed));
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<RaftLogId>> {
        Ok(self.log.committed().map(log_id_to_raft))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = entries.into_iter().map(entry_from_raft).collect();
        if is_planted(Bug::AckBeforeSync) {
            callback.io_completed(Ok(()));
            return self.log.append(entries, |_| ());
        }
        self.log.append(entries, move |result| callback.io_completed(result))
    }

    async fn truncate_after(&mut self, last_log_id: Option<RaftLogId>) -> io::Result<()> {
        let stays = u64::from(is_planted(Bug::TruncateOneTooFew));
        let last = last_log_id.as_ref().map(log_id_from_raft);
        self.log.truncate_after(last.map(|last| LogId { index: last.index + stays, ..last })).await
    }

    async fn purge(&mut self, log_id: RaftLogId) -> io::Result<()> {
        self.log.purge(log_id_from_raft(&log_id)).await
    }
}
