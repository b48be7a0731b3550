//! A cursor over one partition: what fetch and consume streams are made of.

use std::sync::Arc;
use std::time::Duration;

use crate::error::FetchError;
use crate::fetch::{Fetched, FetchedBatch, NO_WAIT, check_range, read_error};
use crate::partition::{Ends, Partition};

/// Reads one partition from an offset on. Holds no data between reads.
pub struct PartitionReader {
    partition: Arc<Partition>,
    next: u64,
    stop: Option<u64>,
    decompressed_bytes_max: usize,
}

impl PartitionReader {
    pub(crate) fn new(partition: Arc<Partition>, next: u64, stop: Option<u64>, decompressed_bytes_max: usize) -> Self {
        Self { partition, next, stop, decompressed_bytes_max }
    }

    /// Which partition.
    #[must_use]
    pub fn partition(&self) -> u32 {
        self.partition.number
    }

    /// The next offset to read.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.next
    }

    /// The offset before which reading stops.
    #[must_use]
    pub fn stop(&self) -> Option<u64> {
        self.stop
    }

    /// Goes on from another offset: a client that took fewer records than were read.
    pub fn seek(&mut self, offset: u64) {
        self.next = offset;
    }

    /// The partition's ends as of now.
    #[must_use]
    pub fn ends(&self) -> Ends {
        self.partition.ends()
    }

    /// Whether no reader was told of a later end of the partition before. Where nobody can lead, a replica is read that may
    /// not know of the very last commits.
    #[must_use]
    pub fn is_end_certain(&self) -> bool {
        self.partition.is_end_certain()
    }

    /// Whether the stop position is reached.
    #[must_use]
    pub fn at_stop(&self) -> bool {
        self.stop.is_some_and(|stop| self.next >= stop)
    }

    /// How far a compressed batch may expand when it is decoded.
    #[must_use]
    pub fn decompressed_bytes_max(&self) -> usize {
        self.decompressed_bytes_max
    }

    /// Returns when there is something to read, or after `patience`.
    ///
    /// # Errors
    /// If the partition is closing.
    pub async fn ready(&self, patience: Duration) -> Result<(), FetchError> {
        if patience == NO_WAIT || self.at_stop() { Ok(()) } else { self.partition.wait_for(self.next, patience).await }
    }

    /// Returns when the partition is closing, and says so.
    pub async fn closed(&self) -> FetchError {
        self.partition.closed().await
    }

    /// The next stored batches: about `bytes_max`, at least one if there is one. Moves on behind them (or to the
    /// stop).
    ///
    /// # Errors
    /// If the position fell out of the log, or reading fails.
    pub async fn read(&mut self, bytes_max: usize) -> Result<Fetched, FetchError> {
        let ends = self.ends();
        check_range(&self.partition, self.next, ends)?;
        let from = self.next;
        let end = self.stop.map_or(ends.high_watermark, |stop| stop.min(ends.high_watermark));
        if from >= end {
            return Ok(Fetched { batches: Vec::new(), from, next_offset: from, ends });
        }
        let items = self.partition.group.read(from, bytes_max).await;
        let items = items.map_err(|error| read_error(&self.partition, error))?;
        let within = items.into_iter().take_while(|item| item.kept.base_offset < end);
        let batches: Vec<FetchedBatch> =
            within.map(|item| FetchedBatch::new(item.kept, item.log_id.term, item.payload)).collect();
        let Some(last) = batches.last() else {
            if self.partition.is_lost(from..end) {
                self.next = end;
                return Ok(Fetched { from, next_offset: end, ends: self.ends(), batches });
            }
            let reason = format!("offset {from} is missing below the high watermark {end}");
            return Err(FetchError::Read(format!("{}: {reason}", self.partition.describe())));
        };
        self.next = last.end_offset().min(end);
        Ok(Fetched { from, next_offset: self.next, ends: self.ends(), batches })
    }
}
