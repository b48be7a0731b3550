//! One group's log on this node: the tail in memory over the segments on disk, journal below both.
//!
//! Shared by openraft's log store, its state machine, the flusher and readers. The lock is held for a few
//! instructions at a time, never across I/O or an await.

mod reading;

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{oneshot, watch};

use super::life_writer::NewLife;
use super::lives::Lives;
use super::restore::undecodable;
use super::tail::Tail;
use crate::journal::{JournalHandle, JournalSeq, Record, RecoveredGroup};
use crate::segments::{Frame, SegmentReader, SegmentWriter};
use crate::tail_budget::TailBudget;
use crate::tripwire::chain::Chain;
use crate::types::{Decision, Entry, GroupId, Incarnation, LogId, ReplicaId, Vote};

/// Applied bytes from which on a group is flushed: one large sequential write.
const FLUSH_BYTES: usize = 1 << 20;
/// Bytes that the flusher takes from the tail at once.
const FLUSH_BYTES_MAX: usize = 4 << 20;

/// See the module.
pub(crate) struct GroupLog {
    group: GroupId,
    pub(crate) replica: ReplicaId,
    lives: Arc<Lives>,
    journal: JournalHandle,
    /// Used by the flusher alone, until an installed snapshot replaces it. Locked before `inner`.
    writer: Mutex<SegmentWriter>,
    inner: Mutex<Inner>,
    /// Over what is applied. Locked last.
    chain: Mutex<Chain>,
    damage: watch::Sender<Option<String>>,
    /// Whether it is noted durably that this life is not to be used any more.
    condemned: AtomicBool,
    budget: TailBudget,
    /// Whether the flusher has been asked to write and has not begun yet.
    flush_asked: AtomicBool,
    /// Whether another log has taken over the group's data: this one must not touch it.
    retired: AtomicBool,
    /// Whether the journal did not take something: then what is in memory is not what is on the disk.
    undone: Arc<AtomicBool>,
}

struct Inner {
    incarnation: Incarnation,
    reader: SegmentReader,
    tail: Tail,
    vote: Option<Vote>,
    committed: Option<LogId>,
    /// Committed, and the journal has not been told.
    unsaved_committed: Option<LogId>,
    purged: Option<LogId>,
    /// Last entry of the log, wherever it is.
    last: Option<LogId>,
    /// Apply calls whose decisions are still kept as rows: (first index, last index).
    decision_rows: VecDeque<(u64, u64)>,
}

impl GroupLog {
    /// Opens the log from what the journal recovered and the segments hold. `decided` is what state knows about
    /// entries that were applied before the restart; `applied` the last of them.
    ///
    /// # Errors
    /// If journal, segments and state do not fit together.
    pub(crate) fn open(
        group: GroupId,
        lives: Arc<Lives>,
        journal: JournalHandle,
        recovered: RecoveredGroup,
        (writer, reader): (SegmentWriter, SegmentReader),
        budget: TailBudget,
    ) -> io::Result<Self> {
        let snapshot = recovered.snapshot.as_ref().map(|(log_id, _)| *log_id);
        let in_segments = writer.last();
        let first_index = match in_segments.max(snapshot) {
            Some(log_id) => log_id.index + 1,
            None => recovered.tail.first().map_or(0, |entry| entry.log_id.index),
        };
        let mut tail = Tail::new(first_index, end_offset(&reader));
        let mut last = in_segments.max(snapshot);
        for entry in recovered.tail {
            if entry.log_id.index < first_index {
                continue;
            }
            last = Some(entry.log_id);
            tail.push(entry, JournalSeq::default()).map_err(undecodable)?;
        }
        budget.take(tail.bytes());
        let (replica, incarnation) = (recovered.replica, recovered.incarnation);
        let inner = Inner {
            incarnation,
            reader,
            tail,
            vote: recovered.vote,
            committed: recovered.committed,
            unsaved_committed: None,
            purged: recovered.purged.max(snapshot),
            last,
            decision_rows: VecDeque::new(),
        };
        let (writer, inner, chain) = (Mutex::new(writer), Mutex::new(inner), Mutex::new(Chain::resume(None, None, 0)));
        let damage = watch::Sender::new(None);
        Ok(Self {
            group,
            replica,
            lives,
            journal,
            writer,
            inner,
            chain,
            damage,
            condemned: AtomicBool::new(false),
            budget,
            flush_asked: AtomicBool::new(false),
            retired: AtomicBool::new(false),
            undone: Arc::default(),
        })
    }

    pub(crate) fn group(&self) -> GroupId {
        self.group
    }

    /// Where the group's data lives.
    pub(crate) fn lives(&self) -> &Arc<Lives> {
        &self.lives
    }

    /// The life of the group's data that is valid now.
    pub(crate) fn incarnation(&self) -> Incarnation {
        self.lock().incarnation
    }

    pub(crate) fn reader(&self) -> SegmentReader {
        self.lock().reader.clone()
    }

    pub(crate) fn vote(&self) -> Option<Vote> {
        self.lock().vote
    }

    pub(crate) fn committed(&self) -> Option<LogId> {
        self.lock().committed
    }

    pub(crate) fn purged(&self) -> Option<LogId> {
        self.lock().purged
    }

    pub(crate) fn last(&self) -> Option<LogId> {
        self.lock().last
    }

    /// Vote, last committed and last entry, as of one moment: the log never lacks what another leader took away before it has
    /// the vote for that one.
    pub(crate) fn stand(&self) -> (Option<Vote>, Option<LogId>, Option<LogId>) {
        let inner = self.lock();
        (inner.vote, inner.committed, inner.last.max(inner.purged))
    }

    /// The hash chain over what is applied.
    pub(crate) fn chain(&self) -> MutexGuard<'_, Chain> {
        self.chain.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the flusher should be asked to write now. Says so once until it has begun.
    pub(crate) fn wants_flush(&self) -> bool {
        self.applied_bytes() >= FLUSH_BYTES && !self.flush_asked.swap(true, Ordering::Relaxed)
    }

    /// Whether the tails of all groups together take too much.
    pub(crate) fn is_memory_short(&self) -> bool {
        self.budget.is_short()
    }

    /// Bytes that the flusher could write.
    pub(crate) fn applied_bytes(&self) -> usize {
        self.lock().tail.applied_bytes()
    }

    /// Makes entries readable at once; `done` is called when they and everything before them are durable.
    pub(crate) fn append(&self, entries: Vec<Entry>, done: impl FnOnce(io::Result<()>) + Send + 'static) -> io::Result<()> {
        let mut inner = self.lock();
        let before = inner.tail.bytes();
        let committed = inner.unsaved_committed.take();
        let undone = self.undone.clone();
        let noted = move |result: io::Result<JournalSeq>| {
            undone.fetch_or(result.is_err(), Ordering::SeqCst);
            done(result.map(|_| ()));
        };
        // Submitted under the lock, so that the journal's order is the tail's order.
        let seq = self.journal.append(self.group, entries.clone(), committed, noted);
        for entry in entries {
            if inner.last.is_none() && inner.tail.next_index() != entry.log_id.index {
                inner.tail = Tail::new(entry.log_id.index, 0);
            }
            inner.last = Some(entry.log_id);
            inner.tail.push(entry, seq)?;
        }
        let grown = inner.tail.bytes() - before;
        self.budget.take(grown);
        Ok(())
    }

    /// Stores a vote; returns when it is durable.
    pub(crate) async fn save_vote(&self, vote: Vote) -> io::Result<()> {
        {
            let mut inner = self.lock();
            // The journal refuses any other.
            if vote.may_follow(inner.vote) {
                inner.vote = Some(vote);
            }
        }
        self.write_through(Record::Vote { group: self.group, vote }).await
    }

    /// Notes what is committed. Rides with the group's next append: a sync of its own would cost as much as the append
    /// did, and what is committed is found again by the next leader.
    pub(crate) fn save_committed(&self, log_id: LogId) {
        let mut inner = self.lock();
        inner.committed = Some(log_id);
        inner.unsaved_committed = Some(log_id);
    }

    /// Forgets the entries behind `last`; returns when that is durable.
    pub(crate) async fn truncate_after(&self, last: Option<LogId>) -> io::Result<()> {
        {
            let mut inner = self.lock();
            let before = inner.tail.bytes();
            inner.tail.truncate_after(last.map(|log_id| log_id.index))?;
            let reaches = inner.last.is_some_and(|held| last.is_none_or(|last| held.index > last.index));
            if reaches {
                inner.last = last;
            }
            self.budget.release(before - inner.tail.bytes());
        }
        self.write_through(Record::Truncate { group: self.group, after: last }).await
    }

    /// Notes that nothing up to `upto` will be asked for by Raft again. A mark: frames die by the machine's word. If the
    /// log ends before `upto`, it starts anew behind it.
    ///
    /// # Errors
    /// If it would start anew over entries that are applied and not yet in segments.
    pub(crate) async fn purge(&self, upto: LogId) -> io::Result<()> {
        {
            let mut inner = self.lock();
            if upto.index >= inner.tail.next_index() {
                if inner.tail.applied_count() > 0 {
                    return Err(io::Error::other(format!("refused to purge through {upto}: applied entries are only in memory")));
                }
                let end_offset = end_offset(&inner.reader);
                self.restart_tail(&mut inner, upto.index, end_offset)?;
            }
            inner.purged = inner.purged.max(Some(upto));
            inner.last = inner.last.max(Some(upto));
        }
        self.write_through(Record::Purge { group: self.group, upto }).await
    }

    /// Waits until the entry at `index` is durable on this node.
    pub(crate) async fn wait_durable(&self, index: u64) -> io::Result<()> {
        let seq = self.lock().tail.seq(index);
        let Some(seq) = seq else { return Ok(()) };
        self.journal.wait_durable(seq).await?;
        if self.is_all_done() { Ok(()) } else { Err(io::Error::other("the journal did not take everything of this group")) }
    }

    /// Notes what apply decided about the entry at `index`; from now on its kept items can be read.
    /// `checksums` are the payloads', or none.
    pub(crate) fn mark_applied(&self, index: u64, decisions: Arc<[Decision]>, checksums: Arc<[u32]>) -> io::Result<()> {
        self.lock().tail.mark_applied(index, decisions, checksums)
    }

    /// Remembers that a decisions row covers these entries.
    pub(crate) fn note_decision_row(&self, first: u64, last: u64) {
        self.lock().decision_rows.push_back((first, last));
    }

    /// First indices of the decision rows that a segment synced up to `index` has made superfluous.
    pub(crate) fn take_decision_rows(&self, index: u64) -> Vec<u64> {
        let mut inner = self.lock();
        let mut taken = Vec::new();
        while let Some((first, _)) = inner.decision_rows.front().copied().filter(|(_, last)| *last <= index) {
            inner.decision_rows.pop_front();
            taken.push(first);
        }
        taken
    }

    /// Gives up the group's data to a log that is opened next: what a start from the disk would find. To be called when
    /// nobody appends or applies any more, everything submitted is durable, and applied entries are in synced segments.
    pub(crate) fn retire(&self) -> RecoveredGroup {
        let writer = self.lock_writer();
        self.retired.store(true, Ordering::SeqCst);
        let inner = self.lock();
        RecoveredGroup {
            replica: self.replica,
            incarnation: inner.incarnation,
            vote: inner.vote,
            purged: inner.purged,
            committed: inner.committed,
            segments_synced: writer.last(),
            snapshot: None,
            last: inner.last,
            tail: inner.tail.unapplied(),
            damaged: false,
        }
    }

    /// Moves applied entries from memory into segments, and syncs these if `sync`. Blocks: flusher thread only.
    ///
    /// # Errors
    /// A failed write or sync is final for this life of the group; what waits for space or for what passes may be asked for again.
    pub(crate) fn flush(&self, sync: bool) -> io::Result<Option<LogId>> {
        self.flush_asked.store(false, Ordering::Relaxed);
        let mut writer = self.lock_writer();
        if self.retired.load(Ordering::SeqCst) {
            return Ok(None);
        }
        loop {
            let frames: Vec<Frame> = self.lock().tail.frames(FLUSH_BYTES_MAX);
            let Some(last) = frames.last().map(|frame| frame.entry.log_id.index) else { break };
            let appended = writer.append(&frames).map_err(io::Error::other);
            // Where space ran out in between, a part of them is there.
            let last = if appended.is_ok() { Some(last) } else { writer.last().map(|last| last.index) };
            let released = last.map_or(0, |last| self.lock().tail.release(last));
            self.budget.release(released);
            appended?;
        }
        if !sync {
            return Ok(None);
        }
        writer.sync().map_err(io::Error::other)
    }

    /// Lets the journal forget the entries up to `upto`, which segments hold durably; calls `done` when a restart
    /// would know it, too.
    pub(crate) fn announce_synced(&self, upto: LogId, done: impl FnOnce() + Send + 'static) {
        // The mark frees journal files even while submissions wait for one; the record tells when it is durable.
        self.journal.segments_synced(self.group, self.incarnation(), upto);
        let record = Record::SegmentsSynced { group: self.group, incarnation: self.incarnation(), upto };
        self.journal.submit(vec![record], move |result| {
            if result.is_ok() {
                done();
            }
        });
    }

    /// Moves applied entries into the open segment and closes it, so that it can be removed. Blocks: flusher thread only.
    pub(crate) fn roll(&self) -> io::Result<()> {
        self.flush(false)?;
        let mut writer = self.lock_writer();
        self.check_not_retired()?;
        writer.roll().map_err(io::Error::other)
    }

    /// Removes whole segments that hold nothing behind `index`. Blocks: flusher thread only.
    pub(crate) fn unlink_through(&self, index: u64) -> io::Result<()> {
        let mut writer = self.lock_writer();
        self.check_not_retired()?;
        writer.unlink_through(index).map_err(io::Error::other)?;
        Ok(())
    }

    /// What a snapshot pins of the log: the segments as they are, and what is applied but not in them yet.
    pub(crate) fn pin(&self) -> (SegmentReader, Vec<Frame>) {
        // One lock for both: what leaves the tail afterwards is also among these frames.
        let inner = self.lock();
        (inner.reader.pin(), inner.tail.frames(usize::MAX))
    }

    /// Replaces the group's data by a snapshot's, by one journal record. Entries behind the snapshot stay. Returns the
    /// incarnation that is over, and what says when the switch is durable. Blocks while the flusher writes.
    ///
    /// # Errors
    /// If entries behind the snapshot are applied already: nothing is changed then.
    pub(crate) fn switch(&self, life: NewLife) -> io::Result<(Incarnation, oneshot::Receiver<io::Result<JournalSeq>>)> {
        let NewLife { incarnation, segments: (segments, reader), snapshot, membership } = life;
        // The flusher's lock first: it must not find the new tail with the old writer, or the reverse.
        let mut writer = self.lock_writer();
        let mut inner = self.lock();
        self.restart_tail(&mut inner, snapshot.index, end_offset(&reader))?;
        let (tx, rx) = oneshot::channel();
        let record = Record::Switch { group: self.group, incarnation, snapshot: Some(snapshot), membership };
        // Submitted under the lock, so that the journal sees the same entries before and behind it as the tail does.
        self.journal.submit(vec![record], move |result| drop(tx.send(result)));
        inner.purged = inner.purged.filter(|purged| purged.index > snapshot.index).or(Some(snapshot));
        inner.last = inner.last.filter(|last| last.index > snapshot.index).or(Some(snapshot));
        inner.committed = inner.committed.filter(|committed| committed.index > snapshot.index).or(Some(snapshot));
        inner.decision_rows.clear();
        inner.reader = reader;
        let over = std::mem::replace(&mut inner.incarnation, incarnation);
        *writer = segments;
        Ok((over, rx))
    }

    fn restart_tail(&self, inner: &mut Inner, index: u64, end_offset: u64) -> io::Result<()> {
        let released = inner.tail.restart_behind(index, end_offset)?;
        self.budget.release(released);
        Ok(())
    }

    /// Journals the entries up to `upto` again that are not in segments, so that their journal file can be recycled.
    pub(crate) fn rejournal_through(&self, upto: u64) {
        let inner = self.lock();
        let mut entries = inner.tail.unapplied();
        entries.retain(|entry| entry.log_id.index <= upto);
        if !entries.is_empty() {
            self.journal.rejournal(self.group, entries, |_| {});
        }
    }

    async fn write_through(&self, record: Record) -> io::Result<()> {
        let (tx, rx) = oneshot::channel();
        self.journal.submit(vec![record], move |result| {
            let _ = tx.send(result);
        });
        let result = rx.await.unwrap_or_else(|_| Err(io::Error::other("the journal stopped")));
        self.undone.fetch_or(result.is_err(), Ordering::SeqCst);
        result.map(|_| ())
    }

    /// Whether the journal took everything of this log, so that what it has in memory may be handed on. To be asked when
    /// everything that was submitted is answered.
    pub(crate) fn is_all_done(&self) -> bool {
        !self.undone.load(Ordering::SeqCst)
    }

    /// Whether another log has taken over.
    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::SeqCst)
    }

    fn check_not_retired(&self) -> io::Result<()> {
        match self.is_retired() {
            true => Err(io::Error::other(format!("group {} was started again; ask its new handle", self.group))),
            false => Ok(()),
        }
    }

    fn lock_writer(&self) -> MutexGuard<'_, SegmentWriter> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for GroupLog {
    fn drop(&mut self) {
        let held = self.lock().tail.bytes();
        self.budget.release(held);
    }
}

/// One behind the last offset that segments keep.
fn end_offset(reader: &SegmentReader) -> u64 {
    reader.segments().last().map_or(0, |segment| segment.next_offset)
}
