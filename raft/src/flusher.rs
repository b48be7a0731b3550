//! The background flusher: one thread of a node that moves applied entries from memory into segments, syncs them
//! where the journal needs room, unlinks what is dead, and flushes the state.
//!
//! A machine that carries out one request after the other ([`Flusher::carry_out`]); a thread or a task drives it.
//!
//! Whatever it is asked for, whoever asked: what fails for good ends this life of the storage, and what waits for space or for
//! what passes is said in [`Troubles`] and tried again by itself until it works.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep, timeout};

use crate::disk::error::Class;
use crate::failure::Failure;
use crate::log::group_log::GroupLog;
use crate::state::keys::GroupKeys;
use crate::state::{State, WriteBatch};
use crate::troubles::{Subject, Troubles};
use crate::types::GroupId;

/// The state is flushed after this much applied payload: a restart applies about this much again.
const STATE_FLUSH_LOG_BYTES: u64 = 256 << 20;
/// The state is flushed after this time, if anything was applied.
const STATE_FLUSH_INTERVAL: Duration = Duration::from_secs(30);
/// What could not be written or removed is tried again after this time.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What the flusher is asked for.
enum Request {
    /// Write what is applied into segments; no sync.
    Write(Arc<GroupLog>),
    /// The same for all groups, however little each has.
    WriteAll,
    /// A group that there is from now on.
    Opened(Weak<GroupLog>),
    /// Write and sync.
    Sync(Arc<GroupLog>, oneshot::Sender<io::Result<()>>),
    /// Make room in the journal: sync, and what is not applied up to this index goes to the journal again.
    Recycle(Arc<GroupLog>, u64),
    /// The journal knows durably that segments hold everything up to this index.
    Announced(Arc<GroupLog>, u64),
    /// Write, and close the open segment.
    Roll(Arc<GroupLog>, oneshot::Sender<io::Result<()>>),
    /// Remove whole segments that hold nothing behind this index.
    Unlink(Arc<GroupLog>, u64, oneshot::Sender<io::Result<()>>),
    /// Make the state durable.
    FlushState(Option<oneshot::Sender<io::Result<()>>>),
    /// Say when everything asked for before is done.
    Barrier(oneshot::Sender<io::Result<()>>),
    Stop,
}

/// Asks the flusher. Cheap to clone; never blocks.
#[derive(Clone)]
pub(crate) struct FlusherHandle {
    requests: Requests,
    /// Payload bytes applied since the state was flushed.
    applied_bytes: Arc<AtomicU64>,
    /// Whether all groups are to be written already.
    write_all_asked: Arc<AtomicBool>,
}

/// Where requests are put.
#[derive(Clone)]
struct Requests {
    queue: Sender<Request>,
    /// Wakes a flusher that is a task.
    notify: Arc<Notify>,
}

/// Does the flusher's work, one request at a time. Owns nothing but its queue.
pub(crate) struct Flusher {
    requests: Receiver<Request>,
    /// For what it asks of itself later.
    own: Requests,
    applied_bytes: Arc<AtomicU64>,
    write_all_asked: Arc<AtomicBool>,
    groups: Vec<Weak<GroupLog>>,
    flushed_at: Instant,
    /// What is to be tried again, and when.
    waiting: BTreeMap<GroupId, Waiting>,
    retry_at: Instant,
    state: Arc<dyn State>,
    failure: Failure,
    troubles: Troubles,
}

/// A group of which something could not be written or removed.
struct Waiting {
    log: Weak<GroupLog>,
    /// Up to which index segments are to be unlinked.
    unlink: Option<u64>,
}

/// Joins the flusher's thread when dropped.
pub(crate) struct FlusherThread {
    handle: FlusherHandle,
    thread: Option<JoinHandle<()>>,
}

impl Flusher {
    pub(crate) fn new(state: Arc<dyn State>, failure: Failure, troubles: Troubles) -> (Self, FlusherHandle) {
        let (queue, rx) = channel();
        let own = Requests { queue, notify: Arc::default() };
        let applied_bytes = Arc::new(AtomicU64::new(0));
        let write_all_asked = Arc::new(AtomicBool::new(false));
        let handle = FlusherHandle {
            requests: own.clone(),
            applied_bytes: applied_bytes.clone(),
            write_all_asked: write_all_asked.clone(),
        };
        let now = Instant::now();
        let flusher = Self {
            requests: rx,
            own,
            applied_bytes,
            write_all_asked,
            groups: Vec::new(),
            flushed_at: now,
            waiting: BTreeMap::new(),
            retry_at: now,
            state,
            failure,
            troubles,
        };
        (flusher, handle)
    }

    /// How long to wait for a request before something else is due.
    fn patience(&self) -> Duration {
        let flush = STATE_FLUSH_INTERVAL.saturating_sub(self.flushed_at.elapsed());
        if self.waiting.is_empty() { flush } else { flush.min(self.retry_at.saturating_duration_since(Instant::now())) }
    }

    /// Takes one request, waiting for it, and carries it out. `false`: asked to stop.
    fn step(&mut self) -> bool {
        match self.requests.recv_timeout(self.patience()) {
            Ok(request) => self.carry_out(request),
            Err(RecvTimeoutError::Timeout) => self.do_what_is_due(),
            Err(RecvTimeoutError::Disconnected) => false,
        }
    }

    fn do_what_is_due(&mut self) -> bool {
        self.retry();
        self.flushed_at.elapsed() < STATE_FLUSH_INTERVAL || self.carry_out(Request::FlushState(None))
    }

    /// Carries out one request. `false`: asked to stop.
    fn carry_out(&mut self, request: Request) -> bool {
        self.retry();
        match request {
            Request::Stop => return false,
            Request::Write(log) => self.write(&log),
            Request::WriteAll => self.write_all(),
            Request::Opened(log) => {
                self.groups.retain(|group| group.strong_count() > 0);
                self.groups.push(log);
            }
            Request::Sync(log, done) => drop(done.send(self.sync(&log))),
            Request::Recycle(log, upto) => {
                // What went wrong is noted, and the journal asks again.
                drop(self.sync(&log));
                log.rejournal_through(upto);
            }
            Request::Announced(log, index) => self.forget_decisions(&log, index),
            Request::Roll(log, done) => drop(done.send(self.note(Subject::Segments(log.group()), &log, log.roll()))),
            Request::Unlink(log, index, done) => drop(done.send(self.unlink(&log, index))),
            Request::FlushState(done) => self.flush_state(done),
            Request::Barrier(done) => drop(done.send(Ok(()))),
        }
        true
    }

    fn flush_state(&mut self, done: Option<oneshot::Sender<io::Result<()>>>) {
        self.flushed_at = Instant::now();
        if done.is_none() && self.applied_bytes.load(Ordering::Relaxed) == 0 {
            return;
        }
        self.applied_bytes.store(0, Ordering::Relaxed);
        let flushed = self.state.flush().map_err(io::Error::other);
        match (done, flushed) {
            (Some(done), flushed) => drop(done.send(flushed)),
            (None, Ok(())) => {}
            (None, Err(error)) => self.failure.set(format!("flushing the state failed: {error}")),
        }
    }

    fn write(&mut self, log: &Arc<GroupLog>) {
        // What went wrong is noted.
        drop(self.note(Subject::Segments(log.group()), log, log.flush(false).map(|_| ())));
    }

    fn write_all(&mut self) {
        self.write_all_asked.store(false, Ordering::Relaxed);
        let groups: Vec<_> = self.groups.iter().filter_map(Weak::upgrade).collect();
        groups.iter().for_each(|log| self.write(log));
    }

    fn sync(&mut self, log: &Arc<GroupLog>) -> io::Result<()> {
        let synced = self.note(Subject::Segments(log.group()), log, log.flush(true))?;
        if let Some(synced) = synced {
            let (requests, announced) = (self.own.clone(), log.clone());
            log.announce_synced(synced, move || {
                requests.send(Request::Announced(announced, synced.index));
            });
        }
        Ok(())
    }

    fn unlink(&mut self, log: &Arc<GroupLog>, index: u64) -> io::Result<()> {
        let unlinked = self.note(Subject::Retention(log.group()), log, log.unlink_through(index));
        if let (Err(_), Some(waiting)) = (&unlinked, self.waiting.get_mut(&log.group())) {
            waiting.unlink = waiting.unlink.max(Some(index));
        }
        unlinked
    }

    /// Removes the decisions about entries that a restart finds in segments. Not before the journal says so durably:
    /// else a restart would discard the segment's end, and nobody could decide about those entries again.
    fn forget_decisions(&self, log: &GroupLog, index: u64) {
        let keys = GroupKeys::new(log.group(), log.incarnation());
        let mut batch = WriteBatch::default();
        for first in log.take_decision_rows(index) {
            batch.delete(keys.decisions(first));
        }
        if let Err(error) = self.state.write(batch) {
            self.failure.set(error.to_string());
        }
    }

    /// Notes how something went that was done for a group. A failed write or sync is final: the page cache may have dropped
    /// what it held. What waits is tried again.
    fn note<T>(&mut self, subject: Subject, log: &Arc<GroupLog>, result: io::Result<T>) -> io::Result<T> {
        match &result {
            // Another log has its data.
            _ if log.is_retired() => {}
            Ok(_) => self.troubles.clear(subject),
            Err(error) if Class::of(error).waits() => {
                self.troubles.raise_error(subject, error);
                if self.waiting.is_empty() {
                    self.retry_at = Instant::now() + RETRY_AFTER;
                }
                self.waiting.entry(log.group()).or_insert_with(|| Waiting { log: Weak::new(), unlink: None }).log =
                    Arc::downgrade(log);
            }
            Err(error) => self.failure.set(format!("{subject}: {error}")),
        }
        result
    }

    /// Tries again what did not work, when it is time.
    fn retry(&mut self) {
        if self.waiting.is_empty() || Instant::now() < self.retry_at {
            return;
        }
        for (group, Waiting { log, unlink }) in std::mem::take(&mut self.waiting) {
            let Some(log) = log.upgrade().filter(|log| !log.is_retired()) else {
                self.troubles.clear(Subject::Segments(group));
                self.troubles.clear(Subject::Retention(group));
                continue;
            };
            self.write(&log);
            if let Some(index) = unlink {
                // What went wrong is noted.
                drop(self.unlink(&log, index));
            }
        }
    }

    /// Carries out what is asked, each request after the time that `device` takes, until asked to stop.
    pub(crate) async fn drive(mut self, device: Arc<dyn Fn() -> Duration + Send + Sync>) {
        loop {
            let request = match self.requests.try_recv() {
                Ok(request) => {
                    sleep(device()).await;
                    request
                }
                Err(TryRecvError::Disconnected) => return,
                Err(TryRecvError::Empty) => {
                    if timeout(self.patience(), self.own.notify.notified()).await.is_err() {
                        self.do_what_is_due();
                    }
                    continue;
                }
            };
            if !self.carry_out(request) {
                return;
            }
        }
    }

    /// Runs on a thread of its own until asked to stop.
    pub(crate) fn spawn(mut self, handle: FlusherHandle) -> io::Result<FlusherThread> {
        let thread = thread::Builder::new().name("flusher".into()).spawn(move || while self.step() {})?;
        Ok(FlusherThread { handle, thread: Some(thread) })
    }
}

impl Requests {
    /// Nobody waits for what is asked of a flusher that has stopped.
    fn send(&self, request: Request) {
        let _ = self.queue.send(request);
        self.notify.notify_one();
    }
}

impl FlusherHandle {
    pub(crate) fn write(&self, log: &Arc<GroupLog>) {
        self.requests.send(Request::Write(log.clone()));
    }

    /// Ends it behind what was asked for before.
    pub(crate) fn stop(&self) {
        self.requests.send(Request::Stop);
    }

    /// Makes room in memory.
    pub(crate) fn write_all(&self) {
        if !self.write_all_asked.swap(true, Ordering::Relaxed) {
            self.requests.send(Request::WriteAll);
        }
    }

    pub(crate) fn opened(&self, log: &Arc<GroupLog>) {
        self.requests.send(Request::Opened(Arc::downgrade(log)));
    }

    /// Counts applied payload; flushes the state when it is time.
    pub(crate) fn applied(&self, bytes: u64) {
        let before = self.applied_bytes.fetch_add(bytes.max(1), Ordering::Relaxed);
        if before < STATE_FLUSH_LOG_BYTES && before + bytes >= STATE_FLUSH_LOG_BYTES {
            self.requests.send(Request::FlushState(None));
        }
    }

    /// Makes room in the journal, which wants to forget the entries up to `upto`.
    pub(crate) fn recycle(&self, log: &Arc<GroupLog>, upto: u64) {
        self.requests.send(Request::Recycle(log.clone(), upto));
    }

    pub(crate) async fn sync_and_wait(&self, log: &Arc<GroupLog>) -> io::Result<()> {
        self.ask(|done| Request::Sync(log.clone(), done)).await
    }

    pub(crate) async fn roll(&self, log: &Arc<GroupLog>) -> io::Result<()> {
        self.ask(|done| Request::Roll(log.clone(), done)).await
    }

    pub(crate) async fn unlink_through(&self, log: &Arc<GroupLog>, index: u64) -> io::Result<()> {
        self.ask(|done| Request::Unlink(log.clone(), index, done)).await
    }

    /// Returns when everything asked for before is done.
    pub(crate) async fn barrier(&self) -> io::Result<()> {
        self.ask(Request::Barrier).await
    }

    pub(crate) async fn flush_state(&self) -> io::Result<()> {
        self.ask(|done| Request::FlushState(Some(done))).await
    }

    async fn ask(&self, request: impl FnOnce(oneshot::Sender<io::Result<()>>) -> Request) -> io::Result<()> {
        let (tx, rx) = oneshot::channel();
        self.requests.send(request(tx));
        rx.await.map_err(|_| io::Error::other("the flusher stopped"))?
    }
}

impl Drop for FlusherThread {
    fn drop(&mut self) {
        self.handle.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
