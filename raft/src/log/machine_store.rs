//! openraft's state machine: drives a [`Machine`], writes its rows with the applied log id, and tells the log what
//! was decided about each item.

use std::io;
use std::sync::Arc;

use futures::{Stream, TryStreamExt};
use openraft::storage::{ApplyResponder, EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::type_config::alias::{SnapshotMetaOf, SnapshotOf};
use openraft::{EntryPayload, OptionalSend};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::convert::{encode_stored_membership, log_id_from_raft, log_id_to_raft};
use super::decisions;
use super::group_log::GroupLog;
use super::restore;
use super::type_config::{Command, Outcomes, RaftEntry, RaftLogId, RaftMembership, TypeConfig};
use crate::flusher::FlusherHandle;
use crate::machine::{Machine, Rows};
use crate::planted::{Bug, is_planted};
use crate::snapshot::{Held, SnapshotData, SnapshotView};
use crate::state::WriteBatch;
use crate::state::keys::GroupKeys;
use crate::tripwire::chain::Link;
use crate::types::{Decision, Incarnation, Item, LogId};

/// Bytes of rows after which an apply call writes what it has.
const WRITE_BYTES: u64 = 1 << 20;

/// See the module.
pub(crate) struct MachineStore {
    log: Arc<GroupLog>,
    machine: Box<dyn Machine>,
    keys: GroupKeys,
    flusher: FlusherHandle,
    applied: Option<LogId>,
    membership: RaftMembership,
    /// What is on its way to another replica.
    held: Held,
    /// Cancelled when this is dropped: with the task that applies entries, however that ends.
    gone: DropGuard,
}

/// What one apply call has gathered and not yet written.
#[derive(Default)]
struct Pending {
    batch: WriteBatch,
    decisions: Vec<u8>,
    first_index: Option<u64>,
    payload_bytes: u64,
    responses: Vec<(ApplyResponder<TypeConfig>, Outcomes)>,
}

struct MachineRows<'a> {
    batch: &'a mut WriteBatch,
    keys: &'a GroupKeys,
}

impl Rows for MachineRows<'_> {
    fn put(&mut self, table: u8, key: &[u8], value: Vec<u8>) {
        self.batch.put(self.keys.row(table, key), value);
    }

    fn delete(&mut self, table: u8, key: &[u8]) {
        self.batch.delete(self.keys.row(table, key));
    }
}

impl MachineStore {
    /// Loads the machine from its rows, and gives the log the decisions that it lost in a restart.
    ///
    /// # Errors
    /// If a row cannot be read or decoded.
    pub(crate) fn open(log: Arc<GroupLog>, mut machine: Box<dyn Machine>, flusher: FlusherHandle) -> io::Result<Self> {
        let keys = GroupKeys::new(log.group(), log.incarnation());
        let restored = restore::restore(&**log.lives().state(), &keys, &log)?;
        machine.restore(restored.rows).map_err(restore::undecodable)?;
        machine.published();
        let (applied, membership) = (restored.applied, restored.membership);
        let gone = CancellationToken::new().drop_guard();
        Ok(Self { log, machine, keys, flusher, applied, membership, held: Held::default(), gone })
    }

    /// What is on its way to another replica.
    pub(crate) fn held(&self) -> Held {
        self.held.clone()
    }

    /// Cancelled when nothing will be applied any more.
    pub(crate) fn gone(&self) -> CancellationToken {
        self.gone.token().clone()
    }

    fn apply_entry(&mut self, entry: RaftEntry, pending: &mut Pending) -> io::Result<Outcomes> {
        let log_id = log_id_from_raft(&entry.log_id);
        let (mut applied, mut checksums) = (Vec::new(), Arc::default());
        match entry.payload {
            EntryPayload::Blank => self.log.chain().add(log_id, Link::Blank, std::iter::empty()),
            EntryPayload::Membership(membership) => {
                self.membership = RaftMembership::new(Some(entry.log_id), membership);
                let stored = encode_stored_membership(&self.membership);
                let link = (0, crc32c::crc32c(&stored), Decision::Drop);
                self.log.chain().add(log_id, Link::Membership, std::iter::once(link));
                pending.batch.put(self.keys.membership(), stored.to_vec());
            }
            EntryPayload::Normal(Command(items)) => {
                applied = self.apply_items(log_id, &items, pending)?;
                // The segment gets the same.
                checksums = items.iter().map(|item| crc32c::crc32c(&item.payload)).collect::<Arc<[u32]>>();
                let links = items.iter().zip(&*checksums).zip(&applied);
                let links = links.map(|((item, checksum), applied)| (item.kind, *checksum, applied.decision));
                self.log.chain().add(log_id, Link::Items, links);
            }
        }
        let decisions: Arc<[Decision]> = applied.iter().map(|applied| applied.decision).collect();
        decisions::encode(log_id.index, &decisions, &mut pending.decisions);
        pending.first_index.get_or_insert(log_id.index);
        self.log.mark_applied(log_id.index, decisions, checksums)?;
        self.applied = Some(log_id);
        Ok(Outcomes(applied.into_iter().map(|applied| applied.outcome).collect()))
    }

    fn apply_items(&mut self, log_id: LogId, items: &[Item], pending: &mut Pending) -> io::Result<Vec<crate::machine::Applied>> {
        pending.payload_bytes += items.iter().map(|item| item.payload.len() as u64).sum::<u64>();
        let mut rows = MachineRows { batch: &mut pending.batch, keys: &self.keys };
        let applied = self.machine.apply(log_id, items, &mut rows);
        if applied.len() != items.len() {
            let (got, want) = (applied.len(), items.len());
            return Err(io::Error::other(format!("the machine answered {got} of {want} items of entry {log_id}")));
        }
        Ok(applied)
    }

    /// Writes what was gathered, then tells readers and proposers.
    fn publish(&mut self, pending: Pending) -> io::Result<()> {
        let (Some(first), Some(applied)) = (pending.first_index, self.applied) else { return Ok(()) };
        let mut batch = pending.batch;
        if !is_planted(Bug::DecisionsForgotten) {
            batch.put(self.keys.decisions(first), pending.decisions);
        }
        if is_planted(Bug::AppliedBeforeRows) {
            let mut alone = WriteBatch::default();
            alone.put(self.keys.applied(), GroupKeys::encode_applied(applied, self.log.chain().end()));
            self.log.lives().state().write(alone).map_err(io::Error::other)?;
        }
        batch.put(self.keys.applied(), GroupKeys::encode_applied(applied, self.log.chain().end()));
        self.log.lives().state().write(batch).map_err(io::Error::other)?;
        self.log.note_decision_row(first, applied.index);
        self.flusher.applied(pending.payload_bytes);
        if self.log.is_memory_short() {
            self.flusher.write_all();
        }
        self.machine.published();
        for (responder, outcomes) in pending.responses {
            responder.send(outcomes);
        }
        if self.log.wants_flush() {
            self.flusher.write(&self.log);
        }
        Ok(())
    }
}

impl RaftStateMachine<TypeConfig> for MachineStore {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<RaftLogId>, RaftMembership)> {
        Ok((self.applied.map(log_id_to_raft), self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let mut pending = Pending::default();
        while let Some((entry, responder)) = entries.try_next().await? {
            // A follower may learn that an entry is committed before it is durable here.
            if !is_planted(Bug::ApplyBeforeDurable) && !is_planted(Bug::AckBeforeSync) {
                self.log.wait_durable(entry.log_id.index).await?;
            }
            let outcomes = self.apply_entry(entry, &mut pending)?;
            pending.responses.extend(responder.map(|responder| (responder, outcomes)));
            if pending.batch.bytes() >= WRITE_BYTES {
                self.publish(std::mem::take(&mut pending))?;
            }
        }
        self.publish(pending)
    }

    async fn get_snapshot_builder(&mut self) -> Self::SnapshotBuilder {
        Builder { view: self.view() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMetaOf<TypeConfig>, snapshot: Self::SnapshotData) -> io::Result<()> {
        let received = snapshot.into_received(self.log.group(), meta)?;
        let last = received.head().last;
        if self.applied.is_some_and(|applied| applied.index >= last.index) {
            let (group, applied) = (self.log.group(), self.applied);
            return Err(io::Error::other(format!("group {group} has applied {applied:?}: a snapshot at {last} is too old")));
        }
        let (life, log) = (received.into_life(), self.log.clone());
        let incarnation = life.incarnation;
        self.held.clear();
        let (over, durable) = self.log.lives().driver().try_run(move || log.switch(life)).await?;
        durable.await.map_err(|_| io::Error::other("the journal stopped"))??;
        self.restore(incarnation).await?;
        self.delete(over);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf<TypeConfig, Self::SnapshotData>>> {
        if self.applied.is_none() {
            return Ok(None);
        }
        // A replica that has got it must be able to go on from there with the log.
        let useful = |view: &SnapshotView| view.last() >= self.log.purged();
        let view = self.held.view().filter(useful).unwrap_or_else(|| self.view());
        Ok(Some(view.into_raft()))
    }
}

impl MachineStore {
    fn view(&self) -> SnapshotView {
        let live_from = self.machine.live_from();
        SnapshotView::pin(&**self.log.lives().state(), &self.log, self.applied, &self.membership, live_from)
    }

    /// Loads everything from the rows of the life that has just become valid.
    async fn restore(&mut self, incarnation: Incarnation) -> io::Result<()> {
        let keys = GroupKeys::new(self.log.group(), incarnation);
        let log = self.log.clone();
        let restore = move || restore::restore(&**log.lives().state(), &keys, &log);
        let restored = self.log.lives().driver().try_run(restore).await?;
        self.machine.restore(restored.rows).map_err(restore::undecodable)?;
        (self.keys, self.applied, self.membership) = (keys, restored.applied, restored.membership);
        self.machine.published();
        Ok(())
    }

    /// Deletes a life that is over, beside everything else. Nobody waits for it.
    fn delete(&self, over: Incarnation) {
        let (lives, group) = (self.log.lives().clone(), self.log.group());
        let driver = lives.driver().clone();
        tokio::spawn(async move { driver.run(move || lives.delete(group, over)).await });
    }
}

/// Builds a snapshot: everything is pinned already, nothing is copied.
pub(crate) struct Builder {
    view: SnapshotView,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<TypeConfig, Self::SnapshotData>> {
        Ok(self.view.clone().into_raft())
    }
}
