//! All groups of a node over one journal, one state and one flusher.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use openraft::impls::EmptyNode;
use openraft::{Config, SnapshotPolicy};
use tokio::sync::Semaphore;

use crate::data_dir::DataDir;
use crate::disk::Disk;
use crate::failure::Failure;
use crate::flusher::{Flusher, FlusherHandle, FlusherThread};
use crate::group::{ADMISSION_UNIT_BYTES, Group, Raft};
use crate::holders::Holders;
use crate::journal::{
    BatchStats, Damage, Journal, JournalError, JournalHandle, JournalObserver, JournalOptions, JournalThread, Record,
    RecoveredGroup, Recycle, Suspect,
};
use crate::log::group_log::GroupLog;
use crate::log::lives::Lives;
use crate::log::machine_store::MachineStore;
use crate::log::store::LogStore;
use crate::machine::Machine;
use crate::network::NoPeers;
use crate::proposals::{Preamble, Proposals};
use crate::segments::{SegmentError, SegmentOptions};
use crate::state::{State, StateError};
use crate::tail_budget::TailBudget;
use crate::types::{GroupId, Incarnation, NodeId};

/// Elections are for groups that lost their leader's node; timers in seconds keep a thousand idle groups cheap.
const HEARTBEAT_MS: u64 = 500;
const ELECTION_MS_MIN: u64 = 2_000;
const ELECTION_MS_MAX: u64 = 4_000;

/// What a registry may use.
#[derive(Debug, Clone)]
pub struct RegistryOptions {
    /// This node.
    pub node_id: NodeId,
    /// The journal's files.
    pub journal: JournalOptions,
    /// How segments are cut.
    pub segments: SegmentOptions,
    /// Bytes of proposals that may wait or be on their way, over all groups.
    pub proposal_bytes_max: usize,
    /// Bytes of memory that applied entries may take before they are in segments; proposals wait when it is used up.
    pub tail_bytes_max: u64,
}

/// Why a node's storage did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The state.
    #[error(transparent)]
    State(#[from] StateError),
    /// A thread or directory.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Why a group did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Something that was once durable is missing or altered. The data is kept as it is.
    #[error("group {group} is damaged and stays down: {reason}")]
    Damaged {
        /// The group.
        group: GroupId,
        /// Which file, which range, and what is wrong there.
        reason: String,
    },
    /// It runs already.
    #[error("group {0} runs already")]
    Running(GroupId),
    /// Reading or writing failed.
    #[error("group {group}: {source}")]
    Io {
        /// The group.
        group: GroupId,
        /// What failed.
        source: io::Error,
    },
}

/// See the module.
pub struct Registry {
    options: RegistryOptions,
    /// Held for its lock.
    _data_dir: DataDir,
    lives: Arc<Lives>,
    journal: JournalHandle,
    flusher: FlusherHandle,
    holders: Holders,
    failure: Failure,
    admission: Arc<Semaphore>,
    tail_budget: TailBudget,
    damage: Vec<Damage>,
    recovered: Mutex<BTreeMap<GroupId, RecoveredGroup>>,
    /// Groups that have data and that the journal does not know, and where that is.
    unknown: BTreeMap<GroupId, String>,
    /// Groups that have data and did not start: which life of theirs, and why. Another attempt must not begin a new life.
    down: Mutex<BTreeMap<GroupId, (Incarnation, String)>>,
    running: Running,
    written: Arc<JournalCounters>,
    threads: Mutex<Option<(JournalThread, FlusherThread)>>,
}

/// The groups that run, shared with the journal's wishes.
type Running = Arc<Mutex<BTreeMap<GroupId, Group>>>;

/// Answers the journal: passes its wishes to the flusher, and its failure on.
struct Observer {
    holders: Holders,
    journal: JournalHandle,
    failure: Failure,
    written: Arc<JournalCounters>,
}

/// What the journal has written since it was opened.
#[derive(Debug, Default)]
struct JournalCounters {
    batches: AtomicU64,
    bytes: AtomicU64,
    submissions: AtomicU64,
    nanos: AtomicU64,
}

/// What the journal has written since it was opened, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct JournalFigures {
    /// Batches: writes, each with its sync.
    pub batches: u64,
    /// Bytes, padding included.
    pub bytes: u64,
    /// Appends, votes and marks that these batches carried.
    pub submissions: u64,
    /// Time spent writing and syncing.
    pub busy: Duration,
}

impl Registry {
    /// Opens the journal beside `state`. Groups start one by one afterwards. Blocks while it recovers.
    ///
    /// # Errors
    /// See [`OpenError`]. Damage of single groups is none: those groups refuse to start.
    pub fn open(
        options: RegistryOptions,
        data_dir: DataDir,
        disk: Arc<dyn Disk>,
        state: Arc<dyn State>,
    ) -> Result<Self, OpenError> {
        let failure = Failure::new();
        let (flusher, flusher_handle) = Flusher::new(state.clone(), failure.clone());
        let running = Running::default();
        let written = Arc::<JournalCounters>::default();
        let (mut journal, recovered) = Journal::open(disk.clone(), &data_dir.journal_dir(), options.journal.clone())?;
        let lives = Lives::new(disk, data_dir.groups_dir(), options.segments, state, recovered.boot_epoch);
        // Where damage took a part of the journal, what it does not name may be what it named.
        let unknown = if recovered.damage.is_empty() {
            lives.delete_orphans(&recovered.groups.iter().map(|(id, group)| (*id, group.incarnation)).collect())?
        } else {
            BTreeMap::new()
        };
        let handle = journal.handle();
        let holders = Holders::new(flusher_handle.clone(), &recovered.groups);
        let observer =
            Observer { holders: holders.clone(), journal: handle.clone(), failure: failure.clone(), written: written.clone() };
        journal.observe(Arc::new(observer));
        let threads = (JournalThread::spawn(journal)?, flusher.spawn(flusher_handle.clone())?);
        let admission = Arc::new(Semaphore::new(options.proposal_bytes_max / ADMISSION_UNIT_BYTES));
        let tail_budget = TailBudget::new(options.tail_bytes_max);
        let registry = Self {
            options,
            _data_dir: data_dir,
            lives: Arc::new(lives),
            journal: handle,
            flusher: flusher_handle,
            holders,
            failure,
            admission,
            tail_budget,
            damage: recovered.damage,
            recovered: Mutex::new(recovered.groups),
            unknown,
            down: Mutex::default(),
            running,
            written,
            threads: Mutex::new(Some(threads)),
        };
        for damage in &registry.damage {
            tracing::error!(file = %damage.file.display(), range = ?damage.range, reason = damage.reason, "the journal is damaged");
        }
        Ok(registry)
    }

    /// The flag that says that storage failed.
    #[must_use]
    pub fn failure(&self) -> &Failure {
        &self.failure
    }

    /// Groups that this node has data of and that do not run (yet).
    #[must_use]
    pub fn recovered_groups(&self) -> Vec<GroupId> {
        let down: Vec<GroupId> = lock(&self.down).keys().copied().collect();
        lock(&self.recovered).keys().copied().chain(down).collect()
    }

    /// What the journal found damaged when it was opened.
    #[must_use]
    pub fn damage(&self) -> &[Damage] {
        &self.damage
    }

    /// What the journal has written since it was opened.
    #[must_use]
    pub fn journal_figures(&self) -> JournalFigures {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        JournalFigures {
            batches: read(&self.written.batches),
            bytes: read(&self.written.bytes),
            submissions: read(&self.written.submissions),
            busy: Duration::from_nanos(read(&self.written.nanos)),
        }
    }

    /// Bytes of memory that entries take which are not yet in segments.
    #[must_use]
    pub fn tail_bytes(&self) -> u64 {
        self.tail_budget.bytes()
    }

    /// Starts a group: from what is on disk, or new with `voters`; without any, it waits until a leader adds this node.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(
        &self,
        group: GroupId,
        machine: Box<dyn Machine>,
        preamble: Option<Preamble>,
        voters: &[NodeId],
    ) -> Result<Group, StartError> {
        if lock(&self.running).contains_key(&group) {
            return Err(StartError::Running(group));
        }
        let down = lock(&self.down).get(&group).map(|(_, reason)| reason.clone());
        if let Some(reason) = down.or_else(|| self.unknown.get(&group).cloned()) {
            return Err(StartError::Damaged { group, reason });
        }
        let incarnation = lock(&self.recovered).get(&group).map(|recovered| recovered.incarnation);
        let opened = self.open_group(group, machine, preamble, voters).await;
        let opened = opened.inspect_err(|error| self.stays_down(group, incarnation, error))?;
        lock(&self.running).insert(group, opened.clone());
        Ok(opened)
    }

    /// Remembers a group that has data and did not start. Its data stays as it is until the node is started again.
    fn stays_down(&self, group: GroupId, incarnation: Option<Incarnation>, error: &StartError) {
        let taken = !lock(&self.recovered).contains_key(&group);
        let Some(incarnation) = incarnation.filter(|_| taken) else { return };
        let reason = match error {
            StartError::Damaged { reason, .. } => reason.clone(),
            other => other.to_string(),
        };
        lock(&self.down).insert(group, (incarnation, reason));
    }

    /// Stops a group and deletes its data.
    ///
    /// # Errors
    /// If the journal or the state cannot be written.
    pub async fn remove(&self, group: GroupId) -> io::Result<()> {
        let running = lock(&self.running).remove(&group);
        let incarnation = match &running {
            Some(running) => {
                running.shutdown().await;
                Some(running.log().incarnation())
            }
            None => {
                let recovered = lock(&self.recovered).remove(&group).map(|recovered| recovered.incarnation);
                let down = lock(&self.down).remove(&group).map(|(incarnation, _)| incarnation);
                recovered.or(down)
            }
        };
        let Some(incarnation) = incarnation else { return Ok(()) };
        drop(running);
        // First the word that the group is gone, then its data: a crash between leaves what the mark says to delete.
        let lives = self.lives.clone();
        blocking(move || lives.mark_removed(group, incarnation)).await?;
        self.write_through(Record::Remove { group }).await?;
        self.holders.removed(group);
        // Nothing may be written into the group's directory once it is deleted.
        self.flusher.barrier().await?;
        let lives = self.lives.clone();
        blocking(move || lives.delete(group, incarnation)).await
    }

    /// Stops all groups, flushes what they applied, seals the journal. Afterwards a start has nothing to repair.
    pub async fn close(&self) {
        let running = std::mem::take(&mut *lock(&self.running));
        for group in running.values() {
            group.shutdown().await;
            if let Err(error) = self.flusher.sync_and_wait(group.log()).await {
                tracing::warn!(group = %group.id(), %error, "not all applied entries were flushed; the journal has them");
            }
        }
        if let Err(error) = self.flusher.flush_state().await {
            tracing::warn!(%error, "the state was not flushed; it is rebuilt from the log at the next start");
        }
        let threads = lock(&self.threads).take();
        // Joins both threads: the flusher first, it may still announce what it synced.
        let closed = tokio::task::spawn_blocking(move || {
            if let Some((journal, flusher)) = threads {
                drop(flusher);
                journal.close();
            }
        });
        let _ = closed.await;
    }

    /// What the journal knows of a group, unless damage may have taken something of it.
    fn take_recovered(&self, group: GroupId) -> Result<Option<RecoveredGroup>, StartError> {
        let mut recovered = lock(&self.recovered);
        if recovered.get(&group).is_some_and(|recovered| !recovered.damaged) {
            return Ok(recovered.remove(&group));
        }
        let known = recovered.contains_key(&group);
        let hit = self.damage.iter().find(|damage| match &damage.groups {
            Suspect::Named(groups) => groups.contains(&group),
            Suspect::All => true,
        });
        match hit {
            Some(damage) => {
                let Damage { file, range, reason, .. } = damage;
                let reason = format!("{} bytes {}..{}: {reason}", file.display(), range.start, range.end);
                Err(StartError::Damaged { group, reason })
            }
            None if known => Err(StartError::Damaged { group, reason: "the journal lost a part of it".into() }),
            None => Ok(None),
        }
    }

    async fn create(&self, group: GroupId) -> io::Result<RecoveredGroup> {
        let incarnation = self.lives.next();
        let membership = Bytes::new();
        self.write_through(Record::Switch { group, incarnation, snapshot: None, membership }).await?;
        Ok(RecoveredGroup {
            incarnation,
            vote: None,
            purged: None,
            committed: None,
            segments_synced: None,
            snapshot: None,
            last: None,
            tail: Vec::new(),
            damaged: false,
        })
    }

    async fn open_group(
        &self,
        group: GroupId,
        machine: Box<dyn Machine>,
        preamble: Option<Preamble>,
        voters: &[NodeId],
    ) -> Result<Group, StartError> {
        let io = |source: io::Error| StartError::Io { group, source };
        let (log, machine) = self.open_storage(group, machine).await?;
        let is_new = log.vote().is_none() && log.last().is_none();
        let (config, node_id) = (raft_config(group).map_err(io)?, self.options.node_id);
        let started = Raft::new(node_id, config, NoPeers, LogStore::new(log.clone()), machine).await;
        let raft = started.map_err(|error| match log.damage() {
            Some(damage) => StartError::Damaged { group, reason: damage.to_owned() },
            None => io(io::Error::other(error)),
        })?;
        if is_new && !voters.is_empty() {
            let members: BTreeMap<NodeId, EmptyNode> = voters.iter().map(|id| (*id, EmptyNode::new())).collect();
            raft.initialize(members).await.map_err(|error| io(io::Error::other(error)))?;
        } else if raft.voter_ids().collect::<Vec<_>>() == [node_id] {
            // Nobody else could lead: there is no reason to wait for an election timeout.
            raft.trigger().elect(false).await.map_err(|error| io(io::Error::other(error)))?;
        }
        self.flusher.opened(&log);
        self.holders.opened(&log);
        let proposals = Proposals::start(group, raft.clone(), preamble);
        Ok(Group::new(raft, log, proposals, self.flusher.clone(), (self.admission.clone(), self.tail_budget.clone())))
    }

    /// The log and the machine of a group: what is on disk, or empty.
    pub(crate) async fn open_storage(
        &self,
        group: GroupId,
        machine: Box<dyn Machine>,
    ) -> Result<(Arc<GroupLog>, MachineStore), StartError> {
        let recovered = match self.take_recovered(group)? {
            Some(recovered) => recovered,
            None => self.create(group).await.map_err(|source| StartError::Io { group, source })?,
        };
        let (lives, journal, flusher) = (self.lives.clone(), self.journal.clone(), self.flusher.clone());
        let budget = self.tail_budget.clone();
        let open = move || -> Result<(Arc<GroupLog>, MachineStore), StartError> {
            let io = |source: io::Error| StartError::Io { group, source };
            let segments = lives.open_segments(group, recovered.incarnation, recovered.segments_synced);
            let segments = segments.map_err(|error| segments_failed(group, error))?;
            let log = Arc::new(GroupLog::open(group, lives, journal, recovered, segments, budget).map_err(io)?);
            let machine = MachineStore::open(log.clone(), machine, flusher).map_err(io)?;
            Ok((log, machine))
        };
        let opened = tokio::task::spawn_blocking(open).await;
        opened.map_err(|error| StartError::Io { group, source: io::Error::other(error) })?
    }

    async fn write_through(&self, record: Record) -> io::Result<()> {
        let (tx, rx) = tokio::sync::oneshot::channel();
        self.journal.submit(vec![record], move |result| drop(tx.send(result)));
        rx.await.map_err(|_| io::Error::other("the journal stopped"))?.map(|_| ())
    }
}

impl JournalObserver for Observer {
    fn batch(&self, stats: &BatchStats) {
        self.written.batches.fetch_add(1, Ordering::Relaxed);
        self.written.bytes.fetch_add(stats.bytes, Ordering::Relaxed);
        self.written.submissions.fetch_add(stats.submissions as u64, Ordering::Relaxed);
        let nanos = u64::try_from(stats.duration.as_nanos()).unwrap_or(u64::MAX);
        self.written.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    fn recycle(&self, wishes: &[Recycle]) {
        self.holders.recycle(&self.journal, wishes);
    }

    fn failed(&self, error: &io::Error) {
        self.failure.set(format!("writing the journal failed: {error}"));
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}

fn segments_failed(group: GroupId, error: SegmentError) -> StartError {
    match error {
        SegmentError::Damaged(damage) => StartError::Damaged { group, reason: damage.to_string() },
        other => StartError::Io { group, source: io::Error::other(other) },
    }
}

fn raft_config(group: GroupId) -> io::Result<Arc<Config>> {
    let config = Config {
        cluster_name: format!("group-{group}"),
        heartbeat_interval: HEARTBEAT_MS,
        election_timeout_min: ELECTION_MS_MIN,
        election_timeout_max: ELECTION_MS_MAX,
        // We alone trigger snapshots and purges: see `Group::release_below`.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        enable_pre_vote: Some(true),
        // A restarted leader must win an election, or it proposes other entries under ids that followers hold.
        enable_leader_restore: Some(false),
        ..Config::default()
    };
    Ok(Arc::new(config.validate().map_err(io::Error::other)?))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
