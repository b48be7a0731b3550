//! What to read: partitions and positions, and how far each has come.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flotilla_proto::v1;
use flotilla_proto::v1::position::At;

use crate::client::Client;
use crate::error::Error;
use crate::metadata::TopicView;

/// A place in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// The first record that is still there. If retention overtakes the reader, it goes on at the new first one.
    Earliest,
    /// Behind the last record: only what comes from now on.
    Latest,
    /// This offset. It is an error if it lies before the first or behind the last record.
    Offset(u64),
    /// The first record with this timestamp or a later one; the end if there is none.
    Timestamp(SystemTime),
}

impl Position {
    pub(crate) fn to_wire(self) -> v1::Position {
        let at = match self {
            Self::Earliest => At::Earliest(v1::Earliest {}),
            Self::Latest => At::Latest(v1::Latest {}),
            Self::Offset(offset) => At::Offset(offset),
            Self::Timestamp(time) => At::Timestamp(timestamp(time)),
        };
        v1::Position { at: Some(at) }
    }
}

/// Which partitions to read, and from where.
#[derive(Debug, Clone, Default)]
pub struct Assignment {
    all: Option<Position>,
    partitions: BTreeMap<u32, Position>,
}

impl Assignment {
    /// Every partition that the topic has now, from the same position; and those that it is given later, from their
    /// beginning, unless the consumer ends at the end.
    #[must_use]
    pub fn all(position: Position) -> Self {
        Self { all: Some(position), partitions: BTreeMap::new() }
    }

    pub(super) fn is_all(&self) -> bool {
        self.all.is_some()
    }

    /// Only these partitions, from the same position.
    #[must_use]
    pub fn partitions(partitions: impl IntoIterator<Item = u32>, position: Position) -> Self {
        Self { all: None, partitions: partitions.into_iter().map(|partition| (partition, position)).collect() }
    }

    /// The same, but `partition` from `position`.
    #[must_use]
    pub fn with(mut self, partition: u32, position: Position) -> Self {
        self.partitions.insert(partition, position);
        self
    }

    /// Turns every position into an offset.
    pub(super) async fn resolve(
        mut self,
        client: &Client,
        (topic, view): (&str, &TopicView),
        until_end: bool,
    ) -> Result<BTreeMap<u32, Progress>, Error> {
        let count = view.partition_count;
        if let Some(position) = self.all {
            for partition in 0..count {
                self.partitions.entry(partition).or_insert(position);
            }
        }
        if let Some(unknown) = self.partitions.keys().find(|partition| **partition >= count) {
            let (partition, last) = (*unknown, count.saturating_sub(1));
            return Err(Error::UnknownPartition { topic: topic.to_owned(), partition, last });
        }
        let mut resolved = BTreeMap::new();
        for (position, partitions) in by_position(&self.partitions) {
            // Nobody has to confirm where the log ends: what is committed can be read also while there is no majority.
            let known = match position {
                Position::Earliest => Some(Progress::from_the_beginning()),
                Position::Offset(offset) => Some(Progress { position: offset, taken: offset, ..Progress::default() }),
                _ => None,
            };
            if let Some(progress) = known.filter(|_| !until_end) {
                resolved.extend(partitions.into_iter().map(|partition| (partition, progress)));
                continue;
            }
            let asked = partitions.len();
            let request = v1::ListOffsetsRequest {
                topic: topic.to_owned(),
                topic_id: Some(view.id.to_string()),
                partitions,
                position: Some(position.to_wire()),
            };
            let offsets = client.list_offsets(request).await?.offsets;
            if offsets.len() != asked {
                return Err(Error::Protocol(format!("{} offsets came for {asked} partitions", offsets.len())));
            }
            for listed in offsets {
                resolved.insert(listed.partition, Progress::new(position, &listed, until_end)?);
            }
        }
        Ok(resolved)
    }
}

/// Partitions with the same position are asked for together.
fn by_position(partitions: &BTreeMap<u32, Position>) -> Vec<(Position, Vec<u32>)> {
    let mut grouped: Vec<(Position, Vec<u32>)> = Vec::new();
    for (&partition, &position) in partitions {
        // Offsets are the server's to check, one by one.
        match grouped.iter_mut().find(|(other, _)| *other == position) {
            Some((_, together)) => together.push(partition),
            None => grouped.push((position, vec![partition])),
        }
    }
    grouped
}

/// How far one partition has come.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Progress {
    /// The next offset to receive.
    pub position: u64,
    /// The next offset to hand out.
    pub taken: u64,
    /// Where reading ends.
    pub stop: Option<u64>,
    pub high_watermark: u64,
    /// Whether it may skip what retention deleted.
    pub from_earliest: bool,
}

impl Progress {
    fn new(position: Position, listed: &v1::PartitionOffset, until_end: bool) -> Result<Self, Error> {
        let offset = match position {
            Position::Offset(offset) => offset,
            _ => listed.offset,
        };
        let (partition, start, end) = (listed.partition, listed.log_start_offset, listed.high_watermark);
        if offset < start || offset > end {
            return Err(Error::InvalidArgument(format!(
                "offset {offset} of partition {partition} is out of range: it has {start} to {end}; start at earliest, latest or between"
            )));
        }
        Ok(Self {
            position: offset,
            taken: offset,
            stop: until_end.then_some(end),
            high_watermark: end,
            from_earliest: position == Position::Earliest,
        })
    }

    /// From the first record that there is.
    pub fn from_the_beginning() -> Self {
        Self { from_earliest: true, ..Self::default() }
    }

    pub fn is_done(&self) -> bool {
        self.stop.is_some_and(|stop| self.position >= stop)
    }

    /// The server says that the stop position is reached.
    pub fn ended(&mut self, next_offset: u64) {
        self.position = self.position.max(next_offset.min(self.stop.unwrap_or(u64::MAX)));
    }

    pub fn to_wire(self, partition: u32) -> v1::PartitionPosition {
        let position = Some(Position::Offset(self.position).to_wire());
        v1::PartitionPosition { partition, position, stop_offset: self.stop }
    }
}

fn timestamp(time: SystemTime) -> prost_types::Timestamp {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => since_epoch(since),
        // Nothing is older than the epoch.
        Err(_) => since_epoch(Duration::ZERO),
    }
}

fn since_epoch(since: Duration) -> prost_types::Timestamp {
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    prost_types::Timestamp { seconds, nanos: i32::try_from(since.subsec_nanos()).unwrap_or(0) }
}
