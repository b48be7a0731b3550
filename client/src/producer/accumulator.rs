//! Where records wait until their batch leaves: one open batch per partition, behind a short lock, within the
//! producer's buffer memory. No I/O.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use flotilla_records::{BatchBuilder, Codec, partition_for_key};
use futures::FutureExt;
use tokio::sync::{Notify, Semaphore, oneshot, watch};

use super::delivery::{Counters, Delivery, Outcome, SharedOutcome};
use super::options::{ProducerOptions, Record};
use crate::error::Error;
use crate::metadata::{Limits, TopicView};
use crate::retry::random_fraction;

/// Builders kept for reuse.
const SPARE_BUILDERS_MAX: usize = 64;
/// Keyless records move on to the next partition after this many bytes (Kafka's uniform sticky partitioner, KIP-794),
/// or when the batch leaves: so that short runs spread evenly, too, however large a batch may grow.
const STICKY_BYTES: u64 = 16 << 10;
/// Where there are more partitions than this, they stay longer in proportion: a short run cannot be spread evenly over
/// hundreds of partitions, and a long one is cheaper in fewer and larger batches.
const STICKY_PARTITIONS: u64 = 64;
/// How many times longer at most.
const STICKY_LONGER_MAX: u64 = 8;

/// The open batches of one producer, shared by its users and its sender.
#[derive(Debug)]
pub(super) struct Accumulator {
    pub options: ProducerOptions,
    slots: Vec<Mutex<Slot>>,
    /// By partition: whether somebody leads it, as far as is known.
    led: Vec<AtomicBool>,
    /// Whether keyless records avoid partitions that nobody leads: there are some, and others.
    avoids: AtomicBool,
    /// Where keyless records go at the moment.
    sticky: AtomicU32,
    /// Bytes of keyless records after which they go to the next partition (see [`STICKY_BYTES`]).
    sticky_bytes: u64,
    /// Bytes of keyless records so far.
    keyless_bytes: AtomicU64,
    /// Bytes left of the buffer memory.
    memory: Semaphore,
    /// Partitions that got something since the sender looked.
    touched: Mutex<Vec<u32>>,
    spare: Mutex<Vec<BatchBuilder>>,
    counters: Counters,
    /// Why the first record was given up, if the producer stops at that.
    lost: watch::Sender<Option<Error>>,
    topic: String,
    record_bytes_max: usize,
    /// Wakes the sender.
    pub wake: Notify,
    /// Whether nothing more is taken.
    pub closed: AtomicBool,
    /// Whether the sender is to end, too.
    pub stopped: AtomicBool,
}

#[derive(Debug, Default)]
struct Slot {
    open: Option<Open>,
    full: VecDeque<Open>,
    /// Whether the sender knows that there is something.
    touched: bool,
}

/// A batch that is not encoded yet.
#[derive(Debug)]
pub(super) struct Open {
    pub builder: BatchBuilder,
    pub opened_at: Instant,
    /// Bytes of its records' keys and values.
    pub payload_bytes: u64,
    /// Buffer memory that its records reserved.
    pub reserved_bytes: usize,
    /// Whether a record came through `enqueue`.
    pub unwatched: bool,
    pub outcome: oneshot::Sender<Outcome>,
    watch: SharedOutcome,
}

impl Accumulator {
    pub fn new(topic: &str, view: &TopicView, limits: &Limits, mut options: ProducerOptions) -> Self {
        let as_usize = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let batch_bytes_max = as_usize(view.batch_bytes_max);
        // What compression saves is not known in advance, so only the decompressed size bounds compressed records.
        let record_bytes_max = match options.codec {
            Codec::None => batch_bytes_max,
            _ => as_usize(limits.decompressed_bytes_max),
        };
        options.batch_bytes = options.batch_bytes.min(batch_bytes_max);
        options.batch_records_max = options.batch_records_max.min(limits.records_per_batch_max);
        let partitions = view.partition_count;
        let accumulator = Self {
            led: (0..partitions).map(|_| AtomicBool::new(true)).collect(),
            avoids: AtomicBool::new(false),
            slots: (0..partitions).map(|_| Mutex::default()).collect(),
            sticky: AtomicU32::new((random_fraction() * f64::from(partitions)) as u32 % partitions.max(1)),
            sticky_bytes: sticky_bytes(partitions),
            keyless_bytes: AtomicU64::new(0),
            memory: Semaphore::new(options.buffer_bytes),
            touched: Mutex::default(),
            spare: Mutex::default(),
            counters: Counters::default(),
            lost: watch::Sender::new(None),
            topic: topic.to_owned(),
            record_bytes_max: record_bytes_max.min(options.buffer_bytes),
            wake: Notify::new(),
            closed: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            options,
        };
        accumulator.keep_to_led(view);
        accumulator
    }

    /// Learns which partitions are led: keyless records go to these, as long as there are any.
    pub fn keep_to_led(&self, view: &TopicView) {
        let mut count = 0;
        for (partition, led) in (0..).zip(&self.led) {
            let is_led = view.leader(partition).is_some();
            led.store(is_led, Ordering::Relaxed);
            count += usize::from(is_led);
        }
        self.avoids.store(count > 0 && count < self.led.len(), Ordering::Relaxed);
        let sticky = self.sticky.load(Ordering::Relaxed);
        if count > 0 && !self.is_led(sticky) {
            self.move_sticky(sticky);
        }
    }

    /// Whether keyless records avoid a partition that nobody leads.
    pub fn avoids_some(&self) -> bool {
        self.avoids.load(Ordering::Relaxed)
    }

    fn is_led(&self, partition: u32) -> bool {
        self.led.get(partition as usize).is_some_and(|led| led.load(Ordering::Relaxed))
    }

    /// Bytes that `record` takes, if it can be written at all.
    pub fn check(&self, record: &Record<'_>) -> Result<u32, Error> {
        self.check_open()?;
        if let Some(partition) = record.partition
            && partition as usize >= self.slots.len()
        {
            return Err(self.unknown_partition(partition));
        }
        let bytes = BatchBuilder::record_bytes_max(record.key, record.value, record.headers.iter().copied());
        match u32::try_from(bytes) {
            Ok(fits) if bytes.saturating_add(flotilla_records::HEADER_BYTES) <= self.record_bytes_max => Ok(fits),
            _ => Err(Error::InvalidArgument(format!(
                "the record takes {bytes} bytes, allowed are {}: send a smaller one, or raise the topic's batch_bytes_max or the producer's buffer",
                self.record_bytes_max
            ))),
        }
    }

    /// Takes buffer memory if there is enough.
    pub fn try_reserve(&self, bytes: u32) -> bool {
        self.memory.try_acquire_many(bytes).map(|permit| permit.forget()).is_ok()
    }

    /// Waits for buffer memory. What lingers leaves at once, or nothing might ever be freed.
    pub async fn reserve(&self, bytes: u32) -> Result<(), Error> {
        self.close_all();
        let permit = self.memory.acquire_many(bytes).await.map_err(|_| Error::Closed)?;
        permit.forget();
        // It may have become free because the producer stopped.
        self.check_open().inspect_err(|_| self.release(bytes as usize))
    }

    fn check_open(&self) -> Result<(), Error> {
        if !self.closed.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(self.lost().map_or(Error::Closed, |cause| Error::Stopped { cause: Box::new(cause) }))
    }

    fn unknown_partition(&self, partition: u32) -> Error {
        let last = u32::try_from(self.slots.len()).unwrap_or(u32::MAX).saturating_sub(1);
        Error::UnknownPartition { topic: self.topic.clone(), partition, last }
    }

    /// Stops the producer because a record was given up. Only the first reason counts.
    pub fn stop_at_loss(&self, error: &Error) {
        self.lost.send_if_modified(|lost| {
            let first = lost.is_none();
            lost.get_or_insert_with(|| error.clone());
            first
        });
        self.closed.store(true, Ordering::Release);
    }

    /// Why the producer stopped, if it did.
    pub fn lost(&self) -> Option<Error> {
        self.lost.borrow().clone()
    }

    /// Changes when the producer stops.
    pub fn watch_lost(&self) -> watch::Receiver<Option<Error>> {
        self.lost.subscribe()
    }

    pub fn release(&self, bytes: usize) {
        self.memory.add_permits(bytes);
    }

    pub fn partition_count(&self) -> usize {
        self.slots.len()
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Adds a record, for which memory was reserved, to its partition's open batch.
    pub fn append(&self, record: &Record<'_>, bytes: u32, watched: bool) -> Result<Option<Delivery>, Error> {
        let partition = self.partition_of(record);
        let Some(slot) = self.slots.get(partition as usize) else {
            return Err(self.unknown_partition(partition));
        };
        let timestamp_ms = record.timestamp_ms.unwrap_or_else(now_ms);
        let mut slot = lock(slot);
        self.make_room(&mut slot, partition, bytes as usize);
        let open = slot.open.get_or_insert_with(|| self.open());
        if let Err(error) = open.builder.add(timestamp_ms, record.key, record.value, record.headers.iter().copied()) {
            self.release(bytes as usize);
            return Err(error.into());
        }
        if record.partition.is_none() && record.key.is_none() {
            let before = self.keyless_bytes.fetch_add(u64::from(bytes), Ordering::Relaxed);
            if before / self.sticky_bytes != (before + u64::from(bytes)) / self.sticky_bytes {
                self.move_sticky(partition);
            }
        }
        let payload_bytes = record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
        open.payload_bytes += payload_bytes as u64;
        open.reserved_bytes += bytes as usize;
        open.unwatched |= !watched;
        let index = open.builder.record_count() - 1;
        let delivery = watched.then(|| Delivery { outcome: open.watch.clone(), partition, index });
        let full = self.is_full(open, 0);
        if full {
            self.close_open(&mut slot, partition);
        }
        let first = !std::mem::replace(&mut slot.touched, true);
        drop(slot);
        if first {
            lock(&self.touched).push(partition);
        }
        if first || full {
            self.wake.notify_one();
        }
        Ok(delivery)
    }

    fn partition_of(&self, record: &Record<'_>) -> u32 {
        match (record.partition, record.key) {
            (Some(partition), _) => partition,
            (None, Some(key)) => partition_for_key(key, self.slots.len() as u32),
            (None, None) => self.sticky.load(Ordering::Relaxed),
        }
    }

    fn is_full(&self, open: &Open, more_bytes: usize) -> bool {
        open.builder.uncompressed_bytes() + more_bytes > self.options.batch_bytes
            || open.builder.record_count() >= self.options.batch_records_max
    }

    fn make_room(&self, slot: &mut Slot, partition: u32, bytes: usize) {
        if slot.open.as_ref().is_some_and(|open| self.is_full(open, bytes)) {
            self.close_open(slot, partition);
        }
    }

    fn open(&self) -> Open {
        let spare = lock(&self.spare).pop();
        let (outcome, watch) = oneshot::channel();
        Open {
            // A builder that was used before has the room that its last batch took.
            builder: spare.unwrap_or_default(),
            opened_at: Instant::now(),
            payload_bytes: 0,
            reserved_bytes: 0,
            unwatched: false,
            outcome,
            watch: watch.shared(),
        }
    }

    fn close_open(&self, slot: &mut Slot, partition: u32) {
        if let Some(open) = slot.open.take() {
            slot.full.push_back(open);
            self.move_sticky(partition);
        }
    }

    /// The next keyless records go to the next partition that is led.
    fn move_sticky(&self, from: u32) {
        let count = (self.slots.len() as u32).max(1);
        let mut others = (1..=count).map(|step| (from + step) % count);
        let next = others.find(|partition| self.is_led(*partition)).unwrap_or((from + 1) % count);
        // If it is elsewhere already, another batch left first.
        let _ = self.sticky.compare_exchange(from, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Closes every open batch, so that it leaves however briefly it has lingered.
    pub fn close_all(&self) {
        for (partition, slot) in self.slots.iter().enumerate() {
            self.close_open(&mut lock(slot), partition as u32);
        }
        self.wake.notify_one();
    }

    /// Ends the sender.
    pub fn stop(&self) {
        self.closed.store(true, Ordering::Release);
        self.stopped.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// Partitions that got records since the last call.
    pub fn take_touched(&self) -> Vec<u32> {
        std::mem::take(&mut *lock(&self.touched))
    }

    /// What may leave now: full batches, and the open one if `take_open` says so of its age.
    /// Also when the one that stays was opened; a partition that keeps nothing is not touched any more.
    pub fn take(&self, partition: u32, take_open: impl Fn(Duration) -> bool, now: Instant) -> (VecDeque<Open>, Option<Instant>) {
        let Some(slot) = self.slots.get(partition as usize) else {
            return (VecDeque::new(), None);
        };
        let mut slot = lock(slot);
        if slot.open.as_ref().is_some_and(|open| take_open(now.saturating_duration_since(open.opened_at))) {
            self.close_open(&mut slot, partition);
        }
        let stays = slot.open.as_ref().map(|open| open.opened_at);
        slot.touched = stays.is_some();
        (std::mem::take(&mut slot.full), stays)
    }

    /// Takes an emptied builder back, with its memory.
    pub fn recycle(&self, builder: BatchBuilder) {
        let mut spare = lock(&self.spare);
        if spare.len() < SPARE_BUILDERS_MAX {
            spare.push(builder);
        }
    }
}

fn sticky_bytes(partitions: u32) -> u64 {
    STICKY_BYTES * (u64::from(partitions) / STICKY_PARTITIONS).clamp(1, STICKY_LONGER_MAX)
}

#[cfg(test)]
impl Open {
    /// A batch of empty records.
    pub fn with_records(records: u32, opened_at: Instant) -> Self {
        let (outcome, watch) = oneshot::channel();
        let mut builder = BatchBuilder::new();
        for _ in 0..records {
            // Empty records always fit.
            let _ = builder.add(0, None, None, []);
        }
        Self { builder, opened_at, payload_bytes: 0, reserved_bytes: 0, unwatched: false, outcome, watch: watch.shared() }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
