//! The end of a group's life in memory: its core ends, what it applied goes to its segments, and what is durable of it is
//! noted as a start from the disk would find it. Only then may anybody open its data again.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Registry;
use super::states::Known;
use crate::group::Group;
use crate::journal::RecoveredGroup;
use crate::log::group_log::GroupLog;

/// How long what a group does may take to end when it is stopped.
const PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 5 } else { 30 });

/// A group that was told to end.
pub(super) struct Closing {
    log: Arc<GroupLog>,
    /// Cancelled when nothing of it appends or applies any more.
    ended: CancellationToken,
    told_at: Instant,
}

impl Closing {
    /// Tells it to end.
    pub(super) fn begin(group: &Group) -> Self {
        Self::of(group.log().clone(), group.stop())
    }

    /// A log whose core never ran, or ends with `ended`.
    pub(super) fn of(log: Arc<GroupLog>, ended: CancellationToken) -> Self {
        Self { log, ended, told_at: Instant::now() }
    }

    pub(super) fn log(&self) -> &Arc<GroupLog> {
        &self.log
    }
}

impl Registry {
    /// Returns when nothing of the group appends or applies any more.
    ///
    /// # Errors
    /// If that takes too long. The group changes once more when it has ended.
    pub(super) async fn wait_ended(&self, closing: &Closing) -> io::Result<()> {
        let patience = PATIENCE.saturating_sub(closing.told_at.elapsed());
        if tokio::time::timeout(patience, closing.ended.cancelled()).await.is_ok() {
            return Ok(());
        }
        if !patience.is_zero() {
            let (group, ended, changes) = (closing.log.group(), closing.ended.clone(), self.changes.clone());
            tracing::error!(%group, "the group has not ended {PATIENCE:?} after it was stopped: it stays down until it has");
            tokio::spawn(async move {
                ended.cancelled().await;
                changes.note(group);
            });
        }
        Err(still_stopping())
    }

    /// As [`Registry::give_back`], and what is known of the group in either case.
    pub(super) async fn settle(&self, closing: Closing) -> (Known, io::Result<()>) {
        let recovered = match self.wait_ended(&closing).await {
            Ok(()) => self.give_back(&closing).await,
            Err(error) => Err(error),
        };
        match recovered {
            Ok(recovered) => (Known::Stopped(Box::new(recovered)), Ok(())),
            Err(error) => (Known::Closing(closing), Err(error)),
        }
    }

    /// Notes what is durable of a group that was told to end.
    ///
    /// # Errors
    /// If it has not ended, or not all that it had in memory can be made durable: calling it again goes on.
    pub(super) async fn give_back(&self, closing: &Closing) -> io::Result<RecoveredGroup> {
        if !closing.ended.is_cancelled() {
            return Err(still_stopping());
        }
        let log = &closing.log;
        // What the group submitted before it ended becomes durable before anybody builds on it.
        self.write_through(Vec::new()).await?;
        if !log.is_all_done() {
            // It may have acknowledged nothing of that, but it has it in memory: only the disk tells what there is.
            let reason = format!("the journal did not take everything of group {}: what it has is read again", log.group());
            self.failure.set(reason.clone());
            return Err(io::Error::other(reason));
        }
        self.flusher.sync_and_wait(log).await?;
        self.flusher.barrier().await?;
        let recovered = log.retire();
        self.holders.recovered(log.group(), &recovered);
        Ok(recovered)
    }
}

fn still_stopping() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "it is still being stopped: what it wrote last waits for the disk")
}
