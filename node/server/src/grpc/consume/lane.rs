//! One partition of a consume stream: where it stands, and where its records come from.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use flotilla_broker::{Ends, FetchError, Fetched, FetchedBatch, PartitionReader};
use flotilla_proto::v1;
use flotilla_records::BatchHeader;

use super::super::load::Lot;
use super::super::problem::{Problem, Reason};
use super::feed::FeedId;

/// See the module.
pub struct Lane {
    /// Its number.
    pub partition: u32,
    /// Its group.
    pub group_id: u64,
    /// The next offset to push.
    pub next: u64,
    /// The offset before which it stops.
    pub stop: Option<u64>,
    /// Where its records come from.
    pub source: Source,
    /// What the next push may take, however little is asked for: as much as the one before, or a batch.
    pub expected_bytes: usize,
    high_watermark: u64,
}

/// Where the records of a lane come from.
pub enum Source {
    /// This node's replica.
    Here(Box<PartitionReader>),
    /// Another node's.
    Fed(Fed),
    /// Nowhere yet: no replica is at hand.
    Nowhere {
        /// Since when.
        since: Instant,
        /// When to look for one again.
        look_at: Instant,
        /// Why the last one is no more.
        cause: Option<Problem>,
    },
}

/// What a feed has pushed of a lane.
pub struct Fed {
    /// Which feed.
    pub feed: FeedId,
    /// Read ahead, with the size of each push; the last push of it gives the bytes back.
    pushes: VecDeque<(Fetched, Lot)>,
    /// Where the next push goes on.
    received: u64,
}

impl Lane {
    /// A lane that waits for a source.
    pub fn new((partition, group_id): (u32, u64), next: u64, stop: Option<u64>, high_watermark: u64) -> Self {
        let now = Instant::now();
        let source = Source::Nowhere { since: now, look_at: now, cause: None };
        Self { partition, group_id, next, stop, source, expected_bytes: 0, high_watermark }
    }

    /// A lane that reads here.
    pub fn here(reader: PartitionReader, group_id: u64) -> Self {
        let (partition, next, stop) = (reader.partition(), reader.position(), reader.stop());
        let source = Source::Here(Box::new(reader));
        Self { partition, group_id, next, stop, source, expected_bytes: 0, high_watermark: 0 }
    }

    /// Whether its stop position is reached.
    pub fn at_stop(&self) -> bool {
        self.stop.is_some_and(|stop| self.next >= stop)
    }

    /// One behind the partition's last record, as far as is known.
    pub fn high_watermark(&self) -> u64 {
        match &self.source {
            Source::Here(reader) => reader.ends().high_watermark,
            Source::Fed(_) | Source::Nowhere { .. } => self.high_watermark,
        }
    }

    /// Whether there is something to push.
    pub fn has_records(&self) -> bool {
        match &self.source {
            Source::Here(reader) => self.next < reader.ends().high_watermark,
            Source::Fed(fed) => !fed.pushes.is_empty(),
            Source::Nowhere { .. } => false,
        }
    }

    /// The next stored batches.
    ///
    /// # Errors
    /// See [`PartitionReader::read`].
    pub async fn read(&mut self, bytes_max: usize) -> Result<Option<Fetched>, FetchError> {
        match &mut self.source {
            Source::Here(reader) => {
                reader.seek(self.next);
                reader.read(bytes_max).await.map(Some)
            }
            Source::Fed(fed) => Ok(fed.pushes.front().map(|(fetched, _)| fetched.clone())),
            Source::Nowhere { .. } => Ok(None),
        }
    }

    /// What was read is pushed up to `next`. The feed, and bytes, that have become free.
    pub fn pushed(&mut self, next: u64) -> Option<(FeedId, u64)> {
        self.next = next;
        let Source::Fed(fed) = &mut self.source else { return None };
        let (front, lot) = fed.pushes.front_mut()?;
        if front.next_offset <= next {
            let freed = (fed.feed, lot.bytes());
            fed.pushes.pop_front();
            return Some(freed);
        }
        front.from = next;
        front.batches.retain(|batch| batch.end_offset() > next);
        None
    }

    /// Comes from a feed from now on.
    pub fn feed_from(&mut self, feed: FeedId) {
        self.source = Source::Fed(Fed { feed, pushes: VecDeque::new(), received: self.next });
    }

    /// Comes from nowhere for the moment.
    pub fn lose_source(&mut self, pause: Duration, cause: Option<Problem>) {
        self.high_watermark = self.high_watermark();
        let now = Instant::now();
        let since = match &self.source {
            Source::Nowhere { since, .. } => *since,
            Source::Here(_) | Source::Fed(_) => now,
        };
        self.source = Source::Nowhere { since, look_at: now + pause, cause };
    }

    /// Whether a feed is its source.
    pub fn is_fed_by(&self, feed: FeedId) -> bool {
        matches!(&self.source, Source::Fed(fed) if fed.feed == feed)
    }

    /// Takes what its feed pushed. `lot` has the size of the push.
    ///
    /// # Errors
    /// If it makes no sense.
    pub fn fed(&mut self, records: v1::ConsumedRecords, lot: Lot) -> Result<(), Problem> {
        let Source::Fed(fed) = &mut self.source else { return Ok(()) };
        let nonsense = |what: &str| {
            let message = format!("partition {} came from another node {what}: please report this", self.partition);
            Err(Problem::new(Reason::Internal, message))
        };
        if records.next_offset < fed.received {
            return nonsense("in the wrong order");
        }
        let Ok(batches) = records.batches.into_iter().map(stored).collect::<Result<Vec<_>, _>>() else {
            return nonsense("in batches that do not decode");
        };
        let ends = Ends { log_start_offset: records.log_start_offset, high_watermark: records.high_watermark };
        let fetched = Fetched { batches, from: fed.received, next_offset: records.next_offset, ends };
        fed.received = records.next_offset;
        fed.pushes.push_back((fetched, lot));
        self.high_watermark = records.high_watermark;
        Ok(())
    }

    /// From where and how far a feed is to push.
    pub fn to_wire(&self) -> v1::PartitionPosition {
        let position = v1::Position { at: Some(v1::position::At::Offset(self.next)) };
        v1::PartitionPosition { partition: self.partition, position: Some(position), stop_offset: self.stop }
    }
}

fn stored(payload: bytes::Bytes) -> Result<FetchedBatch, flotilla_records::BatchError> {
    let header = BatchHeader::parse(&payload)?;
    let (base_offset, record_count) = (header.base_offset, header.offset_count());
    Ok(FetchedBatch { base_offset, record_count, leader_epoch: header.leader_epoch, payload })
}
