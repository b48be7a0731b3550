//! What became of records: the future of one, and the counts of all.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use futures::FutureExt;
use futures::future::Shared;
use tokio::sync::oneshot;

use super::ProducerStats;
use crate::error::Error;

/// What became of a batch: the offset of its first record, or why it was given up.
pub(super) type Outcome = Result<u64, Error>;
/// A batch's outcome, waited for by all its records.
pub(super) type SharedOutcome = Shared<oneshot::Receiver<Outcome>>;

/// Where an acknowledged record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivered {
    /// Its partition.
    pub partition: u32,
    /// Its offset in the partition.
    pub offset: u64,
}

/// Resolves when its record is on the disks of a majority, or given up. Need not be awaited.
#[derive(Debug, Clone)]
#[must_use = "the record is only known to be written when its delivery resolves; use `enqueue` where nobody waits"]
pub struct Delivery {
    pub(super) outcome: SharedOutcome,
    pub(super) partition: u32,
    /// Place of the record in its batch.
    pub(super) index: u32,
}

impl Future for Delivery {
    type Output = Result<Delivered, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = ready!(self.outcome.poll_unpin(context)).unwrap_or(Err(Error::Closed));
        let partition = self.partition;
        Poll::Ready(outcome.map(|base| Delivered { partition, offset: base + u64::from(self.index) }))
    }
}

/// Counts of one producer.
#[derive(Debug, Default)]
pub(super) struct Counters {
    acked_records: AtomicU64,
    acked_batches: AtomicU64,
    acked_bytes: AtomicU64,
    acked_payload_bytes: AtomicU64,
    failed_records: AtomicU64,
    unknown_records: AtomicU64,
    retried_batches: AtomicU64,
    /// Of records that nobody waits for.
    first_error: Mutex<Option<Error>>,
}

impl Counters {
    pub fn acked(&self, records: u32, payload_bytes: u64, bytes: usize) {
        self.acked_records.fetch_add(u64::from(records), Ordering::Relaxed);
        self.acked_batches.fetch_add(1, Ordering::Relaxed);
        self.acked_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.acked_payload_bytes.fetch_add(payload_bytes, Ordering::Relaxed);
    }

    pub fn given_up(&self, records: u32, error: &Error) {
        let counter = if error.outcome_unknown() { &self.unknown_records } else { &self.failed_records };
        counter.fetch_add(u64::from(records), Ordering::Relaxed);
    }

    pub fn retried(&self, batches: usize) {
        self.retried_batches.fetch_add(batches as u64, Ordering::Relaxed);
    }

    pub fn unwatched_failure(&self, error: &Error) {
        let mut first = self.first_error.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert_with(|| error.clone());
    }

    pub fn take_first_error(&self) -> Option<Error> {
        self.first_error.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub fn stats(&self) -> ProducerStats {
        ProducerStats {
            acked_records: self.acked_records.load(Ordering::Relaxed),
            acked_batches: self.acked_batches.load(Ordering::Relaxed),
            acked_bytes: self.acked_bytes.load(Ordering::Relaxed),
            acked_payload_bytes: self.acked_payload_bytes.load(Ordering::Relaxed),
            failed_records: self.failed_records.load(Ordering::Relaxed),
            unknown_records: self.unknown_records.load(Ordering::Relaxed),
            retried_batches: self.retried_batches.load(Ordering::Relaxed),
        }
    }
}
