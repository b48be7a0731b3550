//! openraft's own storage suite, on the real store over every provider.
//!
//! The suite does two things that no Raft does, and that our stores refuse as signs of a lost log. It applies entries
//! that were never appended, and expects that the log does not show them: so the machine store is given a log of
//! its own here, into which everything is appended just before it is applied. And it starts a log at an odd index without
//! purging what would be before: so what is read is cut to where the log starts. Both stores are the real ones.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, OnceLock};

use futures::{Stream, TryStreamExt, stream};
use openraft::OptionalSend;
use openraft::entry::RaftEntry as _;
use openraft::storage::{EntryResponder, IOFlushed, LogState, RaftLogReader, RaftLogStorage, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::alias::{SnapshotMetaOf, SnapshotOf};
use tempfile::TempDir;

use super::node::{Ledger, data_dir, options};
use crate::disk::Disk;
use crate::disk::real::RealDisk;
use crate::disk::sim::SimDisk;
use crate::log::convert::{entry_from_raft, log_id_to_raft};
use crate::log::group_log::GroupLog;
use crate::log::machine_store::{Builder, MachineStore};
use crate::log::store::LogStore;
use crate::log::type_config::{OnNode, RaftEntry, RaftLogId, RaftMembership, RaftVote, TypeConfig};
use crate::registry::Registry;
use crate::snapshot::{Cursor, IncomingSnapshot, SnapshotData};
use crate::state::{OrderedState, RocksOptions, RocksState, State};
use crate::types::{GroupId, LogId, ReplicaId};

struct Stores<P>(P);

/// The machine store over a log of its own.
struct Appending {
    store: MachineStore,
    log: Arc<GroupLog>,
}

/// The log store of a log that starts anywhere.
#[derive(Clone)]
struct StartsAnywhere {
    store: LogStore,
    start: Arc<OnceLock<u64>>,
}

type Provider = (Arc<dyn Disk>, Arc<dyn State>);

impl<P: Fn(&TempDir) -> Provider + Send + Sync> StoreBuilder<TypeConfig, StartsAnywhere, Appending, (TempDir, Registry)>
    for Stores<P>
{
    async fn build(&self) -> Result<((TempDir, Registry), StartsAnywhere, Appending), openraft::StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let (disk, state) = (self.0)(&dir);
        let registry = Registry::open(options(), data_dir(&dir.path().join("data")), disk, state).unwrap();
        let (log, _) = registry.open_without_core(GroupId(1), Box::new(Ledger::default())).await;
        let (own_log, store) = registry.open_without_core(GroupId(2), Box::new(Ledger::default())).await;
        let log = StartsAnywhere { store: LogStore::new(log), start: Arc::default() };
        Ok(((dir, registry), log, Appending { store, log: own_log }))
    }
}

impl RaftLogReader<TypeConfig> for StartsAnywhere {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<RaftEntry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let Some(start) = self.start.get() else { return Ok(Vec::new()) };
        let from = match range.start_bound() {
            Bound::Included(from) => *from.max(start),
            Bound::Excluded(from) => (*from + 1).max(*start),
            Bound::Unbounded => *start,
        };
        self.store.try_get_log_entries((Bound::Included(from), range.end_bound().cloned())).await
    }

    async fn read_vote(&mut self) -> io::Result<Option<RaftVote>> {
        self.store.read_vote().await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<RaftEntry>> {
        self.store.limited_get_log_entries(start, end).await
    }
}

impl RaftLogStorage<TypeConfig> for StartsAnywhere {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        self.store.get_log_state().await
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &RaftVote) -> io::Result<()> {
        self.store.save_vote(vote).await
    }

    async fn save_committed(&mut self, committed: Option<RaftLogId>) -> io::Result<()> {
        self.store.save_committed(committed).await
    }

    async fn read_committed(&mut self) -> io::Result<Option<RaftLogId>> {
        self.store.read_committed().await
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<RaftEntry> = entries.into_iter().collect();
        self.start.get_or_init(|| entries[0].log_id.index);
        self.store.append(entries, callback).await
    }

    async fn truncate_after(&mut self, last_log_id: Option<RaftLogId>) -> io::Result<()> {
        self.store.truncate_after(last_log_id).await
    }

    async fn purge(&mut self, log_id: RaftLogId) -> io::Result<()> {
        self.store.purge(log_id).await
    }
}

impl Appending {
    async fn append_and_apply(&mut self, (entry, responder): EntryResponder<TypeConfig>) -> io::Result<()> {
        self.log.append(vec![entry_from_raft(entry.clone())], |result| result.unwrap())?;
        self.store.apply(stream::iter([Ok((entry, responder))])).await
    }
}

impl RaftStateMachine<TypeConfig> for Appending {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<RaftLogId>, RaftMembership)> {
        self.store.applied_state().await
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            while let Some(last) = self.log.last().filter(|last| last.index + 1 < entry.log_id.index) {
                let log_id = log_id_to_raft(LogId { index: last.index + 1, ..last });
                self.append_and_apply((RaftEntry::new_blank(log_id), None)).await?;
            }
            self.append_and_apply((entry, responder)).await?;
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self::SnapshotBuilder {
        self.store.get_snapshot_builder().await
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMetaOf<TypeConfig>, snapshot: SnapshotData) -> io::Result<()> {
        let SnapshotData::View(view) = snapshot else { panic!("the suite passes what it was given") };
        let mut incoming = IncomingSnapshot::begin(&self.log, view.head().unwrap())?;
        while *incoming.cursor() != Cursor::End {
            incoming.accept(view.chunk(incoming.cursor(), 1)?.encode())?;
        }
        self.store.install_snapshot(meta, SnapshotData::Received(Box::new(incoming.finish()?))).await
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf<TypeConfig, SnapshotData>>> {
        self.store.get_current_snapshot().await
    }
}

/// The suite numbers its replicas by itself.
impl From<u64> for ReplicaId {
    fn from(id: u64) -> Self {
        Self(id)
    }
}

/// And does not care where they live.
impl Default for OnNode {
    fn default() -> Self {
        Self(1)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_keeps_openrafts_contract_on_real_disk_and_rocksdb() {
    let provide = |dir: &TempDir| -> Provider {
        let state = RocksState::open(&dir.path().join("state"), &RocksOptions::default()).unwrap();
        (Arc::new(RealDisk), Arc::new(state))
    };
    Suite::test_all(Stores(provide)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_keeps_openrafts_contract_on_simulated_disk_and_ordered_state() {
    let provide = |_: &TempDir| -> Provider { (Arc::new(SimDisk::new(7)), Arc::new(OrderedState::default())) };
    Suite::test_all(Stores(provide)).await.unwrap();
}
