//! The batching producer of one topic.
//!
//! [`Producer::send`] appends to its partition's open batch under a short lock (`accumulator`). One task
//! (`sender`) takes full or lingering batches, asks each partition's queue (`queue`: order, retries, sequence numbers,
//! no I/O) what may go out, and sends over one stream per node (`stream`).

mod accumulator;
mod batch;
mod delivery;
mod options;
mod queue;
mod sender;
mod stream;

#[cfg(test)]
mod queue_tests;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::{mpsc, oneshot};

use crate::client::Client;
use crate::error::Error;
use accumulator::Accumulator;
pub use delivery::{Delivered, Delivery};
pub use options::{ProducerOptions, Record};
use sender::{Event, Sender};

/// Events that may wait for the sender; whoever reports one waits while it is full.
const EVENTS_MAX: usize = 1024;

/// Writes records to one topic, in batches. Share it by reference or in an `Arc`.
///
/// Records of one partition are appended in the order of their `send` calls. With idempotence (the default) each
/// acknowledged record is stored exactly once, however often its batch was retried. Dropping the producer without
/// [`close`](Producer::close) abandons what is not acknowledged yet.
#[derive(Debug)]
pub struct Producer {
    accumulator: Arc<Accumulator>,
    events: mpsc::Sender<Event>,
}

/// What became of the records of a producer so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProducerStats {
    /// Records acknowledged.
    pub acked_records: u64,
    /// Batches acknowledged.
    pub acked_batches: u64,
    /// Bytes of acknowledged batches, as sent (compressed).
    pub acked_bytes: u64,
    /// Bytes of keys and values of acknowledged records.
    pub acked_payload_bytes: u64,
    /// Records that were certainly not written.
    pub failed_records: u64,
    /// Records that may have been written or not.
    pub unknown_records: u64,
    /// Attempts that had to be repeated, in batches.
    pub retried_batches: u64,
}

impl Client {
    /// A producer for `topic`. It keeps to the number of partitions that the topic has now, and to this very topic: if it is
    /// deleted and created again, records fail with [`Error::TopicRecreated`].
    ///
    /// # Errors
    /// If there is no such topic, the cluster does not answer, or an option is out of range.
    pub async fn producer(&self, topic: &str, options: ProducerOptions) -> Result<Producer, Error> {
        options.check()?;
        let view = self.refresh_topic(topic).await?;
        let accumulator = Arc::new(Accumulator::new(topic, &view, &self.limits(), options));
        let (events, received) = mpsc::channel(EVENTS_MAX);
        let sender = Sender::new(self.clone(), (topic, view), Arc::clone(&accumulator), events.clone(), received);
        tokio::spawn(sender.run());
        Ok(Producer { accumulator, events })
    }
}

impl Producer {
    /// Hands a record over and returns its [`Delivery`], which resolves when it is acknowledged. Waits while the
    /// producer's buffer memory is full.
    ///
    /// # Errors
    /// If the record is too large, its partition does not exist, or the producer is closed. It is then not written.
    pub async fn send(&self, record: Record<'_>) -> Result<Delivery, Error> {
        let bytes = self.admit(&record).await?;
        self.accumulator.append(&record, bytes, true)?.ok_or(Error::Closed)
    }

    /// As [`send`](Producer::send), without a future for each record: [`stats`](Producer::stats) counts what became of
    /// it, and [`flush`](Producer::flush) reports the first failure. For bulk writers.
    ///
    /// # Errors
    /// As `send`.
    pub async fn enqueue(&self, record: Record<'_>) -> Result<(), Error> {
        let bytes = self.admit(&record).await?;
        self.accumulator.append(&record, bytes, false).map(drop)
    }

    async fn admit(&self, record: &Record<'_>) -> Result<u32, Error> {
        let bytes = self.accumulator.check(record)?;
        if !self.accumulator.try_reserve(bytes) {
            self.accumulator.reserve(bytes).await?;
        }
        Ok(bytes)
    }

    /// Sends what waits and returns when everything handed over before is acknowledged or given up.
    ///
    /// # Errors
    /// The first failure of a record handed over by [`enqueue`](Producer::enqueue) since the last flush.
    pub async fn flush(&self) -> Result<(), Error> {
        let (done, flushed) = oneshot::channel();
        self.events.send(Event::Flush(done)).await.map_err(|_| Error::Closed)?;
        flushed.await.map_err(|_| Error::Closed)?;
        self.accumulator.counters().take_first_error().map_or(Ok(()), Err)
    }

    /// Waits until the producer has stopped because a record was given up; for ever if it is not to
    /// ([`ProducerOptions::stop_at_loss`]).
    pub async fn stopped(&self) {
        let mut lost = self.accumulator.watch_lost();
        // It fails only without a sender, which `self` keeps.
        let _ = lost.wait_for(Option::is_some).await;
    }

    /// Counts so far.
    #[must_use]
    pub fn stats(&self) -> ProducerStats {
        self.accumulator.counters().stats()
    }

    /// Flushes and ends the producer.
    ///
    /// # Errors
    /// As [`flush`](Producer::flush).
    pub async fn close(self) -> Result<(), Error> {
        self.accumulator.closed.store(true, Ordering::Release);
        self.flush().await
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.accumulator.stop();
    }
}
