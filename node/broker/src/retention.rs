//! Retention: gives up old records by moving the log start offset (a replicated command), then removes the segments
//! that lie below it. What is old is decided by proven time (see `clock/`), as the partition's machine would be stamped with it.

use std::sync::Arc;
use std::time::Duration;

use flotilla_machines::controller::TopicConfig;
use flotilla_machines::time::MachineTime;
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
            let time = self.inner.clock.stamp(partition.machine.time());
            if let Err(reason) = apply(partition, &topic.config, time).await {
                tracing::warn!(partition = %partition.describe(), reason, "retention failed; it is tried again");
            }
        }
    }
}

async fn apply(partition: &Arc<Partition>, config: &TopicConfig, time: MachineTime) -> Result<(), String> {
    if config.retention_ms > 0 {
        let rolled = partition.group.roll_if_older(oldest_ms(config, time.now_ms)).await;
        rolled.map_err(|error| error.to_string())?;
    }
    let ends = partition.ends();
    let expired = expired_below(&partition.group.segments(), config, time).min(ends.high_watermark);
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
fn expired_below(segments: &[SegmentInfo], config: &TopicConfig, time: MachineTime) -> u64 {
    let mut bytes: u64 = segments.iter().map(|segment| segment.bytes).sum();
    let oldest_ms = oldest_ms(config, time.now_ms);
    let mut below = 0;
    for (number, segment) in segments.iter().enumerate().filter(|(_, segment)| segment.closed) {
        let behind = segments.get(number..).unwrap_or_default();
        let too_old = config.retention_ms > 0 && newest_ms(behind, config, time).is_none_or(|newest| newest < oldest_ms);
        let too_much = config.retention_bytes > 0 && bytes > config.retention_bytes;
        if !too_old && !too_much {
            break;
        }
        bytes = bytes.saturating_sub(segment.bytes);
        below = segment.next_offset;
    }
    below
}

/// As of when the first of these segments is kept; `None` if there is nothing in it. Times that cannot be come from clients of
/// earlier versions, or from a leader whose clock was wrong; then it is as old as what came behind it, or new.
fn newest_ms(segments: &[SegmentInfo], config: &TopicConfig, time: MachineTime) -> Option<i64> {
    let latest_ms = time.dated_ms.saturating_add_unsigned(config.timestamp_ahead_max_ms);
    let mut times = segments.iter().filter_map(|segment| segment.max_timestamp_ms);
    segments.first()?.max_timestamp_ms?;
    Some(times.find(|newest| (0..=latest_ms).contains(newest)).unwrap_or(latest_ms))
}

#[cfg(test)]
#[path = "retention_tests.rs"]
mod tests;
