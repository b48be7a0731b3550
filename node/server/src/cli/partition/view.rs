//! Partitions as they are shown, here and by `flotilla topic describe`.

use flotilla_client::{Error, api};
use indicatif::BinaryBytes;
use serde::Serialize;

/// A partition as it is shown.
#[derive(Debug, Serialize)]
pub struct PartitionView {
    pub partition: u32,
    /// None: no leader at the moment.
    pub leader: Option<u64>,
    pub replicas: Vec<u64>,
    pub in_sync: Vec<u64>,
    /// None: nobody leads who could say.
    pub log_start_offset: Option<u64>,
    /// None: no majority confirmed where the partition ends.
    pub high_watermark: Option<u64>,
    /// On the leader, payload and framing. None: nobody leads who could say.
    pub size_bytes: Option<u64>,
    pub group_id: u64,
    /// By which its records and producers expire.
    pub time: Option<String>,
    /// How far that is ahead of the leader's own clock.
    pub time_ahead_ms: Option<i64>,
    /// Of `replicas`, in the same order.
    pub replica_ids: Vec<u64>,
}

impl From<api::Partition> for PartitionView {
    fn from(partition: api::Partition) -> Self {
        // A leader is in sync with itself.
        let told = !partition.in_sync.is_empty();
        let ms = |seconds: i64, nanos: i32| seconds.saturating_mul(1000).saturating_add(i64::from(nanos) / 1_000_000);
        let (time, clock) = (partition.time, partition.leader_clock);
        let times = time.map(|time| ms(time.seconds, time.nanos)).zip(clock.map(|clock| ms(clock.seconds, clock.nanos)));
        Self {
            time: time.map(|time| time.to_string()),
            time_ahead_ms: times.map(|(time, clock)| time.saturating_sub(clock)),
            partition: partition.partition,
            leader: partition.leader,
            replicas: partition.replicas,
            in_sync: partition.in_sync,
            log_start_offset: told.then_some(partition.log_start_offset),
            high_watermark: partition.end_confirmed.then_some(partition.high_watermark),
            size_bytes: told.then_some(partition.size_bytes),
            group_id: partition.group_id,
            replica_ids: partition.replica_ids,
        }
    }
}

/// Columns of [`PartitionView::row`].
pub const HEAD: [&str; 7] = ["PARTITION", "LEADER", "REPLICAS", "IN SYNC", "START", "END", "SIZE"];
/// Those that come behind it where it may be wide.
pub const WIDE_HEAD: [&str; 4] = ["BYTES", "GROUP", "TIME", "AHEAD"];

impl PartitionView {
    /// One line of a table.
    pub fn row(&self, wide: bool) -> Vec<String> {
        let mut row = vec![
            self.partition.to_string(),
            self.leader.map_or("none".to_owned(), |leader| leader.to_string()),
            node_list(&self.replicas),
            node_list(&self.in_sync),
            cell(self.log_start_offset),
            cell(self.high_watermark),
            cell(self.size_bytes.map(BinaryBytes)),
        ];
        if wide {
            row.extend([cell(self.size_bytes), self.group_id.to_string(), cell(self.time.as_ref()), cell(self.ahead_text())]);
        }
        row
    }

    /// How far its time is ahead of the leader's clock, in seconds: it says so only where they differ by more than usual.
    fn ahead_text(&self) -> Option<String> {
        let seconds = self.time_ahead_ms?.checked_div(1000)?;
        Some(if seconds == 0 { "0".to_owned() } else { format!("{seconds:+}s") })
    }
}

/// A partition with the name of its topic, and where it is going.
#[derive(Debug, Serialize)]
pub struct TopicPartitionView {
    pub topic: String,
    #[serde(flatten)]
    pub partition: PartitionView,
    /// Replicas after the move that is under way; empty: it does not move.
    pub target: Vec<u64>,
}

impl TryFrom<api::TopicPartition> for TopicPartitionView {
    type Error = Error;

    fn try_from(of: api::TopicPartition) -> Result<Self, Error> {
        let partition = of.partition.ok_or_else(|| Error::Protocol("a topic's partition without the partition".to_owned()))?;
        Ok(Self { topic: of.topic, partition: partition.into(), target: of.target })
    }
}

/// The partition that an answer must hold.
pub fn answered(of: Option<api::TopicPartition>) -> Result<TopicPartitionView, Error> {
    of.ok_or_else(|| Error::Protocol("no partition in the answer".to_owned()))?.try_into()
}

fn cell(known: Option<impl ToString>) -> String {
    known.map_or("-".to_owned(), |known| known.to_string())
}

/// Node ids in one cell.
pub fn node_list(nodes: &[u64]) -> String {
    if nodes.is_empty() {
        return "-".to_owned();
    }
    nodes.iter().map(u64::to_string).collect::<Vec<_>>().join(",")
}
