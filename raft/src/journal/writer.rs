//! The writer: a machine that writes one batch per step. A thread (`thread.rs`) or a task (`task.rs`) drives it.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::checkpoint::{self, LiveFile};
use super::codec::Pieces;
use super::frame::{BLOCK_BYTES, HEADER_BYTES, HEADER_GROUP_BYTES, Header, Kind, blocks};
use super::handle::{JournalHandle, JournalSeq, MARK_BYTES, Shared, Submission};
use super::observer::{BatchStats, JournalObserver};
use super::options::JournalOptions;
use super::record::Record;
use super::ring::{Life, Preparation, Ring};
use super::space::Room;
use super::table::{Marks, Table};
use crate::disk::DiskFile;
use crate::types::{GroupId, Incarnation};

/// While writes wait for a free file, the owner is asked again after this time: what was applied between its flush and its
/// re-journaling was in neither.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// The journal's writer. Owns the files; [`JournalHandle`]s give it work.
#[derive(Debug)]
pub struct Journal {
    pub(super) shared: Arc<Shared>,
    pub(super) options: JournalOptions,
    pub(super) ring: Ring,
    pub(super) table: Table,
    pub(super) current: Current,
    pub(super) boot_epoch: u64,
    pub(super) next_batch: u64,
    /// The last batch is not proven by another one yet.
    pub(super) seal_due: bool,
    last_write: Duration,
    failed: bool,
    pub(super) observer: Option<Arc<dyn JournalObserver>>,
    /// What each group was last asked for: the file to empty, and the last entry in it.
    pub(super) asked: BTreeMap<GroupId, (u64, u64)>,
    asked_at: Duration,
    /// Why no file can be had, if that is to be waited for.
    pub(super) obstacle: Option<io::Error>,
    pub(super) told_obstacle: bool,
    pieces: Pieces,
}

/// The file that is being written.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) slot: u32,
    pub(super) bytes: u64,
    /// The file sequence.
    pub(super) sequence: u64,
    /// Where the next batch goes.
    pub(super) position: u64,
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Wrote a batch or a seal, or refused a submission: there may be more to do.
    Wrote,
    /// Nothing waits. A seal is due in this time, if nothing comes.
    Idle {
        /// Time until the seal; `None` if none is due.
        seal_in: Option<Duration>,
    },
    /// No file is free. Step again when segments are synced, entries re-journaled or a file prepared.
    Waiting,
    /// A write or sync failed; everything is refused. Open the journal anew.
    Failed,
    /// Everything is written and sealed after [`JournalHandle::close`].
    Closed,
}

/// A batch while it is put together.
#[derive(Debug, Default)]
struct Batch {
    records: usize,
    groups: BTreeMap<GroupId, Incarnation>,
}

impl Journal {
    pub(super) fn new(
        options: JournalOptions,
        ring: Ring,
        table: Table,
        current: Current,
        boot_epoch: u64,
        next_batch: u64,
    ) -> Self {
        Self {
            shared: Arc::new(Shared::new(options.file_bytes)),
            options,
            ring,
            table,
            current,
            boot_epoch,
            next_batch,
            seal_due: true,
            last_write: Duration::ZERO,
            failed: false,
            observer: None,
            asked: BTreeMap::new(),
            asked_at: Duration::ZERO,
            obstacle: None,
            told_obstacle: false,
            pieces: Pieces::default(),
        }
    }

    /// A handle to submit with.
    #[must_use]
    pub fn handle(&self) -> JournalHandle {
        JournalHandle::new(self.shared.clone())
    }

    /// Names who is told of batches, wishes and failure. Without one, nobody is.
    pub fn observe(&mut self, observer: Arc<dyn JournalObserver>) {
        self.observer = Some(observer);
    }

    /// Writes at most one batch. `now` is the time since any fixed moment; it decides when a seal is due.
    pub fn step(&mut self, now: Duration) -> Step {
        if self.failed {
            return Step::Failed;
        }
        self.try_step(now).unwrap_or_else(|error| {
            self.failed = true;
            tracing::error!(%error, "the journal failed; nothing is acknowledged until it is opened again");
            self.shared.fail(&error);
            if let Some(observer) = &self.observer {
                observer.failed(&error);
            }
            Step::Failed
        })
    }

    /// Writes what waits, seals, and ends. What cannot be written (no free file, a failed disk) is refused.
    ///
    /// # Errors
    /// If a write or sync failed, now or before.
    pub fn close(mut self) -> io::Result<()> {
        self.handle().close();
        loop {
            match self.step(Duration::MAX) {
                Step::Closed => return Ok(()),
                Step::Failed => return Err(io::Error::other("the journal failed before it was closed")),
                Step::Waiting => self.shared.wait(Some(Duration::from_millis(1))),
                Step::Wrote | Step::Idle { .. } => {}
            }
        }
    }

    /// A file to create aside, if one will be needed soon. Without it the writer creates the file when it needs it.
    pub fn take_preparation(&mut self) -> Option<Preparation> {
        if self.failed || !self.wants_preparation() {
            return None;
        }
        self.ring.prepare(self.options.file_bytes, self.shared.clone())
    }

    pub(super) fn wait(&self, timeout: Option<Duration>) {
        self.shared.wait(timeout);
    }

    /// Returns once something was submitted or asked since it was last waited for.
    pub(super) async fn woken(&self) {
        self.shared.woken().await;
    }

    /// Whether something waits to be written.
    pub(super) fn has_work(&self) -> bool {
        self.shared.front().is_some()
    }

    pub(super) fn is_closing(&self) -> bool {
        self.shared.is_closing()
    }

    fn try_step(&mut self, now: Duration) -> io::Result<Step> {
        self.adopt_prepared();
        let Some(front) = self.shared.front() else { return self.idle(now) };
        let mut room = self.make_room(front.bytes, front.is_move)?;
        if matches!(room, Room::Full) && self.shared.any_waiting(|records| self.table.frees(records)) {
            room = self.make_room(front.bytes, true)?;
        }
        let bytes = match room {
            Room::Here { bytes } | Room::Fresh { bytes, .. } => bytes.min(self.options.batch_bytes_max),
            Room::TooLarge => {
                self.refuse_too_large();
                return Ok(Step::Wrote);
            }
            Room::Full => return self.make_way(now),
        };
        let (submissions, marks) = self.shared.take(bytes);
        self.last_write = now;
        self.write(room, submissions, marks)?;
        Ok(Step::Wrote)
    }

    fn refuse_too_large(&mut self) {
        let (submissions, _) = self.shared.take(0);
        for submission in submissions {
            let message = format!(
                "{} bytes in one submission do not fit into a journal file of {}: raise journal.file_bytes",
                submission.bytes, self.options.file_bytes
            );
            self.refuse(submission, message);
        }
    }

    /// Refuses one submission; the journal goes on.
    fn refuse(&self, submission: Submission, message: String) {
        self.shared.publish(submission.seq.unwrap_or_default());
        submission.reply(self.shared.durable(), Err(io::Error::new(io::ErrorKind::InvalidInput, message)));
    }

    /// Nothing is submitted: seals in time, and stops if asked to.
    fn idle(&mut self, now: Duration) -> io::Result<Step> {
        let marks = self.table.useful_marks(self.shared.marks());
        let closing = self.shared.is_closing();
        if !self.seal_due && marks.is_empty() {
            return Ok(if closing { Step::Closed } else { Step::Idle { seal_in: None } });
        }
        let due = self.last_write.saturating_add(self.options.seal_after);
        if !closing && now < due {
            return Ok(Step::Idle { seal_in: Some(due - now) });
        }
        let bytes = marks.len() as u64 * MARK_BYTES;
        let room = if closing && self.fits(bytes, 0) { Room::Here { bytes } } else { self.make_room(bytes, false)? };
        if matches!(room, Room::Here { .. } | Room::Fresh { .. }) {
            self.shared.take_marks();
            self.write(room, Vec::new(), marks)?;
            return Ok(Step::Wrote);
        }
        if self.free_by_marks()? {
            return Ok(Step::Wrote);
        }
        // Nobody waits for a seal; marks that free nothing ride with the next batch.
        self.ask_for_room();
        self.seal_due = false;
        Ok(if closing { Step::Closed } else { Step::Idle { seal_in: None } })
    }

    /// Writes marks into the room that is kept for them, if that frees a file.
    fn free_by_marks(&mut self) -> io::Result<bool> {
        let marks = self.table.useful_marks(self.shared.marks());
        if marks.is_empty() || self.free_slots(&marks).is_empty() {
            return Ok(false);
        }
        let bytes = marks.len() as u64 * MARK_BYTES;
        let room = if self.fits(bytes, 0) { Room::Here { bytes } } else { self.make_room(bytes, true)? };
        if matches!(room, Room::TooLarge | Room::Full) {
            return Ok(false);
        }
        self.shared.take_marks();
        self.write(room, Vec::new(), marks)?;
        Ok(true)
    }

    /// No file is free: frees one, or asks the owner to.
    fn make_way(&mut self, now: Duration) -> io::Result<Step> {
        if self.free_by_marks()? {
            return Ok(Step::Wrote);
        }
        if now.saturating_sub(self.asked_at) >= ASK_AGAIN_AFTER {
            self.asked.clear();
            self.asked_at = now;
        }
        self.ask_for_room();
        self.tell_obstacle();
        if self.ring.is_preparing() {
            return Ok(Step::Waiting);
        }
        if self.shared.is_closing() {
            let (submissions, _) = self.shared.take(0);
            submissions.into_iter().for_each(|one| self.refuse(one, "the journal is full and is being closed".into()));
            return Ok(Step::Wrote);
        }
        Ok(Step::Waiting)
    }

    /// Writes one batch and completes its submissions.
    fn write(&mut self, room: Room, submissions: Vec<Submission>, marks: Marks) -> io::Result<()> {
        let started = Instant::now();
        let fresh = matches!(room, Room::Fresh { .. });
        self.start_batch(fresh);
        if let Room::Fresh { current, .. } = room {
            self.current = current;
        }
        let mut batch = Batch::default();
        let mut replies = Vec::with_capacity(submissions.len());
        for mut submission in submissions {
            let result = self.stage(&mut submission, &mut batch);
            replies.push((submission, result));
        }
        for (group, (incarnation, upto)) in self.table.useful_marks(marks) {
            let mark = [Record::SegmentsSynced { group, incarnation, upto }];
            // A mark that was checked just now is never refused.
            if self.table.apply_all(&mark, self.current.sequence).is_ok() {
                self.put(&mark, &mut batch);
            }
        }
        let awaited = replies.iter().any(|(_, result)| result.is_ok());
        if !replies.is_empty() && !awaited && batch.records == 0 && !fresh {
            replies.into_iter().for_each(|(one, result)| self.refuse(one, result.err().unwrap_or_default()));
            return Ok(());
        }
        let kind = if fresh { Kind::Checkpoint } else { Kind::Batch };
        let (records, groups, count) = (batch.records, batch.groups.len(), replies.len());
        match self.write_frame(kind, batch) {
            Ok(bytes) => {
                self.seal_due = awaited;
                let stats = BatchStats { bytes, records, submissions: count, groups, duration: started.elapsed() };
                self.complete(replies, &stats);
                self.tell_no_obstacle();
                if fresh {
                    self.after_turn()?;
                }
                Ok(())
            }
            Err(error) => {
                for (submission, _) in replies {
                    submission.reply(JournalSeq::default(), Err(io::Error::new(error.kind(), error.to_string())));
                }
                Err(error)
            }
        }
    }

    fn complete(&self, replies: Vec<(Submission, Result<(), String>)>, stats: &BatchStats) {
        if let Some(seq) = replies.iter().filter_map(|(submission, _)| submission.seq).next_back() {
            self.shared.publish(seq);
        }
        if let Some(observer) = &self.observer {
            observer.batch(stats);
        }
        for (submission, result) in replies {
            match result {
                Ok(()) => submission.reply(self.shared.durable(), Ok(())),
                Err(message) => self.refuse(submission, message),
            }
        }
    }

    /// Applies a submission to the table and encodes it.
    fn stage(&mut self, submission: &mut Submission, batch: &mut Batch) -> Result<(), String> {
        let records = std::mem::take(&mut submission.records);
        if submission.seq.is_none() {
            return self.stage_moves(records, batch);
        }
        self.name_groups(&records, batch);
        self.table.submit(&records, self.current.sequence)?;
        self.put(&records, batch);
        Ok(())
    }

    /// Gives live entries their new place. They need not be neighbours any more, so each stretch is a record.
    fn stage_moves(&mut self, records: Vec<Record>, batch: &mut Batch) -> Result<(), String> {
        for record in records {
            let Record::Append { group, entries } = record else { continue };
            let live = self.table.still_live(group, entries);
            for stretch in live.chunk_by(|a, b| a.log_id.index + 1 == b.log_id.index) {
                let moved = [Record::Append { group, entries: stretch.to_vec() }];
                self.table.apply_all(&moved, self.current.sequence)?;
                self.put(&moved, batch);
            }
        }
        Ok(())
    }

    fn put(&mut self, records: &[Record], batch: &mut Batch) {
        for record in records {
            record.encode(&mut self.pieces);
        }
        batch.records += records.len();
        self.name_groups(records, batch);
    }

    fn name_groups(&self, records: &[Record], batch: &mut Batch) {
        for id in records.iter().filter_map(Record::group) {
            if let Some(group) = self.table.groups.get(&id) {
                batch.groups.insert(id, group.incarnation);
            }
        }
    }

    fn start_batch(&mut self, with_checkpoint: bool) {
        let mut pieces = std::mem::take(&mut self.pieces);
        pieces.clear();
        if with_checkpoint {
            self.encode_checkpoint(&mut pieces);
        }
        self.pieces = pieces;
    }

    /// Encodes a checkpoint of the table as it is on disk: before the records of its own batch.
    fn encode_checkpoint(&self, out: &mut Pieces) {
        checkpoint::encode(out, &self.table, &self.live_files());
    }

    /// Files with live entries, for a checkpoint.
    fn live_files(&self) -> Vec<LiveFile> {
        let live = self.table.live_files(&Marks::new());
        let lives = self.ring.slots().iter().filter_map(|slot| slot.life.map(|life| (slot.index, life)));
        lives
            .filter(|(_, life)| live.contains(&life.file))
            .map(|(slot, life)| LiveFile { slot, file: life.file, last_batch: life.last_batch })
            .collect()
    }

    /// Writes and syncs what is encoded. Returns the bytes written.
    fn write_frame(&mut self, kind: Kind, batch: Batch) -> io::Result<u64> {
        let header = Header {
            kind,
            boot_epoch: self.boot_epoch,
            number: self.next_batch,
            file: self.current.sequence,
            body_bytes: self.pieces.len() as u64,
            body_crc: self.pieces.crc32c(),
            file_blocks: u32::try_from(self.current.bytes / BLOCK_BYTES).unwrap_or(u32::MAX),
            groups: batch.groups.into_iter().collect(),
        };
        let bytes = header.frame_bytes();
        if bytes > self.current.bytes.saturating_sub(self.current.position) {
            return Err(io::Error::other("a batch is larger than the room that was computed for it: this is a bug"));
        }
        let encoded = header.encode();
        let padding = vec![0; (bytes - header.bytes() - header.body_bytes) as usize];
        let mut slices = vec![IoSlice::new(&encoded)];
        slices.extend(self.pieces.slices().map(IoSlice::new));
        slices.push(IoSlice::new(&padding));
        self.current.file.write_all_at(&slices, self.current.position)?;
        self.current.file.sync()?;
        self.ring.set_life(self.current.slot, Life { file: self.current.sequence, last_batch: header.number });
        self.current.position += bytes;
        self.next_batch += 1;
        Ok(bytes)
    }

    /// Writes the first batch after opening: a checkpoint, and what the last batch before held.
    pub(super) fn write_opening(&mut self, moved: &[Record]) -> io::Result<()> {
        self.start_batch(true);
        let mut batch = Batch::default();
        self.table.apply_all(moved, self.current.sequence).map_err(io::Error::other)?;
        self.put(moved, &mut batch);
        self.write_frame(Kind::Checkpoint, batch)?;
        Ok(())
    }

    /// Bytes of a checkpoint as it would be written now.
    pub(super) fn checkpoint_bytes(&self) -> u64 {
        let mut pieces = Pieces::default();
        self.encode_checkpoint(&mut pieces);
        pieces.len() as u64
    }

    /// Whether so many bytes of records fit into the current file and leave `reserve` bytes.
    pub(super) fn fits(&self, bytes: u64, reserve: u64) -> bool {
        blocks(HEADER_BYTES as u64 + bytes) + reserve <= self.current.bytes.saturating_sub(self.current.position)
    }

    /// Room that every file keeps so that marks, which free files, can always be written.
    pub(super) fn reserve(&self) -> u64 {
        let marks = self.table.groups_with_entries() as u64 * MARK_BYTES;
        blocks(HEADER_BYTES as u64 + marks).max(BLOCK_BYTES)
    }
}

const _: () = assert!(MARK_BYTES as usize >= HEADER_GROUP_BYTES + 33 + 8);
