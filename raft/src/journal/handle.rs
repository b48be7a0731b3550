//! The queue between the groups and the writer.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::frame::HEADER_GROUP_BYTES;
use super::record::Record;
use super::table::Marks;
use crate::types::{Entry, GroupId, Incarnation, LogId};

/// The place of a submission in the order of all submissions since the journal was opened; the first is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct JournalSeq(pub u64);

/// Gives work to the journal. Cheap to clone; usable from any thread; never blocks.
#[derive(Debug, Clone)]
pub struct JournalHandle {
    shared: Arc<Shared>,
}

type Done = Box<dyn FnOnce(io::Result<JournalSeq>) + Send>;

/// Records that become durable together, and who wants to know.
pub(super) struct Submission {
    /// None: entries are moved out of an old file, ahead of everything that waits.
    pub(super) seq: Option<JournalSeq>,
    pub(super) records: Vec<Record>,
    pub(super) bytes: u64,
    done: Done,
}

/// What the next submission needs.
pub(super) struct Front {
    pub(super) bytes: u64,
    pub(super) is_move: bool,
}

/// Bytes of payload in one piece of what is journaled again; more only if a single entry is larger.
const MOVE_BYTES_MAX: usize = 16 << 10;

/// Submissions of entries that fit into an empty file, at least: it holds a checkpoint and framing, too.
const APPENDS_PER_FILE_MIN: u64 = 4;

/// Bytes that one mark takes in a batch, at most, with its place in the header.
pub(super) const MARK_BYTES: u64 = 57;

#[derive(Default)]
struct Queue {
    ordinary: VecDeque<Submission>,
    moves: VecDeque<Submission>,
    marks: Marks,
    last_seq: u64,
    closing: bool,
    failed: Option<(io::ErrorKind, String)>,
    woken: bool,
}

/// How far the writer is.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    durable: JournalSeq,
    /// Whether it writes no more.
    failed: bool,
}

/// What handles and the writer share.
#[derive(Default)]
pub(super) struct Shared {
    /// Bytes of payload in one submission of entries; more only if a single entry is larger.
    append_bytes_max: usize,
    queue: Mutex<Queue>,
    wake: Condvar,
    /// The same for a writer that is a task.
    notify: Notify,
    progress: watch::Sender<Progress>,
    queued_bytes: AtomicU64,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("progress", &self.progress.borrow()).field("queued_bytes", &self.queued_bytes).finish()
    }
}

impl JournalHandle {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Queues records that become durable together, behind everything submitted before. `done` is called once, on the
    /// writer's thread, in order: when they are durable, or with the error that they met: `InvalidInput` if they
    /// contradict the group's state (nothing of this submission is written; the journal goes on), otherwise final for
    /// all. Waiting bytes are bounded by the caller (see [`JournalHandle::queued_bytes`]).
    ///
    /// Returns the sequence that [`JournalHandle::durable`] reaches when they are durable (or were refused).
    pub fn submit(&self, records: Vec<Record>, done: impl FnOnce(io::Result<JournalSeq>) + Send + 'static) -> JournalSeq {
        let mut queue = self.shared.lock();
        queue.last_seq += 1;
        let seq = JournalSeq(queue.last_seq);
        self.shared.enqueue(queue, Submission::new(Some(seq), records, Box::new(done)));
        seq
    }

    /// Queues entries behind the end of the group's log, and with them the mark of what is committed. As
    /// [`JournalHandle::submit`]; but any number of bytes may be handed in: they are cut into submissions that fit into a file.
    /// Where one is refused, those behind it would leave a hole, and are refused, too.
    pub fn append(
        &self,
        group: GroupId,
        mut entries: Vec<Entry>,
        committed: Option<LogId>,
        done: impl FnOnce(io::Result<JournalSeq>) + Send + 'static,
    ) -> JournalSeq {
        while let Some(at) = cut(&entries, self.shared.append_bytes_max) {
            let later = entries.split_off(at);
            self.submit(vec![Record::Append { group, entries: std::mem::replace(&mut entries, later) }], |_| {});
        }
        let mut records = vec![Record::Append { group, entries }];
        records.extend(committed.map(|log_id| Record::Committed { group, log_id }));
        self.submit(records, done)
    }

    /// Bytes of payload that go into one submission of entries; more only if a single entry is larger.
    pub(crate) fn append_bytes_max(&self) -> usize {
        self.shared.append_bytes_max
    }

    /// Queues a second copy of live entries, so that the file with their first copy can be recycled. It goes ahead of
    /// everything that waits, and never changes the log: entries that are not live any more are skipped. Any number of
    /// bytes may be handed in: they are written piece by piece.
    pub fn rejournal(&self, group: GroupId, entries: Vec<Entry>, done: impl FnOnce(io::Result<JournalSeq>) + Send + 'static) {
        let mut piece = Vec::new();
        let mut bytes = 0;
        for entry in entries {
            let entry_bytes = entry.payload_bytes();
            if bytes + entry_bytes > MOVE_BYTES_MAX && !piece.is_empty() {
                let entries = std::mem::take(&mut piece);
                self.enqueue_move(Record::Append { group, entries }, Box::new(|_| {}));
                bytes = 0;
            }
            bytes += entry_bytes;
            piece.push(entry);
        }
        self.enqueue_move(Record::Append { group, entries: piece }, Box::new(done));
    }

    fn enqueue_move(&self, record: Record, done: Done) {
        self.shared.enqueue(self.shared.lock(), Submission::new(None, vec![record], done));
    }

    /// Announces that segments hold everything up to `upto` durably, so that the journal may forget it. Rides in
    /// whichever batch or seal is next; nobody waits for it.
    pub fn segments_synced(&self, group: GroupId, incarnation: Incarnation, upto: LogId) {
        let mut queue = self.shared.lock();
        let mark = queue.marks.entry(group).or_insert((incarnation, upto));
        if (mark.0, mark.1.index) < (incarnation, upto.index) {
            *mark = (incarnation, upto);
        }
        self.shared.wake(queue);
    }

    /// Everything submitted up to here is durable. May run ahead of the callbacks, never behind them.
    #[must_use]
    pub fn durable(&self) -> JournalSeq {
        self.shared.durable()
    }

    /// Returns when everything submitted up to here is durable or refused; waits for nothing that was submitted later.
    ///
    /// # Errors
    /// If it will not be: writing failed.
    pub async fn wait_durable(&self, seq: JournalSeq) -> io::Result<()> {
        let mut progress = self.shared.progress.subscribe();
        let came = progress.wait_for(|progress| progress.durable >= seq || progress.failed).await;
        if came.is_ok_and(|progress| progress.durable >= seq) {
            return Ok(());
        }
        let failed = self.shared.lock().failed.clone();
        Err(failed.map_or_else(|| io::Error::other("the journal stopped"), |(kind, message)| io::Error::new(kind, message)))
    }

    /// Bytes that wait to be written.
    #[must_use]
    pub fn queued_bytes(&self) -> u64 {
        self.shared.queued_bytes.load(Ordering::Relaxed)
    }

    /// Asks the writer to write what waits, seal and stop. Later submissions are refused.
    pub fn close(&self) {
        let mut queue = self.shared.lock();
        queue.closing = true;
        self.shared.wake(queue);
    }
}

/// How many entries go into a submission of their own; `None`: all go into one.
fn cut(entries: &[Entry], bytes_max: usize) -> Option<usize> {
    if entries.len() < 2 {
        return None;
    }
    let mut bytes = 0;
    let fit = entries.iter().take_while(|entry| {
        bytes += entry.payload_bytes();
        bytes <= bytes_max
    });
    let fit = fit.count().max(1);
    (fit < entries.len()).then_some(fit)
}

impl Submission {
    fn new(seq: Option<JournalSeq>, records: Vec<Record>, done: Done) -> Self {
        let bytes = records.iter().map(|record| (record.encoded_bytes() + HEADER_GROUP_BYTES) as u64).sum();
        Self { seq, records, bytes, done }
    }

    /// Tells the submitter; for a move the sequence is that of what was durable before it.
    pub(super) fn reply(self, durable: JournalSeq, result: io::Result<()>) {
        (self.done)(result.map(|()| self.seq.unwrap_or(durable)));
    }
}

impl Shared {
    /// For files of so many bytes.
    pub(super) fn new(file_bytes: u64) -> Self {
        let append_bytes_max = usize::try_from(file_bytes / APPENDS_PER_FILE_MIN).unwrap_or(usize::MAX);
        Self { append_bytes_max, ..Self::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enqueue(&self, mut queue: MutexGuard<'_, Queue>, submission: Submission) {
        let refusal = match &queue.failed {
            Some((kind, message)) => Some(io::Error::new(*kind, message.clone())),
            None if queue.closing => Some(io::Error::other("the journal is closed")),
            None => None,
        };
        if let Some(refusal) = refusal {
            drop(queue);
            submission.reply(JournalSeq(0), Err(refusal));
            return;
        }
        self.queued_bytes.fetch_add(submission.bytes, Ordering::Relaxed);
        match submission.seq {
            Some(_) => queue.ordinary.push_back(submission),
            None => queue.moves.push_back(submission),
        }
        self.wake(queue);
    }

    /// The submission that is next, if one waits.
    pub(super) fn front(&self) -> Option<Front> {
        let queue = self.lock();
        let moved = queue.moves.front().map(|next| Front { bytes: next.bytes, is_move: true });
        moved.or_else(|| queue.ordinary.front().map(|next| Front { bytes: next.bytes, is_move: false }))
    }

    /// Whether some waiting submission is as asked.
    pub(super) fn any_waiting(&self, asked: impl Fn(&[Record]) -> bool) -> bool {
        self.lock().ordinary.iter().any(|submission| asked(&submission.records))
    }

    /// Takes the next submission and those behind it that fit into `bytes` with it; and the marks, if they fit too.
    pub(super) fn take(&self, bytes: u64) -> (Vec<Submission>, Marks) {
        let mut queue = self.lock();
        let mut taken: Vec<Submission> = Vec::new();
        let mut used = 0;
        loop {
            let next_bytes = queue.moves.front().or(queue.ordinary.front()).map(|next| next.bytes);
            if next_bytes.is_none_or(|next| !taken.is_empty() && used + next > bytes) {
                break;
            }
            let next = queue.moves.pop_front().or_else(|| queue.ordinary.pop_front());
            used += next_bytes.unwrap_or(0);
            taken.extend(next);
        }
        let marks_fit = used + queue.marks.len() as u64 * MARK_BYTES <= bytes;
        let marks = if marks_fit { std::mem::take(&mut queue.marks) } else { Marks::new() };
        self.queued_bytes.fetch_sub(used, Ordering::Relaxed);
        (taken, marks)
    }

    /// The marks that wait.
    pub(super) fn marks(&self) -> Marks {
        self.lock().marks.clone()
    }

    /// Takes the marks alone.
    pub(super) fn take_marks(&self) -> Marks {
        std::mem::take(&mut self.lock().marks)
    }

    pub(super) fn is_closing(&self) -> bool {
        self.lock().closing
    }

    pub(super) fn publish(&self, seq: JournalSeq) {
        self.progress.send_modify(|progress| progress.durable = progress.durable.max(seq));
    }

    pub(super) fn durable(&self) -> JournalSeq {
        self.progress.borrow().durable
    }

    /// Refuses everything that waits, and from now on everything that comes.
    pub(super) fn fail(&self, error: &io::Error) {
        let mut queue = self.lock();
        queue.failed = Some((error.kind(), error.to_string()));
        let waiting: Vec<_> = std::mem::take(&mut queue.moves).into_iter().chain(queue.ordinary.drain(..)).collect();
        drop(queue);
        self.progress.send_modify(|progress| progress.failed = true);
        self.queued_bytes.store(0, Ordering::Relaxed);
        for submission in waiting {
            submission.reply(JournalSeq(0), Err(io::Error::new(error.kind(), error.to_string())));
        }
    }

    /// Makes the writer look again.
    pub(super) fn rouse(&self) {
        self.wake(self.lock());
    }

    fn wake(&self, mut queue: MutexGuard<'_, Queue>) {
        queue.woken = true;
        drop(queue);
        self.wake.notify_one();
        self.notify.notify_one();
    }

    /// As [`Shared::wait`], without a timeout, for a task.
    pub(super) async fn woken(&self) {
        while !std::mem::take(&mut self.lock().woken) {
            self.notify.notified().await;
        }
    }

    /// Sleeps until something is submitted, at most for `timeout`.
    pub(super) fn wait(&self, timeout: Option<Duration>) {
        let queue = self.lock();
        let asleep = |queue: &mut Queue| !queue.woken;
        let mut queue = match timeout {
            None => self.wake.wait_while(queue, asleep).unwrap_or_else(PoisonError::into_inner),
            Some(timeout) => self.wake.wait_timeout_while(queue, timeout, asleep).unwrap_or_else(PoisonError::into_inner).0,
        };
        queue.woken = false;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures::FutureExt;

    use super::*;

    /// What is applied makes room in the journal. If it waited for what is queued behind it, and that for room, neither would
    /// ever come.
    #[test]
    fn who_waits_waits_for_nothing_that_came_later() {
        let shared = Arc::new(Shared::new(1 << 20));
        let handle = JournalHandle::new(shared.clone());
        let (first, later) = (handle.submit(Vec::new(), |_| {}), handle.submit(Vec::new(), |_| {}));
        assert!(handle.wait_durable(first).now_or_never().is_none());
        shared.publish(first);
        handle.wait_durable(first).now_or_never().unwrap().unwrap();
        assert!(handle.wait_durable(later).now_or_never().is_none());
        shared.fail(&io::Error::other("the device is gone"));
        let error = handle.wait_durable(later).now_or_never().unwrap().unwrap_err();
        assert_eq!(error.to_string(), "the device is gone");
        handle.wait_durable(first).now_or_never().unwrap().unwrap();
    }
}
