//! A topic's configuration as arguments, and topics as they are shown.

use std::time::Duration;

use flotilla_client::api;
use serde::Serialize;

use crate::units::{format_duration, format_size, parse_duration, parse_size};

/// Configuration that `create` and `alter` set.
#[derive(Debug, clap::Args)]
pub struct ConfigArgs {
    /// How long records are kept, such as 7d or 1h30m; 0 keeps them for ever
    #[arg(long, value_parser = parse_duration, value_name = "DURATION", allow_hyphen_values = true)]
    retention: Option<Duration>,
    /// How large a partition may grow before its oldest records go, such as 1GiB; 0 is no limit
    #[arg(long, value_parser = parse_size, value_name = "SIZE", allow_hyphen_values = true)]
    retention_bytes: Option<u64>,
    /// Largest record batch accepted, such as 1MiB
    #[arg(long, value_parser = parse_size, value_name = "SIZE")]
    batch_bytes_max: Option<u64>,
    /// Whose time a record carries
    #[arg(long, value_enum, value_name = "TYPE")]
    timestamp_type: Option<TimestampType>,
    /// How far ahead of the server's time a record may be dated, such as 1h; beyond, it counts as of its arrival
    #[arg(long, value_parser = parse_duration, value_name = "DURATION", allow_hyphen_values = true)]
    timestamp_ahead_max: Option<Duration>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum TimestampType {
    /// The producer's
    CreateTime,
    /// The time at which the leader accepted the batch
    LogAppendTime,
}

impl ConfigArgs {
    pub fn is_empty(&self) -> bool {
        self.names().is_empty()
    }

    /// The settings that are given, as the API calls them.
    pub fn names(&self) -> Vec<&'static str> {
        let given = [
            ("retention", self.retention.is_some()),
            ("retention_bytes", self.retention_bytes.is_some()),
            ("batch_bytes_max", self.batch_bytes_max.is_some()),
            ("timestamp_type", self.timestamp_type.is_some()),
            ("timestamp_ahead_max", self.timestamp_ahead_max.is_some()),
        ];
        given.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect()
    }

    pub fn to_config(&self) -> api::TopicConfig {
        let timestamp_type = match self.timestamp_type {
            None => api::TimestampType::Unspecified,
            Some(TimestampType::CreateTime) => api::TimestampType::CreateTime,
            Some(TimestampType::LogAppendTime) => api::TimestampType::LogAppendTime,
        };
        api::TopicConfig {
            // More than i64::MAX seconds cannot be said, and are for ever in any case.
            retention: self.retention.map(|retention| retention.try_into().unwrap_or_default()),
            retention_bytes: self.retention_bytes,
            batch_bytes_max: self.batch_bytes_max,
            timestamp_type: timestamp_type.into(),
            timestamp_ahead_max: self.timestamp_ahead_max.map(|ahead| ahead.try_into().unwrap_or_default()),
        }
    }
}

/// A topic as it is shown.
#[derive(Debug, Serialize)]
pub struct TopicView {
    pub name: String,
    pub id: String,
    pub partition_count: u32,
    pub replication_factor: u32,
    /// 0: for ever.
    pub retention_ms: u64,
    /// 0: no limit.
    pub retention_bytes: u64,
    pub batch_bytes_max: u64,
    pub timestamp_type: &'static str,
    pub timestamp_ahead_max_ms: u64,
    pub created_at: Option<String>,
}

impl From<api::Topic> for TopicView {
    fn from(topic: api::Topic) -> Self {
        let config = topic.config.unwrap_or_default();
        let retention: Duration = config.retention.and_then(|retention| retention.try_into().ok()).unwrap_or_default();
        let ahead: Duration = config.timestamp_ahead_max.and_then(|ahead| ahead.try_into().ok()).unwrap_or_default();
        Self {
            name: topic.name,
            id: topic.id,
            partition_count: topic.partition_count,
            replication_factor: topic.replication_factor,
            retention_ms: u64::try_from(retention.as_millis()).unwrap_or(u64::MAX),
            retention_bytes: config.retention_bytes.unwrap_or_default(),
            batch_bytes_max: config.batch_bytes_max.unwrap_or_default(),
            timestamp_type: match config.timestamp_type() {
                api::TimestampType::LogAppendTime => "log-append-time",
                api::TimestampType::CreateTime | api::TimestampType::Unspecified => "create-time",
            },
            timestamp_ahead_max_ms: u64::try_from(ahead.as_millis()).unwrap_or(u64::MAX),
            created_at: topic.created_at.map(|created_at| created_at.to_string()),
        }
    }
}

impl TopicView {
    /// Columns of [`TopicView::row`]; the last three only where it may be wide.
    pub const HEAD: [&str; 8] = ["NAME", "PARTITIONS", "REPLICAS", "RETENTION", "SIZE LIMIT", "LARGEST BATCH", "CREATED", "ID"];
    pub const NARROW_COLUMNS: usize = 5;

    pub fn row(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.partition_count.to_string(),
            self.replication_factor.to_string(),
            self.retention_text(),
            self.retention_bytes_text(),
            format_size(self.batch_bytes_max),
            self.created_at.clone().unwrap_or_default(),
            self.id.clone(),
        ]
    }

    pub fn retention_text(&self) -> String {
        if self.retention_ms == 0 { "for ever".to_owned() } else { format_duration(Duration::from_millis(self.retention_ms)) }
    }

    pub fn retention_bytes_text(&self) -> String {
        if self.retention_bytes == 0 { "none".to_owned() } else { format_size(self.retention_bytes) }
    }
}
