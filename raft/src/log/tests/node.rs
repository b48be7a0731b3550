//! A node over a simulated disk and a state that forgets what was not flushed; and a small machine to host.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;

use crate::data_dir::{ClusterId, DataDir, Identity};
use crate::disk::Disk;
use crate::disk::sim::SimDisk;
use crate::driver::Driver;
use crate::group::{Group, Ticket};
use crate::journal::JournalOptions;
use crate::log::lives::Lives;
use crate::machine::{Applied, Machine, RestoreError, Row, Rows};
use crate::network::Peers;
use crate::registry::{Begin, OpenError, Registry, RegistryOptions, TransferOptions};
use crate::segments::SegmentOptions;
use crate::state::keys::GroupKeys;
use crate::state::{KeyValue, OrderedState, State, StateError, StateView, WriteBatch};
use crate::types::{Decision, GroupId, Incarnation, Item, Kept, LogId, NodeId, Replica, ReplicaId};

pub(crate) const NODE: NodeId = 1;
pub(crate) const REPLICA: Replica = Replica { id: ReplicaId(11), node: NODE };
pub(crate) const LATER: Replica = Replica { id: ReplicaId(12), node: NODE };
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Kinds of items that [`Ledger`] knows.
pub(crate) const KEEP: u8 = 1;
pub(crate) const FORGET: u8 = 2;
pub(crate) const RELEASE: u8 = 3;

const META: u8 = 1;
const SIZES: u8 = 2;
const NEXT: &[u8] = b"next";
const LIVE: &[u8] = b"live";

/// Numbers the items that it keeps. A `KEEP` is kept as 1 offset, a `FORGET` only counted, a `RELEASE` (offset as 8 bytes)
/// says that everything below is dead. Its outcome is the next offset (u64).
#[derive(Default)]
pub(crate) struct Ledger {
    next: u64,
    live_from: u64,
}

impl Machine for Ledger {
    fn restore(&mut self, rows: Vec<Row>) -> Result<(), RestoreError> {
        *self = Self::default();
        for (table, key, value) in rows {
            match (table, key.as_slice()) {
                (META, NEXT) => self.next = number(&value),
                (META, LIVE) => self.live_from = number(&value),
                _ => {}
            }
        }
        Ok(())
    }

    fn apply(&mut self, log_id: LogId, items: &[Item], rows: &mut dyn Rows) -> Vec<Applied> {
        let apply = |item: &Item| {
            let mut decision = Decision::Drop;
            match item.kind {
                KEEP => {
                    let kept = Kept { base_offset: self.next, offset_count: 1, max_timestamp_ms: log_id.index as i64 };
                    decision = Decision::Keep(kept);
                    rows.put(SIZES, &self.next.to_be_bytes(), (item.payload.len() as u64).to_be_bytes().to_vec());
                    self.next += 1;
                }
                RELEASE => {
                    self.live_from = number(&item.payload);
                    rows.put(META, LIVE, item.payload.to_vec());
                }
                _ => {}
            }
            rows.put(META, NEXT, self.next.to_be_bytes().to_vec());
            Applied { outcome: Box::new(self.next), decision }
        };
        items.iter().map(apply).collect()
    }

    fn adopt(&mut self, log_id: LogId, items: &[Item], decisions: Option<&[Decision]>, rows: &mut dyn Rows) -> Vec<Decision> {
        let mut adopted = Vec::new();
        for (number, item) in items.iter().enumerate() {
            adopted.push(match decisions.map(|decisions| decisions[number]) {
                Some(Decision::Keep(kept)) => {
                    self.lose(self.next..kept.base_offset, rows);
                    self.next = kept.base_offset + 1;
                    rows.put(META, NEXT, self.next.to_be_bytes().to_vec());
                    Decision::Keep(kept)
                }
                _ => self.apply(log_id, std::slice::from_ref(item), rows).remove(0).decision,
            });
        }
        adopted
    }

    fn lose(&mut self, offsets: std::ops::Range<u64>, rows: &mut dyn Rows) {
        if !offsets.is_empty() {
            self.next = self.next.max(offsets.end);
            rows.put(META, NEXT, self.next.to_be_bytes().to_vec());
        }
    }

    fn next_offset(&self) -> u64 {
        self.next
    }

    fn live_from(&self) -> u64 {
        self.live_from
    }
}

pub(crate) fn number(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes.try_into().unwrap())
}

/// An [`OrderedState`] that fails once its process is dead.
#[derive(Clone)]
pub(crate) struct MortalState {
    rows: OrderedState,
    dead: Arc<AtomicBool>,
}

impl MortalState {
    fn alive(&self) -> Result<(), StateError> {
        match self.dead.load(Ordering::SeqCst) {
            false => Ok(()),
            true => Err(StateError::Failed { dir: "simulated".into(), reason: "the process is dead".into() }),
        }
    }
}

impl State for MortalState {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        self.alive()?;
        self.rows.get(key)
    }

    fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<KeyValue>, StateError> {
        self.alive()?;
        State::scan(&self.rows, prefix, from, limit)
    }

    fn write(&self, batch: WriteBatch) -> Result<(), StateError> {
        self.alive()?;
        self.rows.write(batch)
    }

    fn flush(&self) -> Result<(), StateError> {
        self.alive()?;
        self.rows.flush()
    }

    fn unflushed_bytes(&self) -> u64 {
        self.rows.unflushed_bytes()
    }

    fn snapshot(&self) -> Box<dyn StateView> {
        self.rows.snapshot()
    }
}

/// One node. Its disk and state outlive its crashes.
pub(crate) struct Node {
    pub(crate) disk: SimDisk,
    pub(crate) state: MortalState,
    dir: TempDir,
    registry: Option<Registry>,
}

pub(crate) fn options() -> RegistryOptions {
    let journal = JournalOptions {
        file_bytes: 1 << 20,
        files_max: 4,
        files_hard_max: 16,
        seal_after: Duration::from_millis(1),
        batch_bytes_max: 128 << 10,
    };
    let segments = SegmentOptions { segment_bytes_max: 8 << 10, ..SegmentOptions::default() };
    RegistryOptions {
        node_id: NODE,
        journal,
        segments,
        proposal_bytes_max: 4 << 20,
        tail_bytes_max: 64 << 20,
        peers: Peers::alone(NODE),
        transfers: TransferOptions::default(),
        driver: Driver::Threads,
    }
}

pub(crate) fn data_dir(path: &Path) -> DataDir {
    DataDir::open(path, || Identity { cluster_id: ClusterId([1; 16]), node_id: NODE, directory_id: [2; 16], created_at_ms: 0 })
        .unwrap()
}

impl Node {
    pub(crate) fn new(seed: u64) -> Self {
        let state = MortalState { rows: OrderedState::default(), dead: Arc::default() };
        let mut node = Self { disk: SimDisk::new(seed), state, dir: tempfile::tempdir().unwrap(), registry: None };
        node.open();
        node
    }

    pub(crate) fn registry(&self) -> &Registry {
        self.registry.as_ref().unwrap()
    }

    pub(crate) fn groups_dir(&self) -> PathBuf {
        self.dir.path().join("groups")
    }

    fn open(&mut self) {
        self.try_open().unwrap();
    }

    /// Starts what does not run.
    pub(crate) fn try_open(&mut self) -> Result<(), OpenError> {
        let (disk, state): (Arc<dyn Disk>, Arc<dyn State>) = (Arc::new(self.disk.clone()), Arc::new(self.state.clone()));
        self.registry = Some(Registry::open(options(), data_dir(self.dir.path()), disk, state)?);
        Ok(())
    }

    /// Starts a group of this node alone, or one that waits for a leader.
    pub(crate) async fn start(&self, group: GroupId, voters: &[Replica]) -> Group {
        self.start_as(REPLICA.id, group, voters).await
    }

    /// As a replica that came after the first one.
    pub(crate) async fn start_later(&self, group: GroupId) -> Group {
        self.start_as(LATER.id, group, &[LATER]).await
    }

    async fn start_as(&self, replica: ReplicaId, group: GroupId, voters: &[Replica]) -> Group {
        let begin = if voters.is_empty() { Begin::Wait } else { Begin::Initialize(voters.to_vec()) };
        let started = self.registry().start(group, replica, Box::new(Ledger::default()), None, begin).await.unwrap();
        if !voters.is_empty() {
            started.wait_ready(PATIENCE).await.unwrap();
        }
        started
    }

    /// Stops cleanly and starts again.
    pub(crate) async fn restart(&mut self) {
        self.registry().close().await;
        self.registry = None;
        self.open();
    }

    /// The power goes: what was not synced or flushed may be gone. Everything opened before is dead.
    pub(crate) fn power_cut(&mut self) {
        self.state.dead.store(true, Ordering::SeqCst);
        self.disk.power_cut();
        self.come_back();
    }

    /// The process dies, the machine lives: the page cache stays, what only the process held is gone.
    pub(crate) fn kill(&mut self) {
        self.stay_killed();
        self.open();
    }

    /// As [`Node::kill`], and nobody starts it.
    pub(crate) fn stay_killed(&mut self) {
        self.state.dead.store(true, Ordering::SeqCst);
        self.disk.kill();
        self.forget();
    }

    fn come_back(&mut self) {
        self.forget();
        self.open();
    }

    fn forget(&mut self) {
        self.state.rows.power_cut();
        self.registry = None;
        self.state = MortalState { rows: self.state.rows.clone(), dead: Arc::default() };
    }

    /// All lives of which rows or files are here, valid or not.
    pub(crate) fn lives(&self) -> Vec<(GroupId, Incarnation)> {
        let disk = Arc::new(self.disk.clone());
        let lives = Lives::new(disk, self.groups_dir(), options().segments, Arc::new(self.state.clone()), <_>::default(), 0);
        lives.all().unwrap().into_iter().collect()
    }

    /// The machine's rows in the life that is valid now.
    pub(crate) fn rows(&self, group: &Group) -> Vec<(Vec<u8>, Vec<u8>)> {
        let keys = GroupKeys::new(group.id(), group.log().incarnation());
        let rows = State::scan(&self.state, &keys.prefix(), &keys.row(1, b""), usize::MAX).unwrap();
        rows.into_iter().map(|(key, value)| (key[16..].to_vec(), value)).collect()
    }
}

/// Proposes one item and returns the next offset.
pub(crate) async fn propose(group: &Group, kind: u8, payload: impl Into<Bytes>) -> u64 {
    *group.propose(Item { kind, payload: payload.into() }).await.unwrap().downcast::<u64>().unwrap()
}

/// Payload number `n`: told apart from all others by its content.
pub(crate) fn payload(n: u64) -> Vec<u8> {
    let mut payload = n.to_be_bytes().to_vec();
    payload.resize(100 + (n as usize * 37) % 400, n as u8);
    payload
}

/// All kept items from `offset` on: offset and payload.
pub(crate) async fn kept(group: &Group, mut offset: u64) -> Vec<(u64, Bytes)> {
    let mut all = Vec::new();
    loop {
        let some = group.read(offset, 4 << 10).await.unwrap();
        let Some(last) = some.last() else { return all };
        offset = last.kept.base_offset + u64::from(last.kept.offset_count);
        all.extend(some.into_iter().map(|stored| (stored.kept.base_offset, stored.payload)));
    }
}

/// What [`kept`] returns if exactly the payloads of `numbers` were kept, one behind the other from offset 0.
pub(crate) fn expected(numbers: std::ops::Range<u64>) -> Vec<(u64, Bytes)> {
    numbers.map(|n| (n, Bytes::from(payload(n)))).collect()
}

/// Proposes the payloads `numbers`, a few at once: an entry may carry several, and a segment holds several entries.
pub(crate) async fn fill(group: &Group, numbers: std::ops::Range<u64>) {
    let mut tickets = Vec::new();
    for n in numbers {
        let item = Item { kind: KEEP, payload: payload(n).into() };
        tickets.push(group.admit(item.payload.len()).await.unwrap().submit(item));
        if tickets.len() == 4 {
            acknowledged(&mut tickets).await;
        }
    }
    acknowledged(&mut tickets).await;
}

async fn acknowledged(tickets: &mut Vec<Ticket>) {
    for ticket in tickets.drain(..) {
        ticket.outcome().await.unwrap();
    }
}
