//! The consumer: reads chosen partitions from chosen positions over one push stream for each node that leads some of them,
//! and goes on where it was after a broken connection or when a leader moves, with no gap and no repetition.
//!
//! Positions are turned into offsets once (`assignment`), so that "latest" does not move while a connection is away.

mod assignment;
mod chunk;
mod link;
mod stream;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use flotilla_proto::v1;
use flotilla_proto::v1::consume_response::Response;
use futures::FutureExt;

use crate::client::Client;
use crate::error::{Error, reason};
use crate::retry::Backoff;
use assignment::Progress;
pub use assignment::{Assignment, Position};
pub use chunk::{Chunk, ConsumedRecord};
use link::{Event, LinkId, Links, NO_LINK};
use stream::ConsumeStream;

/// A stream that was open for so long worked, whether records came or not.
const STEADY: Duration = Duration::from_secs(5);
/// How often a consumer looks for shorter ways to its partitions.
const DETOUR_PATIENCE: Duration = Duration::from_millis(500);
/// How often a consumer of all partitions looks whether there are more.
const NEW_PARTITIONS_INTERVAL: Duration = Duration::from_secs(5);

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
    /// Whatever may have the same name later.
    topic_id: Arc<str>,
    options: ConsumerOptions,
    /// Whether partitions that are added to the topic are read, too.
    follows_topic: bool,
    partitions: BTreeMap<u32, Progress>,
    links: Links,
    /// Received and not taken yet.
    ready: VecDeque<Chunk>,
    backoff: Backoff,
    /// When the stream was opened that was open last.
    opened_at: Option<Instant>,
    failing_since: Option<Instant>,
    /// Wait for this before the next attempt.
    retry_at: Option<Instant>,
    /// When to look for shorter ways.
    look_at: Instant,
    /// When to look for new partitions.
    look_for_new_at: Instant,
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
        let follows_topic = assignment.is_all() && !options.until_end;
        let view = self.refresh_topic(topic).await?;
        let partitions = assignment.resolve(self, (topic, &view), options.until_end).await?;
        Ok(Consumer {
            client: self.clone(),
            topic: topic.into(),
            topic_id: Arc::clone(&view.id),
            options,
            follows_topic,
            partitions,
            links: Links::default(),
            ready: VecDeque::new(),
            backoff: self.retry_backoff(),
            opened_at: None,
            failing_since: None,
            retry_at: None,
            look_at: Instant::now() + DETOUR_PATIENCE,
            look_for_new_at: Instant::now() + NEW_PARTITIONS_INTERVAL,
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
                self.links = Links::default();
                return Ok(None);
            }
            self.add_new_partitions();
            self.open_links();
            self.leave_detours();
            let (link, event) = self.next_event().await;
            if let Err(error) = event.and_then(|event| self.handle(link, event)) {
                self.failed(link, error).await?;
            }
        }
    }

    /// UUID of the topic that is read, for `topic_id` of commits: so that none is made in a topic that was created again
    /// under the same name. Reading ends with [`Error::TopicRecreated`] then.
    #[must_use]
    pub fn topic_id(&self) -> &str {
        &self.topic_id
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

    /// What the topic was given since is read from its beginning.
    fn add_new_partitions(&mut self) {
        let now = Instant::now();
        if !self.follows_topic || now < self.look_for_new_at {
            return;
        }
        self.look_for_new_at = now + NEW_PARTITIONS_INTERVAL;
        let known = self.client.known_topic(&self.topic, &self.topic_id);
        for partition in 0..known.map_or(0, |topic| topic.partition_count) {
            self.partitions.entry(partition).or_insert_with(Progress::from_the_beginning);
        }
        // For the next look.
        self.client.refresh_topic_if_old(&self.topic);
    }

    /// Opens streams for the partitions that none reads, unless they wait for their next attempt.
    fn open_links(&mut self) {
        if self.retry_at.is_some_and(|at| Instant::now() < at) {
            return;
        }
        self.retry_at = None;
        let unread = self.partitions.iter().filter(|(partition, progress)| !progress.is_done() && !self.links.reads(**partition));
        let mut by_leader: BTreeMap<Option<Arc<str>>, Vec<v1::PartitionPosition>> = BTreeMap::new();
        for (&partition, progress) in unread {
            let leader = self.client.known_leader(&self.topic, partition);
            by_leader.entry(leader).or_default().push(progress.to_wire(partition));
        }
        // What may be sent ahead is shared out.
        let streams = (self.links.count() + by_leader.len()).max(1) as u64;
        let prefetch = v1::Credit {
            records: (self.options.prefetch_records / streams).max(1),
            bytes: (self.options.prefetch_bytes / streams).max(1),
        };
        for (leader, positions) in by_leader {
            let partitions = positions.iter().map(|position| position.partition).collect();
            let topic = (&*self.topic, &*self.topic_id);
            let opening = ConsumeStream::open(self.client.clone(), topic, leader.clone(), positions, prefetch);
            self.links.add(leader, partitions, opening.boxed());
        }
    }

    /// What happens next on any stream, and on which one.
    async fn next_event(&mut self) -> (LinkId, Result<Event, Error>) {
        let wake_at = self.retry_at.map_or(self.look_at, |at| at.min(self.look_at));
        tokio::select! {
            event = self.links.next() => event,
            () = tokio::time::sleep_until(wake_at.into()) => (NO_LINK, Ok(Event::Nothing)),
        }
    }

    fn handle(&mut self, link: LinkId, event: Event) -> Result<(), Error> {
        match event {
            Event::Nothing => return Ok(()),
            Event::Opened => {
                self.opened_at = Some(Instant::now());
                self.client.outages().over();
                return Ok(());
            }
            Event::Push(Response::Records(records)) => self.received(link, records)?,
            Event::Push(Response::PartitionEnd(end)) => {
                if let Some(progress) = self.partitions.get_mut(&end.partition) {
                    progress.ended(end.next_offset);
                }
            }
            Event::Push(Response::Opened(_)) => {}
            Event::Push(Response::Drain(_)) => {
                return Err(Error::ConnectionLost { reason: "the node is leaving".to_owned() });
            }
            Event::Ended => {
                let read = self.links.close(link);
                let done = |partition: &u32| self.partitions.get(partition).is_none_or(Progress::is_done);
                let lost = Error::ConnectionLost { reason: "the server ended the stream".to_owned() };
                return if read.iter().all(done) { Ok(()) } else { Err(lost) };
            }
        }
        self.failing_since = None;
        self.backoff.reset();
        self.client.outages().over();
        Ok(())
    }

    /// Streams that go through another node than the leader work, but there is a shorter way once it is known.
    fn leave_detours(&mut self) {
        let now = Instant::now();
        if now < self.look_at {
            return;
        }
        self.look_at = now + DETOUR_PATIENCE;
        for (id, partitions, address) in self.links.open() {
            let leaders = partitions.iter().map(|partition| self.client.known_leader(&self.topic, *partition));
            let shorter: Vec<_> = leaders.filter(|leader| leader.as_deref() != Some(address.as_str())).collect();
            if shorter.is_empty() {
                continue;
            }
            self.client.refresh_topic_if_old(&self.topic);
            if shorter.into_iter().flatten().any(|leader| self.client.is_connected_or_soon(&leader)) {
                self.links.close(id);
            }
        }
    }

    fn received(&mut self, link: LinkId, records: v1::ConsumedRecords) -> Result<(), Error> {
        let Some(progress) = self.partitions.get_mut(&records.partition) else {
            return Err(Error::Protocol(format!("records of partition {}, which was not asked for", records.partition)));
        };
        let decompressed_max = usize::try_from(self.client.limits().decompressed_bytes_max).unwrap_or(usize::MAX);
        self.links.used(link, &records, progress.position)?;
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
    async fn failed(&mut self, link: LinkId, error: Error) -> Result<(), Error> {
        let partitions = self.links.close(link);
        self.client.forget_leaders(&self.topic, partitions, &error);
        if error.reason() == reason::OFFSET_OUT_OF_RANGE {
            match self.move_to_log_start().await {
                Ok(true) => return Ok(()),
                Ok(false) => return Err(error),
                Err(unreachable) if unreachable.is_retriable() => return self.retry(&unreachable),
                Err(other) => return Err(other),
            }
        }
        if error.is_retriable() { self.retry(&error) } else { Err(error) }
    }

    fn retry(&mut self, error: &Error) -> Result<(), Error> {
        let now = Instant::now();
        // A stream that nothing came over for long was no failure; one that breaks as soon as it is open is.
        if self.opened_at.take().is_some_and(|at| now.saturating_duration_since(at) >= STEADY) {
            self.failing_since = None;
            self.backoff.reset();
        }
        let since = *self.failing_since.get_or_insert(now);
        if now.saturating_duration_since(since) >= self.options.retry_timeout {
            self.failing_since = None;
            return Err(error.clone());
        }
        tracing::debug!(topic = %self.topic, %error, "consume stream broke; opening it again");
        self.client.outages().failed(error);
        self.client.refresh_topic_soon(&self.topic);
        if self.retry_at.is_none() {
            self.retry_at = Some(now + self.backoff.next());
        }
        Ok(())
    }

    /// A partition read from the earliest record goes on at the log start if retention overtook it. Whether any did.
    async fn move_to_log_start(&mut self) -> Result<bool, Error> {
        let request = v1::ListOffsetsRequest {
            topic: self.topic.to_string(),
            topic_id: Some(self.topic_id.to_string()),
            partitions: self.partitions.keys().copied().collect(),
            position: Some(Position::Earliest.to_wire()),
        };
        let mut moved = false;
        for listed in self.client.list_offsets(request).await?.offsets {
            if let Some(progress) = self.partitions.get_mut(&listed.partition)
                && progress.from_earliest
                && progress.position < listed.log_start_offset
            {
                // One that has read nothing yet begins where the log does.
                if progress.position > 0 {
                    tracing::warn!(topic = %self.topic, partition = listed.partition, from = progress.position,
                        to = listed.log_start_offset, "records were deleted before they were read");
                }
                progress.position = listed.log_start_offset;
                moved = true;
            }
        }
        Ok(moved)
    }
}
