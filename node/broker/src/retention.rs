//! Retention: gives up old records by moving the log start offset (a replicated command), then removes the segments
//! that lie below it.

use std::sync::Arc;
use std::time::Duration;

use flotilla_machines::controller::TopicConfig;
use flotilla_proto::internal::v1::DeleteRecords;
use flotilla_proto::internal::v1::partition_command::Command;
use flotilla_raft::segments::SegmentInfo;

use crate::broker::{Broker, Hosted};
use crate::partition::Partition;

impl Broker {
    /// Applies retention to all partitions every `retention_interval` until the broker stops.
    pub(crate) async fn keep_retention(self) {
        // An interval of zero would panic.
        let mut ticks = tokio::time::interval(self.inner.options.retention_interval.max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.inner.stop.cancelled() => return,
                _ = ticks.tick() => self.apply_retention().await,
            }
        }
    }

    /// One pass over all partitions of this node.
    pub(crate) async fn apply_retention(&self) {
        // No item of the controller stays readable: its whole closed segments go.
        if let Err(error) = self.controller().release_below(u64::MAX).await {
            tracing::warn!(%error, "removing the controller's old segments failed; it is tried again");
        }
        let image = self.image();
        let hosted = self.inner.hosted.load_full();
        for partition in hosted.values() {
            let Hosted::Running(partition) = partition else { continue };
            let Some(topic) = image.topic(&partition.topic) else { continue };
            if let Err(reason) = apply(partition, &topic.config, self.inner.surroundings.clock.now_ms()).await {
                tracing::warn!(partition = %partition.describe(), reason, "retention failed; it is tried again");
            }
        }
    }
}

async fn apply(partition: &Arc<Partition>, config: &TopicConfig, now_ms: i64) -> Result<(), String> {
    if config.retention_ms > 0 {
        let rolled = partition.group.roll_if_older(oldest_ms(config, now_ms)).await;
        rolled.map_err(|error| error.to_string())?;
    }
    let ends = partition.ends();
    let expired = expired_below(&partition.group.segments(), config, now_ms).min(ends.high_watermark);
    if expired > ends.log_start_offset {
        let command = Command::DeleteRecords(DeleteRecords { before_offset: expired });
        match partition.command(command).await {
            Ok(Ok(_)) => {}
            Ok(Err(refused)) => return Err(refused.to_string()),
            // Another node leads, or the node is closing: whoever leads next does it.
            Err(_) => return Ok(()),
        }
    }
    let live_from = partition.ends().log_start_offset;
    let freed = partition.group.release_below(live_from).await.map_err(|error| error.to_string())?;
    if freed > 0 {
        tracing::info!(partition = %partition.describe(), live_from, freed, "removed segments");
    }
    Ok(())
}

/// Records from before this time need not be kept, if there is a retention by time at all.
fn oldest_ms(config: &TopicConfig, now_ms: i64) -> i64 {
    now_ms.saturating_sub(i64::try_from(config.retention_ms).unwrap_or(i64::MAX))
}

/// The offset below which nothing has to be kept: whole closed segments, from the oldest on, that are too old or
/// more than the size allows.
fn expired_below(segments: &[SegmentInfo], config: &TopicConfig, now_ms: i64) -> u64 {
    let mut bytes: u64 = segments.iter().map(|segment| segment.bytes).sum();
    let oldest_ms = oldest_ms(config, now_ms);
    let mut below = 0;
    for segment in segments.iter().filter(|segment| segment.closed) {
        let too_old = config.retention_ms > 0 && segment.max_timestamp_ms.is_none_or(|newest| newest < oldest_ms);
        let too_much = config.retention_bytes > 0 && bytes > config.retention_bytes;
        if !too_old && !too_much {
            break;
        }
        bytes = bytes.saturating_sub(segment.bytes);
        below = segment.next_offset;
    }
    below
}

#[cfg(test)]
mod tests {
    use super::*;
    use flotilla_raft::types::LogId;

    fn segment(first_index: u64, next_offset: u64, newest_ms: i64, closed: bool) -> SegmentInfo {
        SegmentInfo {
            first_index,
            last: Some(LogId { term: 1, index: first_index + 9 }),
            first_offset: Some(next_offset - 10),
            next_offset,
            max_timestamp_ms: Some(newest_ms),
            bytes: 100,
            closed,
        }
    }

    fn three() -> Vec<SegmentInfo> {
        vec![segment(0, 10, 1_000, true), segment(10, 20, 2_000, true), segment(20, 30, 3_000, false)]
    }

    #[test]
    fn old_segments_expire_from_the_front_but_never_the_open_one() {
        let config = TopicConfig { retention_ms: 500, retention_bytes: 0, ..TopicConfig::default() };
        assert_eq!(expired_below(&three(), &config, 1_500), 0);
        assert_eq!(expired_below(&three(), &config, 1_501), 10);
        assert_eq!(expired_below(&three(), &config, 99_999), 20);
    }

    #[test]
    fn segments_above_the_size_go_oldest_first() {
        let config = TopicConfig { retention_ms: 0, retention_bytes: 200, ..TopicConfig::default() };
        assert_eq!(expired_below(&three(), &config, 0), 10);
        let config = TopicConfig { retention_bytes: 300, ..config };
        assert_eq!(expired_below(&three(), &config, 0), 0);
    }

    #[test]
    fn without_limits_nothing_expires() {
        let config = TopicConfig { retention_ms: 0, retention_bytes: 0, ..TopicConfig::default() };
        assert_eq!(expired_below(&three(), &config, i64::MAX), 0);
    }
}
