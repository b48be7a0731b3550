//! The consumer: reads chosen partitions from chosen positions over one push stream, and goes on where it was after a
//! broken connection, with no gap and no repetition.
//!
//! Positions are turned into offsets once (`assignment`), so that "latest" does not move while a connection is away.

mod assignment;
mod chunk;
mod stream;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flotilla_proto::v1;
use futures::FutureExt;
use futures::future::BoxFuture;

use crate::client::Client;
use crate::error::{Error, reason};
use crate::retry::Backoff;
use assignment::Progress;
pub use assignment::{Assignment, Position};
pub use chunk::{Chunk, ConsumedRecord};
use stream::ConsumeStream;

/// A stream that was open for so long worked, whether records came or not.
const STEADY: Duration = Duration::from_secs(5);

/// How a consumer reads. `Default` follows the partitions for ever.
#[derive(Debug, Clone)]
pub struct ConsumerOptions {
    /// Stop at the end that each partition had when the consumer was created. Default: no.
    pub until_end: bool,
    /// How far the server may send ahead of what was taken, in bytes. Default 8 MiB.
    pub prefetch_bytes: u64,
    /// How far the server may send ahead of what was taken, in records. Default 1,000,000.
    pub prefetch_records: u64,
    /// How long to try to reach the cluster again before `next` reports it. Default 1 minute.
    pub retry_timeout: Duration,
}

impl Default for ConsumerOptions {
    fn default() -> Self {
        Self { until_end: false, prefetch_bytes: 8 << 20, prefetch_records: 1_000_000, retry_timeout: Duration::from_secs(60) }
    }
}

/// Reads one topic. Each partition's records come in order; those of different partitions come as they arrive.
#[derive(Debug)]
pub struct Consumer {
    client: Client,
    topic: Arc<str>,
    options: ConsumerOptions,
    partitions: BTreeMap<u32, Progress>,
    stream: Link,
    /// Received and not taken yet.
    ready: VecDeque<Chunk>,
    backoff: Backoff,
    /// When the stream was opened that was open last.
    opened_at: Option<Instant>,
    failing_since: Option<Instant>,
    /// Wait for this before the next attempt.
    retry_at: Option<Instant>,
}

/// The stream, also while it is being opened: `next` may be dropped and called again meanwhile.
enum Link {
    Closed,
    Opening(BoxFuture<'static, Result<ConsumeStream, Error>>),
    Open(Box<ConsumeStream>),
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "Closed",
            Self::Opening(_) => "Opening",
            Self::Open(_) => "Open",
        })
    }
}

impl Client {
    /// A consumer of `topic`, reading the partitions and positions of `assignment`.
    ///
    /// # Errors
    /// If there is no such topic or partition, or the cluster does not answer.
    pub async fn consumer(&self, topic: &str, assignment: Assignment, options: ConsumerOptions) -> Result<Consumer, Error> {
        if options.prefetch_bytes == 0 || options.prefetch_records == 0 {
            return Err(Error::InvalidArgument("prefetch_bytes and prefetch_records must be at least 1".to_owned()));
        }
        let partitions = assignment.resolve(self, topic, options.until_end).await?;
        Ok(Consumer {
            client: self.clone(),
            topic: topic.into(),
            options,
            partitions,
            stream: Link::Closed,
            ready: VecDeque::new(),
            backoff: self.backoff(),
            opened_at: None,
            failing_since: None,
            retry_at: None,
        })
    }
}

impl Consumer {
    /// The next records of one partition: what one stored batch holds. None when every partition came to its stop.
    /// May be dropped while it waits: nothing is lost.
    ///
    /// # Errors
    /// If a position is out of range (see [`Position::Offset`]), the topic is gone, a batch is damaged, or the cluster
    /// could not be reached for the retry timeout. After the last, calling again goes on trying.
    pub async fn next(&mut self) -> Result<Option<Chunk>, Error> {
        loop {
            if let Some(chunk) = self.ready.pop_front() {
                if let Some(progress) = self.partitions.get_mut(&chunk.partition()) {
                    progress.taken = chunk.next_offset();
                }
                return Ok(Some(chunk));
            }
            if self.partitions.values().all(Progress::is_done) {
                self.stream = Link::Closed;
                return Ok(None);
            }
            if let Err(error) = self.advance().await {
                self.failed(error).await?;
            }
        }
    }

    /// Each partition's next offset: that behind the last record returned by [`next`](Consumer::next).
    pub fn positions(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        self.partitions.iter().map(|(partition, progress)| (*partition, progress.taken))
    }

    /// The records between the positions and the high watermarks that were last seen.
    #[must_use]
    pub fn lag(&self) -> u64 {
        self.partitions.values().map(|progress| progress.high_watermark.saturating_sub(progress.taken)).sum()
    }

    /// Opens the stream, or takes one message from it.
    async fn advance(&mut self) -> Result<(), Error> {
        if let Some(at) = self.retry_at {
            tokio::time::sleep_until(at.into()).await;
            self.retry_at = None;
        }
        let stream = match &mut self.stream {
            Link::Open(stream) => stream,
            Link::Opening(opening) => {
                self.stream = Link::Open(Box::new(opening.await?));
                self.opened_at = Some(Instant::now());
                self.client.outages().over();
                return Ok(());
            }
            Link::Closed => {
                let open = self.partitions.iter().filter(|(_, progress)| !progress.is_done());
                let positions = open.map(|(partition, progress)| progress.to_wire(*partition)).collect();
                let opening = ConsumeStream::open(self.client.clone(), Arc::clone(&self.topic), positions, &self.options);
                self.stream = Link::Opening(opening.boxed());
                return Ok(());
            }
        };
        match stream.message().await? {
            Some(v1::consume_response::Response::Records(records)) => self.received(records)?,
            Some(v1::consume_response::Response::PartitionEnd(end)) => {
                if let Some(progress) = self.partitions.get_mut(&end.partition) {
                    progress.ended(end.next_offset);
                }
            }
            Some(v1::consume_response::Response::Opened(_)) => {}
            Some(v1::consume_response::Response::Drain(_)) => {
                return Err(Error::ConnectionLost { reason: "the node is leaving".to_owned() });
            }
            None => {
                self.stream = Link::Closed;
                let done = self.partitions.values().all(Progress::is_done);
                let lost = Error::ConnectionLost { reason: "the server ended the stream".to_owned() };
                return if done { Ok(()) } else { Err(lost) };
            }
        }
        self.failing_since = None;
        self.backoff.reset();
        self.client.outages().over();
        Ok(())
    }

    fn received(&mut self, records: v1::ConsumedRecords) -> Result<(), Error> {
        let Some(progress) = self.partitions.get_mut(&records.partition) else {
            return Err(Error::Protocol(format!("records of partition {}, which was not asked for", records.partition)));
        };
        let decompressed_max = usize::try_from(self.client.limits().decompressed_bytes_max).unwrap_or(usize::MAX);
        if let Link::Open(stream) = &mut self.stream {
            stream.used(&records, progress.position)?;
        }
        progress.high_watermark = records.high_watermark;
        for bytes in records.batches {
            let wanted = progress.position..progress.stop.unwrap_or(u64::MAX);
            let chunk = Chunk::new(&self.topic, records.partition, bytes, wanted, records.high_watermark, decompressed_max)?;
            progress.position = progress.position.max(chunk.next_offset());
            if !chunk.is_empty() {
                self.ready.push_back(chunk);
            }
        }
        // Offsets without records (markers, compaction) are passed over, too.
        progress.position = progress.position.max(records.next_offset.min(progress.stop.unwrap_or(u64::MAX)));
        Ok(())
    }

    /// Decides what a failure means: an error for the caller, or another attempt.
    async fn failed(&mut self, error: Error) -> Result<(), Error> {
        self.stream = Link::Closed;
        if error.reason() == reason::OFFSET_OUT_OF_RANGE && self.move_to_log_start().await? {
            return Ok(());
        }
        if !error.is_retriable() {
            return Err(error);
        }
        let now = Instant::now();
        // A stream that nothing came over for long was no failure; one that breaks as soon as it is open is.
        if self.opened_at.take().is_some_and(|at| now.saturating_duration_since(at) >= STEADY) {
            self.failing_since = None;
            self.backoff.reset();
        }
        let since = *self.failing_since.get_or_insert(now);
        if now.saturating_duration_since(since) >= self.options.retry_timeout {
            self.failing_since = None;
            return Err(error);
        }
        tracing::debug!(topic = %self.topic, %error, "consume stream broke; opening it again");
        self.client.outages().failed(&error);
        self.client.refresh_topic_soon(&self.topic);
        self.retry_at = Some(now + self.backoff.next().max(error.retry_after().unwrap_or_default()));
        Ok(())
    }

    /// A partition read from the earliest record goes on at the log start if retention overtook it. Whether any did.
    async fn move_to_log_start(&mut self) -> Result<bool, Error> {
        let request = v1::ListOffsetsRequest {
            topic: self.topic.to_string(),
            partitions: self.partitions.keys().copied().collect(),
            position: Some(Position::Earliest.to_wire()),
        };
        let mut moved = false;
        for listed in self.client.list_offsets(request).await?.offsets {
            if let Some(progress) = self.partitions.get_mut(&listed.partition)
                && progress.from_earliest
                && progress.position < listed.log_start_offset
            {
                tracing::warn!(topic = %self.topic, partition = listed.partition, from = progress.position,
                    to = listed.log_start_offset, "records were deleted before they were read");
                progress.position = listed.log_start_offset;
                moved = true;
            }
        }
        Ok(moved)
    }
}
