//! One Raft group on this node: propose, read, barrier, purge.
//!
//! Proposals are admitted (bounded memory), then submitted (which fixes their order), then awaited. What is submitted
//! while the last entries are on their way rides together in the next entry, so small proposals share one sync
//! without waiting for each other.

mod error;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use openraft::ReadPolicy;
use openraft::async_runtime::WatchReceiver as _;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::admission::{Room, Share};
use crate::barrier::{Barriers, Unconfirmed};
use crate::driver::Driver;
use crate::flusher::FlusherHandle;
use crate::heard::Heard;
use crate::joining::Joining;
use crate::log::convert::log_id_from_raft;
use crate::log::group_log::GroupLog;
use crate::log::machine_store::MachineStore;
use crate::log::type_config::TypeConfig;
use crate::machine::Outcome;
use crate::network::Urgency;
use crate::planted::{Bug, is_planted};
use crate::proposals::{Proposal, Proposals};
use crate::quorum::Quorum;
use crate::roster::Roster;
use crate::segments::{SegmentError, SegmentInfo, StoredItem};
use crate::standing::Standing;
use crate::tail_budget::TailBudget;
use crate::tripwire::Tripwire;
use crate::types::{GroupId, Item, LogId, NodeId, Replica, ReplicaId};
pub use error::{ProposeError, ReadError};

/// openraft's handle of one group.
pub(crate) type Raft = openraft::Raft<TypeConfig, MachineStore>;

/// How long the log may take to let go of what is dead.
const PURGE_PATIENCE: Duration = Duration::from_secs(30);
/// Between two attempts to find out whether this node still leads.
const BARRIER_PAUSE: Duration = Duration::from_millis(20);

/// A group that runs on this node. Cheap to clone.
#[derive(Clone)]
pub struct Group {
    inner: Arc<Inner>,
}

struct Inner {
    id: GroupId,
    parts: Parts,
    /// Absent: nothing is known of removed replicas.
    roster: ArcSwapOption<Roster>,
}

/// What a group is made of.
pub(crate) struct Parts {
    pub(crate) replica: Replica,
    pub(crate) raft: Raft,
    pub(crate) log: Arc<GroupLog>,
    pub(crate) proposals: Proposals,
    pub(crate) barriers: Barriers,
    pub(crate) flusher: FlusherHandle,
    pub(crate) admission: Share,
    pub(crate) quorum: Quorum,
    pub(crate) tail_budget: TailBudget,
    pub(crate) urgency: Urgency,
    pub(crate) heard: Arc<Heard>,
    pub(crate) joining: Arc<Joining>,
    pub(crate) tripwire: Tripwire,
    pub(crate) standing: watch::Receiver<Standing>,
    /// Cancelled when the group is stopped on purpose.
    pub(crate) stopping: CancellationToken,
    /// Cancelled when the task that applies entries has ended.
    pub(crate) machine_gone: CancellationToken,
}

/// Room in memory for one proposal. Submit it, or drop it to give the room back.
pub struct Admitted<'a> {
    group: &'a Group,
    room: Room,
}

/// A submitted proposal: its place in the order is fixed. Await it for the outcome.
pub struct Ticket {
    reply: oneshot::Receiver<Result<Outcome, ProposeError>>,
}

impl Group {
    pub(crate) fn new(parts: Parts) -> Self {
        Self { inner: Arc::new(Inner { id: parts.log.group(), parts, roster: ArcSwapOption::empty() }) }
    }

    /// Which group this is.
    #[must_use]
    pub fn id(&self) -> GroupId {
        self.inner.id
    }

    /// Which replica of it lives here.
    #[must_use]
    pub fn replica(&self) -> ReplicaId {
        self.inner.parts.replica.id
    }

    /// This node.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.inner.parts.replica.node
    }

    /// From now on, replicas that this proves to be removed are not heard any more. Must be committed.
    pub fn learn_roster(&self, roster: Roster) {
        // An id that was handed out since then and is not named was never one of this group.
        if self.inner.roster.load().as_deref().map(|known| &known.named) != Some(&roster.named) {
            self.inner.roster.store(Some(Arc::new(roster)));
        }
    }

    pub(crate) fn has_removed(&self, replica: ReplicaId) -> bool {
        self.inner.roster.load().as_deref().is_some_and(|roster| roster.has_removed(replica))
    }

    /// Waits until there is room in memory for a proposal of `bytes`, as long as a majority can be reached.
    ///
    /// # Errors
    /// [`ProposeError::NoQuorum`], or [`ProposeError::Stopped`] when the group or the node closes, or [`ProposeError::Halted`].
    pub async fn admit(&self, bytes: usize) -> Result<Admitted<'_>, ProposeError> {
        if let Some(reason) = self.halted() {
            return Err(ProposeError::Halted { group: self.inner.id, reason: reason.to_string() });
        }
        let (group, Parts { tail_budget, admission, quorum, stopping, .. }) = (self.inner.id, &self.inner.parts);
        if tail_budget.has_room()
            && let Some(room) = admission.try_take(bytes)
        {
            return Ok(Admitted { group: self, room });
        }
        let room = async {
            tail_budget.room().await;
            admission.take(bytes).await
        };
        tokio::select! {
            biased;
            room = room => match room {
                Ok(room) => Ok(Admitted { group: self, room }),
                Err(_) => Err(ProposeError::Stopped { group }),
            },
            offline = quorum.lost() => Err(ProposeError::NoQuorum { group, offline }),
            () = stopping.cancelled() => Err(ProposeError::Stopped { group }),
        }
    }

    /// Admits, submits and awaits one item.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn propose(&self, item: Item) -> Result<Outcome, ProposeError> {
        self.admit(item.payload.len()).await?.submit(item).outcome().await
    }

    /// Returns once everything acknowledged before this call is applied here, and this node still led then
    /// (Raft's ReadIndex). Those who ask at the same time share one round to the other replicas.
    ///
    /// # Errors
    /// [`ReadError::NotLeader`] if that cannot be confirmed.
    pub async fn read_barrier(&self) -> Result<(), ReadError> {
        if is_planted(Bug::ReadWithoutQuorum) {
            return Ok(());
        }
        self.check_not_halted()?;
        let group = self.inner.id;
        let passed = self.inner.parts.barriers.pass(|| self.confirm_lead()).await;
        passed.map_err(|Unconfirmed { leader, reason }| ReadError::NotLeader { group, leader, reason })
    }

    async fn confirm_lead(&self) -> Result<(), Unconfirmed> {
        // What the other replicas are asked for this must not wait for others to ride along.
        let _urgent = self.inner.parts.urgency.begin();
        match self.inner.parts.raft.ensure_linearizable(ReadPolicy::ReadIndex).await {
            Ok(_) => Ok(()),
            Err(error) => Err(Unconfirmed { leader: self.leader_node(), reason: error.to_string() }),
        }
    }

    /// Applied, kept items from the one that contains `offset` on: about `bytes_max` bytes of payload, at least one
    /// item if there is one. From memory where they are recent, else from segments.
    ///
    /// # Errors
    /// If the disk fails or holds damaged data in this range.
    pub async fn read(&self, offset: u64, bytes_max: usize) -> Result<Vec<StoredItem>, ReadError> {
        self.check_not_halted()?;
        if let Some(items) = self.inner.parts.log.read_tail(offset, bytes_max) {
            return Ok(items);
        }
        let log = self.inner.parts.log.clone();
        let read = move || {
            let items = log.noting_damage(log.reader().read(offset, bytes_max))?;
            // What left the memory between the two looks is in a segment by now.
            if items.is_empty() { Ok(log.read_tail(offset, bytes_max).unwrap_or_default()) } else { Ok(items) }
        };
        let read: Result<Vec<StoredItem>, SegmentError> = self.driver().run(read).await.map_err(ReadError::Stopped)?;
        Ok(read?)
    }

    /// The first kept item that reaches behind the offset `from` and whose largest timestamp is `timestamp_ms` (since the
    /// Unix epoch) or later.
    ///
    /// # Errors
    /// If the disk fails or holds damaged data.
    pub async fn find_timestamp(&self, timestamp_ms: i64, from: u64) -> Result<Option<StoredItem>, ReadError> {
        self.check_not_halted()?;
        let log = self.inner.parts.log.clone();
        let find = move || -> Result<Option<StoredItem>, SegmentError> {
            match log.noting_damage(log.reader().offset_for_timestamp(timestamp_ms, from))? {
                Some(kept) => Ok(log.noting_damage(log.reader().read(kept.base_offset, 1))?.into_iter().next()),
                None => Ok(log.find_timestamp_in_tail(timestamp_ms, from)),
            }
        };
        Ok(self.driver().run(find).await.map_err(ReadError::Stopped)??)
    }

    fn check_not_halted(&self) -> Result<(), ReadError> {
        match self.halted() {
            None => Ok(()),
            Some(reason) => Err(ReadError::Halted { group: self.inner.id, reason: reason.to_string() }),
        }
    }

    /// The term that this node is in.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.inner.parts.raft.metrics().borrow_watched().current_term
    }

    /// The voters of the group, as far as this node knows.
    #[must_use]
    pub fn voters(&self) -> Vec<ReplicaId> {
        self.inner.parts.raft.voter_ids().collect()
    }

    /// Returns when a leader is known and, if that is this node, everything committed before is applied here.
    ///
    /// # Errors
    /// If that takes longer than `timeout`.
    pub async fn wait_ready(&self, timeout: Duration) -> io::Result<()> {
        let id = self.inner.id;
        let late = || io::Error::new(io::ErrorKind::TimedOut, format!("group {id} has no leader after {timeout:?}"));
        let deadline = Instant::now() + timeout;
        let mut standing = self.standing();
        loop {
            let led = standing.wait_for(|standing| standing.leader.is_some());
            let led = tokio::time::timeout_at(deadline, led).await.map_err(|_| late())?;
            led.map_err(|_| io::Error::other(format!("group {id} is stopped")))?;
            if !self.is_leader() {
                return Ok(());
            }
            // Fails where another node has taken over meanwhile: then that one is waited for.
            let barrier = tokio::time::timeout_at(deadline, self.read_barrier()).await.map_err(|_| late())?;
            match barrier {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() >= deadline => return Err(io::Error::other(error)),
                Err(_) => tokio::time::sleep(BARRIER_PAUSE).await,
            }
        }
    }

    /// What the closed and open segments hold.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentInfo> {
        self.inner.parts.log.reader().segments()
    }

    /// Bytes of this group on disk and in memory.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.inner.parts.log.reader().bytes() + self.inner.parts.log.applied_bytes() as u64
    }

    /// Closes the open segment if everything that it and the memory keep is older than `oldest_ms` (milliseconds since
    /// the Unix epoch), so that retention reaches records of a group that gets no new ones.
    ///
    /// # Errors
    /// If a write fails.
    pub async fn roll_if_older(&self, oldest_ms: i64) -> io::Result<()> {
        if self.inner.parts.log.newest_open_timestamp_ms().is_some_and(|newest| newest < oldest_ms) {
            self.inner.parts.flusher.roll(&self.inner.parts.log).await?;
        }
        Ok(())
    }

    /// Removes whole segments that hold nothing from `live_from` (an offset) on. `live_from` must have been applied.
    /// Returns the bytes that were freed: less than could be, if they are being sent to another replica just now.
    ///
    /// The order matters: what killed the frames is made durable first, then Raft is told that they are gone, then
    /// they go.
    ///
    /// # Errors
    /// If a write fails, or the group is stopped.
    pub async fn release_below(&self, live_from: u64) -> io::Result<u64> {
        let segments = self.segments();
        let dead = segments
            .iter()
            .take_while(|segment| segment.closed && (segment.next_offset <= live_from || is_planted(Bug::ReleaseTooMuch)));
        let Some(upto) = dead.filter_map(|segment| segment.last).last() else { return Ok(0) };
        let before = self.size_bytes();
        self.inner.parts.flusher.sync_and_wait(&self.inner.parts.log).await?;
        if !is_planted(Bug::ReleaseBeforeFlush) {
            self.inner.parts.flusher.flush_state().await?;
        }
        let Some(purged) = self.purge(upto).await? else { return Ok(0) };
        let upto = upto.index.min(purged.index);
        self.inner.parts.flusher.unlink_through(&self.inner.parts.log, upto).await?;
        Ok(before.saturating_sub(self.size_bytes()))
    }

    /// Tells Raft that nothing up to `upto` is needed: a snapshot (pinned, not copied) stands for it. Returns how far it
    /// has let go: a leader waits for the replicas to which it is just sending from there.
    async fn purge(&self, upto: LogId) -> io::Result<Option<LogId>> {
        let raft = &self.inner.parts.raft;
        raft.trigger().snapshot().await.map_err(io::Error::other)?;
        let wait = raft.wait(Some(PURGE_PATIENCE));
        let built = |metrics: &openraft::RaftMetrics<TypeConfig>| {
            metrics.snapshot.as_ref().is_some_and(|log_id| log_id.index >= upto.index)
        };
        wait.metrics(built, "a snapshot").await.map_err(io::Error::other)?;
        raft.trigger().purge_log(upto.index).await.map_err(io::Error::other)?;
        let purged = |metrics: &openraft::RaftMetrics<TypeConfig>| {
            metrics.purged.as_ref().is_some_and(|log_id| log_id.index >= upto.index)
        };
        if let Err(late) = wait.metrics(purged, "the purge").await {
            tracing::debug!(group = %self.inner.id, %late, "not everything was purged");
        }
        Ok(raft.metrics().borrow_watched().purged.as_ref().map(log_id_from_raft))
    }

    fn driver(&self) -> &Driver {
        self.inner.parts.log.lives().driver()
    }

    pub(crate) fn raft(&self) -> &Raft {
        &self.inner.parts.raft
    }

    pub(crate) fn log(&self) -> &Arc<GroupLog> {
        &self.inner.parts.log
    }

    /// Whether this replica only copies the group so far.
    pub(crate) fn joining(&self) -> &Arc<Joining> {
        &self.inner.parts.joining
    }

    pub(crate) fn tripwire(&self) -> &Tripwire {
        &self.inner.parts.tripwire
    }

    /// Whether this replica may campaign and vote, as far as its log goes.
    pub(crate) fn may_elect(&self) -> bool {
        self.joining().is_over(self.log().last().map(|last| last.index))
    }

    /// How long ago this replica last heard of its leader, or was started.
    #[must_use]
    pub fn silence(&self) -> Duration {
        self.inner.parts.heard.silence()
    }

    pub(crate) fn heard(&self) -> &Heard {
        &self.inner.parts.heard
    }

    /// Damage that was met in its data while it ran, the first of it; it is known as soon as the read that met it has
    /// failed. [`Registry::condemn`](crate::registry::Registry::condemn).
    #[must_use]
    pub fn damage(&self) -> Option<String> {
        self.inner.parts.log.damage().borrow().clone()
    }

    pub(crate) fn quorum(&self) -> &Quorum {
        &self.inner.parts.quorum
    }

    pub(crate) fn standing(&self) -> watch::Receiver<Standing> {
        self.inner.parts.standing.clone()
    }

    /// Stops the group; what is submitted and not yet answered becomes unknown. What is returned is cancelled when nothing is
    /// appended or applied any more: that may take as long as the disk does.
    pub(crate) fn stop(&self) -> CancellationToken {
        let Parts { raft, stopping, proposals, machine_gone, .. } = &self.inner.parts;
        stopping.cancel();
        proposals.close();
        let (group, raft, machine_gone) = (self.inner.id, raft.clone(), machine_gone.clone());
        let ended = CancellationToken::new();
        let end = ended.clone();
        tokio::spawn(async move {
            if let Err(error) = raft.shutdown().await {
                tracing::warn!(%group, %error, "the group's core ended with an error");
            }
            machine_gone.cancelled().await;
            end.cancel();
        });
        ended
    }

    /// Stops the group; returns when nothing is appended or applied any more.
    #[cfg(test)]
    pub(crate) async fn shutdown(&self) {
        self.stop().cancelled().await;
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}

impl Admitted<'_> {
    /// Fixes the proposal's place in the group's order.
    #[must_use]
    pub fn submit(self, item: Item) -> Ticket {
        let (tx, rx) = oneshot::channel();
        self.group.inner.parts.proposals.submit(Proposal { item, reply: tx, room: self.room });
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
