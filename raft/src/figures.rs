//! Figures for metrics: counted without locks where they arise, copied out when somebody looks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::journal::BatchStats;

/// Buckets of a distribution: each but the last reaches twice as far as the one before, the last takes the rest.
const BUCKETS: usize = 16;

/// The first bucket of batches: one block of the journal.
const BATCH_BYTES_FIRST: u64 = 4 << 10;
/// The first bucket of the time that a batch takes: 0.1 ms.
const BATCH_NANOS_FIRST: u64 = 100_000;

/// Counts what the journal writes.
#[derive(Debug)]
pub(crate) struct JournalCounters {
    submissions: AtomicU64,
    bytes: Histogram,
    nanos: Histogram,
}

impl Default for JournalCounters {
    fn default() -> Self {
        let (bytes, nanos) = (Histogram::new(BATCH_BYTES_FIRST), Histogram::new(BATCH_NANOS_FIRST));
        Self { submissions: AtomicU64::new(0), bytes, nanos }
    }
}

impl JournalCounters {
    /// Counts one batch.
    pub(crate) fn count(&self, batch: &BatchStats) {
        self.submissions.fetch_add(batch.submissions as u64, Ordering::Relaxed);
        self.bytes.observe(batch.bytes);
        self.nanos.observe(u64::try_from(batch.duration.as_nanos()).unwrap_or(u64::MAX));
    }

    /// What was counted so far.
    pub(crate) fn read(&self) -> JournalFigures {
        JournalFigures {
            submissions: self.submissions.load(Ordering::Relaxed),
            batch_bytes: self.bytes.read(),
            batch_nanos: self.nanos.read(),
        }
    }
}

/// Counts what snapshot transfers carry.
#[derive(Debug, Default)]
pub(crate) struct TransferCounters {
    pub(crate) sent: AtomicU64,
    pub(crate) sent_bytes: AtomicU64,
    pub(crate) received: AtomicU64,
    pub(crate) received_bytes: AtomicU64,
    pub(crate) interrupted: AtomicU64,
}

impl TransferCounters {
    /// What was counted so far.
    pub(crate) fn read(&self) -> TransferFigures {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        TransferFigures {
            sent: read(&self.sent),
            sent_bytes: read(&self.sent_bytes),
            received: read(&self.received),
            received_bytes: read(&self.received_bytes),
            interrupted: read(&self.interrupted),
        }
    }
}

/// Snapshots that went from node to node since the start, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TransferFigures {
    /// Sent from here and installed there.
    pub sent: u64,
    /// Bytes of chunks that were sent, also of transfers that were cut.
    pub sent_bytes: u64,
    /// Received and installed here.
    pub received: u64,
    /// Bytes of chunks that were received, also of transfers that were cut.
    pub received_bytes: u64,
    /// Transfers from here that were cut; they go on where they were.
    pub interrupted: u64,
}

/// What the journal has written since it was opened, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct JournalFigures {
    /// Appends, votes and marks that its batches carried.
    pub submissions: u64,
    /// Bytes of each batch, padding included. A batch is one write with its sync.
    pub batch_bytes: Distribution,
    /// Time that write and sync of each batch took together, in nanoseconds.
    pub batch_nanos: Distribution,
}

impl JournalFigures {
    /// Batches: writes, each with its sync.
    #[must_use]
    pub fn batches(&self) -> u64 {
        self.batch_bytes.count()
    }

    /// Bytes, padding included.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.batch_bytes.sum
    }

    /// Time spent writing and syncing.
    #[must_use]
    pub fn busy(&self) -> Duration {
        Duration::from_nanos(self.batch_nanos.sum)
    }
}

/// Counts values by their size.
#[derive(Debug)]
pub(crate) struct Histogram {
    first: u64,
    sum: AtomicU64,
    counts: [AtomicU64; BUCKETS],
}

impl Histogram {
    /// Empty; the first bucket takes values up to `first`.
    pub(crate) fn new(first: u64) -> Self {
        Self { first, sum: AtomicU64::new(0), counts: Default::default() }
    }

    /// Counts one value.
    pub(crate) fn observe(&self, value: u64) {
        let bucket = (0..BUCKETS - 1).find(|bucket| value <= bound(self.first, *bucket)).unwrap_or(BUCKETS - 1);
        if let Some(count) = self.counts.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// What was counted so far.
    pub(crate) fn read(&self) -> Distribution {
        let mut counts = [0; BUCKETS];
        for (read, count) in counts.iter_mut().zip(&self.counts) {
            *read = count.load(Ordering::Relaxed);
        }
        Distribution { first: self.first, sum: self.sum.load(Ordering::Relaxed), counts }
    }
}

/// How values were spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Distribution {
    /// All values together.
    pub sum: u64,
    first: u64,
    counts: [u64; BUCKETS],
}

impl Distribution {
    /// Number of values.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Buckets in order: the largest value that belongs there (none: no limit), and how many were there.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<u64>, u64)> + '_ {
        let upto = |bucket| (bucket < BUCKETS - 1).then(|| bound(self.first, bucket));
        self.counts.iter().enumerate().map(move |(bucket, count)| (upto(bucket), *count))
    }
}

fn bound(first: u64, bucket: usize) -> u64 {
    first.saturating_mul(1 << bucket)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn values_fall_into_their_buckets() {
        let histogram = Histogram::new(100);
        for value in [0, 100, 101, 200, 201, u64::from(u32::MAX)] {
            histogram.observe(value);
        }
        let read = histogram.read();
        let buckets: Vec<_> = read.buckets().collect();
        assert_eq!((buckets[0], buckets[1], buckets[2]), ((Some(100), 2), (Some(200), 2), (Some(400), 1)));
        assert_eq!(buckets.last().unwrap(), &(None, 1));
        assert_eq!((read.count(), read.sum), (6, 602 + u64::from(u32::MAX)));
    }
}
