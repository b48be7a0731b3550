//! All groups of a node over one journal, one state and one flusher.
//!
//! - `options.rs` what it is opened with, and its errors
//! - `states.rs` the state of each group, and who may change it
//! - `start.rs` how a group starts, `restart.rs` again, `closing.rs` how it ends, `remove.rs` how it goes for good
//! - `suspects.rs` groups whose data is damaged: they stay down, until what they had is set aside
//! - `accept_loss.rs` such a group without other replicas: it begins again from what is left
//! - `workers.rs` what drives the journal and the flusher
//! - `pulse.rs` the heartbeats of all groups · `elections.rs` campaigns for groups whose leader's node is gone

mod accept_loss;
mod closing;
mod elections;
mod options;
mod pulse;
mod remove;
mod restart;
mod start;
mod states;
mod suspects;
mod workers;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use closing::Closing;
use elections::Elections;
#[cfg(test)]
pub(crate) use elections::SILENCE_MAX;
use workers::Workers;

use crate::admission::Admission;
use crate::data_dir::DataDir;
use crate::disk::Disk;
use crate::disk::patient::PatientDisk;
use crate::failure::Failure;
use crate::figures::{JournalCounters, JournalFigures, TransferFigures};
use crate::flusher::{Flusher, FlusherHandle};
use crate::group::Group;
use crate::holders::Holders;
use crate::journal::{BatchStats, Damage, Journal, JournalHandle, JournalObserver, Record, Recycle};
use crate::log::lives::Lives;
pub use crate::log::salvage::Salvaged;
use crate::network::{Peers, Transfers};
use crate::standing::Changes;
use crate::state::{State, WatchedState};
use crate::tail_budget::TailBudget;
use crate::tripwire;
use crate::troubles::{Subject, Troubles};
use crate::types::{GroupId, ReplicaId};
pub use options::{Begin, OpenError, RegistryOptions, StartError, TransferOptions};
pub(crate) use states::Groups;
pub use states::{Cause, Outage};

/// See the module.
pub struct Registry {
    options: RegistryOptions,
    /// Held for its lock.
    _data_dir: DataDir,
    lives: Arc<Lives>,
    /// How often the journal was opened.
    boot_epoch: u64,
    journal: JournalHandle,
    flusher: FlusherHandle,
    holders: Holders,
    failure: Failure,
    troubles: Troubles,
    admission: Admission,
    tail_budget: TailBudget,
    damage: Vec<Damage>,
    groups: Arc<Groups>,
    /// Held while a damaged group begins again: there is one at a time.
    salvaging: tokio::sync::Mutex<()>,
    /// What came of it.
    salvaged: Mutex<BTreeMap<GroupId, Salvaged>>,
    changes: Arc<Changes>,
    transfers: Transfers,
    /// Deletes what could not be deleted at once.
    _cleaning: AbortOnDropHandle<()>,
    /// Cancelled when the registry is closed or dropped.
    stop: CancellationToken,
    written: Arc<JournalCounters>,
    workers: Mutex<Option<Workers>>,
}

/// Answers the journal: passes its wishes to the flusher, and its failure on.
struct Observer {
    holders: Holders,
    journal: JournalHandle,
    failure: Failure,
    troubles: Troubles,
    written: Arc<JournalCounters>,
}

impl Registry {
    /// Opens the journal beside `state`. Groups start one by one afterwards. Blocks while it recovers.
    ///
    /// To be called on a tokio runtime.
    ///
    /// # Errors
    /// See [`OpenError`]. Damage of single groups is none: those groups refuse to start.
    pub fn open(
        options: RegistryOptions,
        data_dir: DataDir,
        disk: Arc<dyn Disk>,
        state: Arc<dyn State>,
    ) -> Result<Self, OpenError> {
        let (failure, troubles) = (Failure::new(), Troubles::new());
        let disk: Arc<dyn Disk> = Arc::new(PatientDisk::new(disk, &options.driver, troubles.clone()));
        let state: Arc<dyn State> = Arc::new(WatchedState::new(state, failure.clone(), troubles.clone()));
        let (flusher, flusher_handle) = Flusher::new(state.clone(), failure.clone(), troubles.clone());
        let written = Arc::<JournalCounters>::default();
        let (mut journal, mut recovered) = Journal::open(disk.clone(), &data_dir.journal_dir(), options.journal.clone())?;
        let driver = options.driver.clone();
        let lives =
            Lives::new(disk, data_dir.groups_dir(), options.segments, state, (driver, troubles.clone()), recovered.boot_epoch);
        recovered.call_as_node(ReplicaId(options.node_id));
        let unknown = suspects::survey(&mut journal, &lives, &mut recovered)?;
        let lives = Arc::new(lives);
        let handle = journal.handle();
        let holders = Holders::new(flusher_handle.clone(), &recovered.groups);
        let observer = Observer {
            holders: holders.clone(),
            journal: handle.clone(),
            failure: failure.clone(),
            troubles: troubles.clone(),
            written: written.clone(),
        };
        journal.observe(Arc::new(observer));
        let workers = Workers::start(&options.driver, journal, (flusher, flusher_handle.clone()))?;
        let admission = Admission::new(options.proposal_bytes_max);
        let tail_budget = TailBudget::new(options.tail_bytes_max);
        let transfers = Transfers::new(options.transfers);
        let changes = Changes::new();
        let states = suspects::states_at_open(recovered.groups, &recovered.damage, unknown);
        let groups = Groups::new(states, recovered.removed, (changes.clone(), troubles.clone()));
        options.peers.host(groups.clone(), transfers.clone(), recovered.boot_epoch);
        let registry = Self {
            options,
            _data_dir: data_dir,
            _cleaning: AbortOnDropHandle::new(tokio::spawn(lives.clone().keep_clean())),
            lives,
            boot_epoch: recovered.boot_epoch,
            journal: handle,
            flusher: flusher_handle,
            holders,
            failure,
            troubles,
            admission,
            tail_budget,
            damage: recovered.damage,
            groups,
            salvaging: tokio::sync::Mutex::default(),
            salvaged: Mutex::default(),
            changes,
            transfers,
            stop: CancellationToken::new(),
            written,
            workers: Mutex::new(Some(workers)),
        };
        let elections = Elections::new(registry.options.peers.clone(), registry.groups.clone(), recovered.boot_epoch);
        tokio::spawn(elections.run(registry.changes.clone(), registry.stop.clone()));
        tokio::spawn(pulse::run(registry.groups.clone(), registry.stop.clone()));
        let told = tripwire::run(registry.groups.clone(), registry.options.peers.clone(), registry.stop.clone());
        tokio::spawn(told);
        Ok(registry)
    }

    /// The flag that says that storage failed.
    #[must_use]
    pub fn failure(&self) -> &Failure {
        &self.failure
    }

    /// What is wrong with this node's storage and groups now.
    #[must_use]
    pub fn troubles(&self) -> &Troubles {
        &self.troubles
    }

    /// Groups that this node has data of, or was to create, and that do not run (yet).
    #[must_use]
    pub fn idle_groups(&self) -> Vec<GroupId> {
        self.groups.not_running()
    }

    /// The replica of a group that is here, running or not; `None` if there is none, nobody knows which, or it is just changing.
    #[must_use]
    pub fn replica_here(&self, group: GroupId) -> Option<ReplicaId> {
        self.groups.replica_here(group)
    }

    /// The last replica of a group that was here and is removed.
    #[must_use]
    pub fn replica_removed(&self, group: GroupId) -> Option<ReplicaId> {
        self.groups.removed(group)
    }

    /// What the journal found damaged when it was opened.
    #[must_use]
    pub fn damage(&self) -> &[Damage] {
        &self.damage
    }

    /// What the journal has written since it was opened.
    #[must_use]
    pub fn journal_figures(&self) -> JournalFigures {
        self.written.read()
    }

    /// Snapshots that went from node to node since the start.
    #[must_use]
    pub fn transfer_figures(&self) -> TransferFigures {
        self.transfers.figures()
    }

    /// Times that this node began to lead a group since the start.
    #[must_use]
    pub fn elections_won(&self) -> u64 {
        self.changes.elections_won()
    }

    /// The links to other nodes.
    #[must_use]
    pub fn peers(&self) -> &Peers {
        &self.options.peers
    }

    /// Changes whenever leader, term or membership of any group changed, or its core died; see
    /// [`Registry::take_changed`].
    #[must_use]
    pub fn leader_changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The groups that changed since this was called last.
    #[must_use]
    pub fn take_changed(&self) -> BTreeSet<GroupId> {
        self.changes.take()
    }

    /// A group that runs here.
    #[must_use]
    pub fn group(&self, group: GroupId) -> Option<Group> {
        self.groups.running(group)
    }

    /// Bytes of memory that proposals and entries take which are not yet in segments; an entry whose proposer
    /// still waits counts as both.
    #[must_use]
    pub fn unwritten_bytes(&self) -> u64 {
        self.admission.taken_bytes() as u64 + self.tail_budget.bytes()
    }

    /// Closes the links, stops all groups, flushes what they applied, seals the journal. Afterwards a start has nothing to
    /// repair.
    pub async fn close(&self) {
        self.stop.cancel();
        // First, so that the other replicas know at once that nobody leads here any more.
        self.options.peers.close().await;
        for group in self.groups.close() {
            let closing = Closing::begin(&group);
            if self.wait_ended(&closing).await.is_err() {
                continue;
            }
            if let Err(error) = self.flusher.sync_and_wait(group.log()).await {
                tracing::warn!(group = %group.id(), %error, "not all applied entries were flushed; the journal has them");
            }
        }
        if let Err(error) = self.flusher.flush_state().await {
            tracing::warn!(%error, "the state was not flushed; it is rebuilt from the log at the next start");
        }
        let workers = lock(&self.workers).take();
        if let Some(workers) = workers {
            workers.close().await;
        }
    }

    async fn write_through(&self, records: Vec<Record>) -> io::Result<()> {
        let (tx, rx) = tokio::sync::oneshot::channel();
        self.journal.submit(records, move |result| drop(tx.send(result)));
        rx.await.map_err(|_| io::Error::other("the journal stopped"))?.map(|_| ())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl JournalObserver for Observer {
    fn batch(&self, stats: &BatchStats) {
        self.written.count(stats);
    }

    fn recycle(&self, wishes: &[Recycle]) {
        self.holders.recycle(&self.journal, wishes);
    }

    fn waiting(&self, reason: Option<&io::Error>) {
        match reason {
            Some(error) => self.troubles.raise_error(Subject::Journal, error),
            None => self.troubles.clear(Subject::Journal),
        }
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
