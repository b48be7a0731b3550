//! Bytes that all calls together may hold, in one direction. Who wants more waits; while somebody waits, or more are held
//! than there may be, what its client has kept waiting for longest gives way.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::futures::OwnedNotified;
use tokio::sync::{Notify, oneshot};

/// This part of all bytes is made free when they are used up.
const FREED_PART: u64 = 8;

/// See the module.
#[derive(Debug)]
pub struct Budget {
    bytes_max: u64,
    /// How long a client may take while others wait.
    grace: Duration,
    pub(super) used: AtomicU64,
    pub(super) waiting: AtomicUsize,
    freed: Arc<Notify>,
    /// Who waits for room, in order.
    wanted: Mutex<VecDeque<Wanted>>,
    holders: Mutex<Holders>,
}

/// Room that somebody waits for.
#[derive(Debug)]
struct Wanted {
    bytes: u64,
    granted: oneshot::Sender<Lot>,
}

#[derive(Debug, Default)]
struct Holders {
    next_id: u64,
    by_id: BTreeMap<u64, Weak<dyn Holder>>,
}

/// Something that holds bytes until its client does its part.
pub trait Holder: std::fmt::Debug + Send + Sync {
    /// Since when its client keeps it waiting, and the bytes that it holds.
    fn kept_waiting(&self) -> Option<(Instant, u64)>;

    /// Frees what it holds.
    fn give_way(&self);

    /// Looks at its own deadlines.
    fn look(&self, now: Instant);

    /// It waits for bytes that nobody is going to free: the one that has held some for longest may take more.
    fn go_on(&self) {}

    /// Since when it holds bytes and waits for more.
    fn wants_more(&self) -> Option<Instant> {
        None
    }
}

/// Bytes that are counted until this is dropped.
#[derive(Debug)]
pub struct Lot {
    budget: Arc<Budget>,
    bytes: u64,
}

/// What the next message of an answer is made of: it counts until the message itself does, so that nobody gets its room in
/// between. Goes with the answer, as an extension of it.
#[derive(Debug, Clone, Default)]
pub struct Handover(Arc<Mutex<Option<Lot>>>);

/// Keeps a holder known to its budget.
#[derive(Debug)]
pub struct Membership {
    budget: Arc<Budget>,
    id: u64,
}

/// A wait for bytes to become free.
pub struct Waiting {
    budget: Arc<Budget>,
    /// Resolves when some were freed.
    pub freed: std::pin::Pin<Box<OwnedNotified>>,
}

impl Budget {
    /// Of `bytes_max`. A client may take `grace` to do its part while others wait.
    pub fn new(bytes_max: u64, grace: Duration) -> Self {
        let (used, waiting, freed) = (AtomicU64::new(0), AtomicUsize::new(0), Arc::default());
        Self { bytes_max, grace, used, waiting, freed, wanted: Mutex::default(), holders: Mutex::default() }
    }

    /// Whether bytes are left.
    pub fn has_room(&self) -> bool {
        self.used.load(Ordering::Relaxed) < self.bytes_max
    }

    /// Whether more than half of the bytes are used.
    pub fn is_half_used(&self) -> bool {
        self.used.load(Ordering::Relaxed) > self.bytes_max / 2
    }

    /// Counts bytes that are there already.
    pub fn add(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts bytes as freed.
    pub fn sub(self: &Arc<Self>, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::AcqRel);
        if bytes > 0 && self.waiting.load(Ordering::Acquire) > 0 {
            self.grant();
            self.freed.notify_waiters();
        }
    }

    /// Bytes that are there already.
    pub fn lot(self: &Arc<Self>, bytes: u64) -> Lot {
        self.add(bytes);
        Lot { budget: self.clone(), bytes }
    }

    /// Waits until `bytes` are left, behind all who wait already, and takes them. All bytes at once are given to whoever
    /// wants more than there are.
    pub async fn room(self: &Arc<Self>, bytes: u64) -> Lot {
        let bytes = bytes.min(self.bytes_max);
        if self.waiting.load(Ordering::Acquire) == 0
            && let Some(lot) = self.try_room(bytes)
        {
            return lot;
        }
        let _waiting = self.wait();
        let (granted, lot) = oneshot::channel();
        self.wanted().push_back(Wanted { bytes, granted });
        self.grant();
        match lot.await {
            Ok(lot) => lot,
            // Whoever waits keeps the budget, which keeps this.
            Err(_) => std::future::pending().await,
        }
    }

    /// Gives what is left to those who wait for it.
    fn grant(self: &Arc<Self>) {
        let mut wanted = self.wanted();
        while let Some(first) = wanted.front() {
            if !first.granted.is_closed() {
                let Some(lot) = self.try_room(first.bytes) else { return };
                let left = wanted.pop_front().and_then(|first| first.granted.send(lot).err());
                // Who has left just now: it is taken back here, as this is the one who gives it to the next.
                if let Some(mut lot) = left {
                    self.used.fetch_sub(std::mem::take(&mut lot.bytes), Ordering::AcqRel);
                }
            } else {
                wanted.pop_front();
            }
        }
    }

    fn wanted(&self) -> MutexGuard<'_, VecDeque<Wanted>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn try_room(self: &Arc<Self>, bytes: u64) -> Option<Lot> {
        let more = |used: u64| Some(used + bytes).filter(|used| *used <= self.bytes_max);
        self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        Some(Lot { budget: self.clone(), bytes })
    }

    /// A wait that hears of all that is freed from now on.
    pub fn wait(self: &Arc<Self>) -> Waiting {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        Waiting { budget: self.clone(), freed: Box::pin(self.freed.clone().notified_owned()) }
    }

    /// Makes a holder known as long as the membership lives.
    pub fn join(self: &Arc<Self>, holder: Weak<dyn Holder>) -> Membership {
        let mut holders = self.lock();
        let id = holders.next_id;
        holders.next_id += 1;
        holders.by_id.insert(id, holder);
        Membership { budget: self.clone(), id }
    }

    /// Lets those give way who must, and the others look at their deadlines.
    pub fn look(&self, now: Instant) {
        let holders: Vec<Arc<dyn Holder>> = self.lock().by_id.values().filter_map(Weak::upgrade).collect();
        holders.iter().for_each(|holder| holder.look(now));
        // What was there before it was counted may have been too much.
        let is_over = self.used.load(Ordering::Relaxed) > self.bytes_max;
        if self.waiting.load(Ordering::Acquire) == 0 && !is_over {
            return;
        }
        let waits = |holder: &Arc<dyn Holder>| holder.kept_waiting().map(|(since, bytes)| (since, bytes, holder.clone()));
        let mut late: Vec<_> = holders.iter().filter_map(waits).collect();
        late.retain(|(since, ..)| now.saturating_duration_since(*since) >= self.grace);
        late.sort_by_key(|(since, ..)| *since);
        if late.is_empty() {
            let first = holders.iter().filter_map(|holder| Some((holder.wants_more()?, holder)));
            if let Some((_, holder)) = first.min_by_key(|(since, _)| *since) {
                holder.go_on();
            }
        }
        let mut freed = 0;
        for (_, bytes, holder) in late {
            if freed >= self.bytes_max / FREED_PART {
                break;
            }
            freed += bytes;
            holder.give_way();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Holders> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lot {
    /// How many.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Counts another number of bytes.
    pub fn resize(&mut self, bytes: u64) {
        if bytes > self.bytes {
            self.budget.add(bytes - self.bytes);
        } else {
            self.budget.sub(self.bytes - bytes);
        }
        self.bytes = bytes;
    }
}

impl Handover {
    /// The message that comes next is made of this.
    pub fn put(&self, lot: Option<Lot>) {
        drop(std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), lot));
    }
}

impl Drop for Lot {
    fn drop(&mut self) {
        self.budget.sub(self.bytes);
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.budget.lock().by_id.remove(&self.id);
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.budget.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}
