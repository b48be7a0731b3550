//! All groups of a node over one journal, one state and one flusher.
//!
//! - `options.rs` what it is opened with, and its errors · `start.rs` how a group starts, `restart.rs` again
//! - `suspects.rs` groups whose data is damaged: they stay down, until what they had is set aside
//! - `accept_loss.rs` such a group without other replicas: it begins again from what is left
//! - `workers.rs` what drives the journal and the flusher
//! - `pulse.rs` the heartbeats of all groups · `elections.rs` campaigns for groups whose leader's node is gone

mod accept_loss;
mod elections;
mod options;
mod pulse;
mod restart;
mod start;
mod suspects;
mod workers;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use elections::Elections;
#[cfg(test)]
pub(crate) use elections::SILENCE_MAX;
use workers::Workers;

use crate::data_dir::DataDir;
use crate::disk::Disk;
use crate::disk::patient::PatientDisk;
use crate::failure::Failure;
use crate::figures::{JournalCounters, JournalFigures, TransferFigures};
use crate::flusher::{Flusher, FlusherHandle};
use crate::group::{ADMISSION_UNIT_BYTES, Group};
use crate::holders::Holders;
use crate::journal::{BatchStats, Damage, Journal, JournalHandle, JournalObserver, Record, RecoveredGroup, Recycle};
use crate::log::lives::Lives;
pub use crate::log::salvage::Salvaged;
use crate::network::{Peers, Transfers};
use crate::standing::Changes;
use crate::state::{State, WatchedState};
use crate::tail_budget::TailBudget;
use crate::troubles::{Subject, Troubles};
use crate::types::GroupId;
pub use options::{Begin, OpenError, RegistryOptions, StartError, TransferOptions};

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
    admission: Arc<Semaphore>,
    tail_budget: TailBudget,
    damage: Vec<Damage>,
    recovered: Mutex<BTreeMap<GroupId, RecoveredGroup>>,
    /// Groups that have data and cannot run. Another attempt must not begin a new life.
    down: Mutex<BTreeMap<GroupId, Down>>,
    /// Held while a damaged group begins again: there is one at a time.
    salvaging: tokio::sync::Mutex<()>,
    /// What came of it.
    salvaged: Mutex<BTreeMap<GroupId, Salvaged>>,
    running: Running,
    changes: Arc<Changes>,
    transfers: Transfers,
    /// Cancelled when the registry is closed or dropped.
    stop: CancellationToken,
    written: Arc<JournalCounters>,
    workers: Mutex<Option<Workers>>,
}

/// A group that has data and cannot run.
struct Down {
    /// What the journal knows of it; `None`: nothing.
    known: Option<RecoveredGroup>,
    /// Whether its data is damaged, and not merely could not be read.
    damaged: bool,
    reason: String,
}

/// The groups that run, shared with the journal's wishes.
pub(crate) type Running = Arc<Mutex<BTreeMap<GroupId, Group>>>;

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
        let running = Running::default();
        let written = Arc::<JournalCounters>::default();
        let (mut journal, mut recovered) = Journal::open(disk.clone(), &data_dir.journal_dir(), options.journal.clone())?;
        let driver = options.driver.clone();
        let lives =
            Lives::new(disk, data_dir.groups_dir(), options.segments, state, (driver, troubles.clone()), recovered.boot_epoch);
        lives.number_behind_all()?;
        suspects::name_all(&mut journal, &lives, &mut recovered)?;
        // Where damage took a part of the journal, what it does not name may be what it named.
        let unknown = if recovered.damage.is_empty() {
            lives.delete_orphans(&recovered.groups.iter().map(|(id, group)| (*id, group.incarnation)).collect())?
        } else {
            BTreeMap::new()
        };
        let down = unknown.into_iter().map(|(group, reason)| (group, Down::unknown(reason))).collect();
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
        let admission = Arc::new(Semaphore::new(options.proposal_bytes_max / ADMISSION_UNIT_BYTES));
        let tail_budget = TailBudget::new(options.tail_bytes_max);
        let transfers = Transfers::new(options.transfers);
        options.peers.host(running.clone(), transfers.clone(), recovered.boot_epoch);
        let registry = Self {
            options,
            _data_dir: data_dir,
            lives: Arc::new(lives),
            boot_epoch: recovered.boot_epoch,
            journal: handle,
            flusher: flusher_handle,
            holders,
            failure,
            troubles,
            admission,
            tail_budget,
            damage: recovered.damage,
            recovered: Mutex::new(recovered.groups),
            down: Mutex::new(down),
            salvaging: tokio::sync::Mutex::default(),
            salvaged: Mutex::default(),
            running,
            changes: Changes::new(),
            transfers,
            stop: CancellationToken::new(),
            written,
            workers: Mutex::new(Some(workers)),
        };
        let elections = Elections::new(registry.options.peers.clone(), registry.running.clone(), recovered.boot_epoch);
        tokio::spawn(elections.run(registry.changes.clone(), registry.stop.clone()));
        tokio::spawn(pulse::run(registry.running.clone(), registry.stop.clone()));
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

    /// Groups that this node has data of and that do not run (yet).
    #[must_use]
    pub fn recovered_groups(&self) -> Vec<GroupId> {
        let down = lock(&self.down);
        let down: Vec<GroupId> = down.iter().filter(|(_, down)| down.known.is_some()).map(|(id, _)| *id).collect();
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
        lock(&self.running).get(&group).cloned()
    }

    /// Bytes of memory that proposals and entries take which are not yet in segments; an entry whose proposer
    /// still waits counts as both.
    #[must_use]
    pub fn unwritten_bytes(&self) -> u64 {
        let units = self.options.proposal_bytes_max / ADMISSION_UNIT_BYTES;
        let admitted = units.saturating_sub(self.admission.available_permits()) * ADMISSION_UNIT_BYTES;
        admitted as u64 + self.tail_budget.bytes()
    }

    /// Stops a group and deletes its data.
    ///
    /// # Errors
    /// If the journal or the state cannot be written.
    pub async fn remove(&self, group: GroupId) -> io::Result<()> {
        let running = lock(&self.running).remove(&group);
        self.transfers.forget(group).await;
        let incarnation = match &running {
            Some(running) => {
                running.shutdown().await;
                Some(running.log().incarnation())
            }
            None => {
                let recovered = lock(&self.recovered).remove(&group).map(|recovered| recovered.incarnation);
                let known = lock(&self.down).get(&group).and_then(Down::incarnation);
                let down = known.inspect(|_| drop(lock(&self.down).remove(&group)));
                recovered.or(down)
            }
        };
        let Some(incarnation) = incarnation else { return Ok(()) };
        drop(running);
        // First the word that the group is gone, then its data: a crash between leaves what the mark says to delete.
        let lives = self.lives.clone();
        self.options.driver.try_run(move || lives.mark_removed(group, incarnation)).await?;
        self.write_through(vec![Record::Remove { group }]).await?;
        self.holders.removed(group);
        // Nothing may be written into the group's directory once it is deleted.
        self.flusher.barrier().await?;
        let lives = self.lives.clone();
        let delete = move || {
            lives.delete(group, incarnation)?;
            lives.set_joining(group, false)
        };
        self.options.driver.try_run(delete).await?;
        self.troubles.clear_group(group);
        Ok(())
    }

    /// Closes the links, stops all groups, flushes what they applied, seals the journal. Afterwards a start has nothing to
    /// repair.
    pub async fn close(&self) {
        self.stop.cancel();
        // First, so that the other replicas know at once that nobody leads here any more.
        self.options.peers.close().await;
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
