//! One Raft group on this node: propose, read, barrier, purge.
//!
//! Proposals are admitted (bounded memory), then submitted (which fixes their order), then awaited. What is submitted
//! while the last entries are on their way rides together in the next entry, so small proposals share one sync
//! without waiting for each other.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use openraft::ReadPolicy;
use openraft::async_runtime::WatchReceiver as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::flusher::FlusherHandle;
use crate::log::group_log::GroupLog;
use crate::log::machine_store::MachineStore;
use crate::log::type_config::TypeConfig;
use crate::machine::Outcome;
use crate::proposals::{Proposal, Proposals};
use crate::segments::{SegmentError, SegmentInfo, StoredItem};
use crate::tail_budget::TailBudget;
use crate::types::{GroupId, Item, LogId, NodeId};

/// openraft's handle of one group.
pub(crate) type Raft = openraft::Raft<TypeConfig, MachineStore>;

/// Bytes that one unit of the admission semaphore stands for.
pub(crate) const ADMISSION_UNIT_BYTES: usize = 1024;

/// A group that runs on this node. Cheap to clone.
#[derive(Clone)]
pub struct Group {
    inner: Arc<Inner>,
}

struct Inner {
    id: GroupId,
    raft: Raft,
    log: Arc<GroupLog>,
    proposals: Proposals,
    flusher: FlusherHandle,
    admission: Arc<Semaphore>,
    tail_budget: TailBudget,
}

/// Room in memory for one proposal. Submit it, or drop it to give the room back.
pub struct Admitted<'a> {
    group: &'a Group,
    permit: OwnedSemaphorePermit,
}

/// A submitted proposal: its place in the order is fixed. Await it for the outcome.
pub struct Ticket {
    reply: oneshot::Receiver<Result<Outcome, ProposeError>>,
}

/// Why a proposal has no outcome.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProposeError {
    /// Not appended: another node leads the group.
    #[error("this node does not lead group {group}")]
    NotLeader {
        /// The group.
        group: GroupId,
        /// Who leads it, if that is known.
        leader: Option<NodeId>,
    },
    /// It may or may not be committed, now or later. Retry with the same producer sequence to find out.
    #[error("group {group} lost its leader or stopped while the proposal was on its way: {reason}")]
    Unknown {
        /// The group.
        group: GroupId,
        /// What happened.
        reason: String,
    },
    /// Not appended: the group does not run any more.
    #[error("group {group} is stopped")]
    Stopped {
        /// The group.
        group: GroupId,
    },
}

/// Why a group could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The stored data is damaged or cannot be read.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// The read was broken off: the node is closing.
    #[error("reading was broken off: {0}")]
    Stopped(io::Error),
    /// This node cannot confirm that it leads the group.
    #[error("group {group}: leadership could not be confirmed: {reason}")]
    NotLeader {
        /// The group.
        group: GroupId,
        /// Who leads it, if that is known.
        leader: Option<NodeId>,
        /// What openraft said.
        reason: String,
    },
}

impl Group {
    pub(crate) fn new(
        raft: Raft,
        log: Arc<GroupLog>,
        proposals: Proposals,
        flusher: FlusherHandle,
        (admission, tail_budget): (Arc<Semaphore>, TailBudget),
    ) -> Self {
        let inner = Inner { id: log.group(), raft, log, proposals, flusher, admission, tail_budget };
        Self { inner: Arc::new(inner) }
    }

    /// Which group this is.
    #[must_use]
    pub fn id(&self) -> GroupId {
        self.inner.id
    }

    /// Waits until there is room in memory for a proposal of `bytes`.
    ///
    /// # Errors
    /// [`ProposeError::Stopped`] when the node closes.
    pub async fn admit(&self, bytes: usize) -> Result<Admitted<'_>, ProposeError> {
        let units = u32::try_from(bytes / ADMISSION_UNIT_BYTES + 1).unwrap_or(u32::MAX);
        self.inner.tail_budget.room().await;
        let permit = self.inner.admission.clone().acquire_many_owned(units).await;
        let permit = permit.map_err(|_| ProposeError::Stopped { group: self.inner.id })?;
        Ok(Admitted { group: self, permit })
    }

    /// Admits, submits and awaits one item.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn propose(&self, item: Item) -> Result<Outcome, ProposeError> {
        self.admit(item.payload.len()).await?.submit(item).outcome().await
    }

    /// Returns once everything acknowledged before this call is applied here, and this node still led then
    /// (Raft's ReadIndex).
    ///
    /// # Errors
    /// [`ReadError::NotLeader`] if that cannot be confirmed.
    pub async fn read_barrier(&self) -> Result<(), ReadError> {
        match self.inner.raft.ensure_linearizable(ReadPolicy::ReadIndex).await {
            Ok(_) => Ok(()),
            Err(error) => Err(ReadError::NotLeader { group: self.inner.id, leader: self.leader(), reason: error.to_string() }),
        }
    }

    /// Applied, kept items from the one that contains `offset` on: about `bytes_max` bytes of payload, at least one
    /// item if there is one. From memory where they are recent, else from segments.
    ///
    /// # Errors
    /// If the disk fails or holds damaged data in this range.
    pub async fn read(&self, offset: u64, bytes_max: usize) -> Result<Vec<StoredItem>, ReadError> {
        if let Some(items) = self.inner.log.read_tail(offset, bytes_max) {
            return Ok(items);
        }
        let log = self.inner.log.clone();
        let read = move || {
            let items = log.reader().read(offset, bytes_max)?;
            // What left the memory between the two looks is in a segment by now.
            if items.is_empty() { Ok(log.read_tail(offset, bytes_max).unwrap_or_default()) } else { Ok(items) }
        };
        let read: Result<Vec<StoredItem>, SegmentError> = blocking(read).await?;
        Ok(read?)
    }

    /// The first kept item whose largest timestamp is `timestamp_ms` (since the Unix epoch) or later.
    ///
    /// # Errors
    /// If the disk fails or holds damaged data.
    pub async fn find_timestamp(&self, timestamp_ms: i64) -> Result<Option<StoredItem>, ReadError> {
        let log = self.inner.log.clone();
        let find = move || -> Result<Option<StoredItem>, SegmentError> {
            match log.reader().offset_for_timestamp(timestamp_ms)? {
                Some(kept) => Ok(log.reader().read(kept.base_offset, 1)?.into_iter().next()),
                None => Ok(log.find_timestamp_in_tail(timestamp_ms)),
            }
        };
        Ok(blocking(find).await??)
    }

    /// Who leads the group, as far as this node knows.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        self.inner.raft.server_metrics().borrow_watched().current_leader
    }

    /// The term that this node is in.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.inner.raft.metrics().borrow_watched().current_term
    }

    /// The voters of the group, as far as this node knows.
    #[must_use]
    pub fn voters(&self) -> Vec<NodeId> {
        self.inner.raft.voter_ids().collect()
    }

    /// Returns when a leader is known and everything committed before is applied here.
    ///
    /// # Errors
    /// If that takes longer than `timeout`.
    pub async fn wait_ready(&self, timeout: Duration) -> io::Result<()> {
        let id = self.inner.id;
        let late = || io::Error::new(io::ErrorKind::TimedOut, format!("group {id} has no leader after {timeout:?}"));
        let wait = self.inner.raft.wait(Some(timeout));
        wait.metrics(|metrics| metrics.current_leader.is_some(), "a leader").await.map_err(|_| late())?;
        if self.leader() == Some(*self.inner.raft.node_id()) {
            let barrier = tokio::time::timeout(timeout, self.read_barrier()).await.map_err(|_| late())?;
            barrier.map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// What the closed and open segments hold.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentInfo> {
        self.inner.log.reader().segments()
    }

    /// Bytes of this group on disk and in memory.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.inner.log.reader().bytes() + self.inner.log.applied_bytes() as u64
    }

    /// Closes the open segment if everything that it and the memory keep is older than `oldest_ms` (milliseconds since
    /// the Unix epoch), so that retention reaches records of a group that gets no new ones.
    ///
    /// # Errors
    /// If a write fails.
    pub async fn roll_if_older(&self, oldest_ms: i64) -> io::Result<()> {
        if self.inner.log.newest_open_timestamp_ms().is_some_and(|newest| newest < oldest_ms) {
            self.inner.flusher.roll(&self.inner.log).await?;
        }
        Ok(())
    }

    /// Removes whole segments that hold nothing from `live_from` (an offset) on. `live_from` must have been applied.
    /// Returns the bytes that were freed.
    ///
    /// The order matters: what killed the frames is made durable first, then Raft is told that they are gone, then
    /// they go.
    ///
    /// # Errors
    /// If a write fails, or the group is stopped.
    pub async fn release_below(&self, live_from: u64) -> io::Result<u64> {
        let segments = self.segments();
        let dead = segments.iter().take_while(|segment| segment.closed && segment.next_offset <= live_from);
        let Some(upto) = dead.filter_map(|segment| segment.last).last() else { return Ok(0) };
        let before = self.size_bytes();
        self.inner.flusher.sync_and_wait(&self.inner.log).await?;
        self.inner.flusher.flush_state().await?;
        self.purge(upto).await?;
        self.inner.flusher.unlink_through(&self.inner.log, upto.index).await?;
        Ok(before.saturating_sub(self.size_bytes()))
    }

    /// Tells Raft that nothing up to `upto` is needed: a snapshot (pinned, not copied) stands for it.
    async fn purge(&self, upto: LogId) -> io::Result<()> {
        const PATIENCE: Duration = Duration::from_secs(30);
        let raft = &self.inner.raft;
        raft.trigger().snapshot().await.map_err(io::Error::other)?;
        let wait = raft.wait(Some(PATIENCE));
        let built = |metrics: &openraft::RaftMetrics<TypeConfig>| {
            metrics.snapshot.as_ref().is_some_and(|log_id| log_id.index >= upto.index)
        };
        wait.metrics(built, "a snapshot").await.map_err(io::Error::other)?;
        raft.trigger().purge_log(upto.index).await.map_err(io::Error::other)?;
        let purged = |metrics: &openraft::RaftMetrics<TypeConfig>| {
            metrics.purged.as_ref().is_some_and(|log_id| log_id.index >= upto.index)
        };
        wait.metrics(purged, "the purge").await.map_err(io::Error::other)?;
        Ok(())
    }

    pub(crate) fn raft(&self) -> &Raft {
        &self.inner.raft
    }

    pub(crate) fn log(&self) -> &Arc<GroupLog> {
        &self.inner.log
    }

    /// Stops the group; what is submitted and not yet answered becomes unknown.
    pub(crate) async fn shutdown(&self) {
        self.inner.proposals.close();
        if let Err(error) = self.inner.raft.shutdown().await {
            tracing::warn!(group = %self.inner.id, %error, "the group's core ended with an error");
        }
    }
}

impl Admitted<'_> {
    /// Fixes the proposal's place in the group's order.
    #[must_use]
    pub fn submit(self, item: Item) -> Ticket {
        let (tx, rx) = oneshot::channel();
        self.group.inner.proposals.submit(Proposal { item, reply: tx, permit: self.permit });
        Ticket { reply: rx }
    }
}

impl Ticket {
    /// What the machine answered once the proposal was committed (fsynced on a majority) and applied.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn outcome(self) -> Result<Outcome, ProposeError> {
        match self.reply.await {
            Ok(result) => result,
            Err(_) => Err(ProposeError::Unknown { group: GroupId::default(), reason: "the node is closing".into() }),
        }
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "group {}", self.inner.id)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ReadError> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other).map_err(ReadError::Stopped)
}
