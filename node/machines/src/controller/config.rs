//! A topic's configuration: its values, defaults and limits.

use flotilla_proto::internal::v1;
use flotilla_records::TimestampType;

use super::limits::{
    BATCH_BYTES_MAX_DEFAULT, BATCH_BYTES_MAX_MAX, BATCH_BYTES_MAX_MIN, RETENTION_MS_DEFAULT, RETENTION_MS_MAX,
    TIMESTAMP_AHEAD_MS_DEFAULT, TIMESTAMP_AHEAD_MS_MAX,
};

/// Every value in force for a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicConfig {
    /// Records older than this many milliseconds may be deleted. 0 keeps them for ever.
    pub retention_ms: u64,
    /// A partition larger than this many bytes loses its oldest segments. 0 is no limit.
    pub retention_bytes: u64,
    /// Bytes of the largest record batch accepted, as sent.
    pub batch_bytes_max: u64,
    /// Whose time a record carries.
    pub timestamp_type: TimestampType,
    /// A record dated more than this many milliseconds after machine time counts as of its arrival.
    pub timestamp_ahead_max_ms: u64,
}

/// Why a value is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Longer than allowed.
    #[error(
        "retention of {retention_ms} ms is longer than {RETENTION_MS_MAX} ms (100 years): use less, or 0 to keep records for ever"
    )]
    Retention {
        /// The value, in milliseconds.
        retention_ms: u64,
    },
    /// Smaller or larger than allowed.
    #[error("batch_bytes_max {batch_bytes_max} is not in {BATCH_BYTES_MAX_MIN} to {BATCH_BYTES_MAX_MAX}: use a number between")]
    BatchBytesMax {
        /// The value, in bytes.
        batch_bytes_max: u64,
    },
    /// Neither create time nor log append time.
    #[error("timestamp type {code} is unknown: use create time (1) or log append time (2)")]
    TimestampType {
        /// The value.
        code: i32,
    },
    /// Farther ahead than allowed.
    #[error(
        "timestamp_ahead_max of {timestamp_ahead_max_ms} ms is longer than {TIMESTAMP_AHEAD_MS_MAX} ms (100 years): use less"
    )]
    TimestampAheadMax {
        /// The value, in milliseconds.
        timestamp_ahead_max_ms: u64,
    },
    /// No such field.
    #[error("there is no field {name:?}: use retention, retention_bytes, batch_bytes_max, timestamp_type or timestamp_ahead_max")]
    UnknownField {
        /// The name.
        name: String,
    },
}

impl Default for TopicConfig {
    fn default() -> Self {
        Self {
            retention_ms: RETENTION_MS_DEFAULT,
            retention_bytes: 0,
            batch_bytes_max: BATCH_BYTES_MAX_DEFAULT,
            timestamp_type: TimestampType::CreateTime,
            timestamp_ahead_max_ms: TIMESTAMP_AHEAD_MS_DEFAULT,
        }
    }
}

impl TopicConfig {
    /// This configuration with the values that `change` has.
    ///
    /// # Errors
    /// Which value is out of its range.
    pub fn with(self, change: &v1::TopicConfig) -> Result<Self, ConfigError> {
        let timestamp_type = match change.timestamp_type {
            Some(code) => parse_timestamp_type(code)?,
            None => self.timestamp_type,
        };
        let config = Self {
            retention_ms: change.retention_ms.unwrap_or(self.retention_ms),
            retention_bytes: change.retention_bytes.unwrap_or(self.retention_bytes),
            batch_bytes_max: change.batch_bytes_max.unwrap_or(self.batch_bytes_max),
            timestamp_type,
            timestamp_ahead_max_ms: change.timestamp_ahead_max_ms.unwrap_or(self.timestamp_ahead_max_ms),
        };
        config.check()?;
        Ok(config)
    }

    /// Sets the field called `name` in `change` to the value that it has here.
    ///
    /// # Errors
    /// If there is no such field.
    pub fn put_field(self, name: &str, change: &mut v1::TopicConfig) -> Result<(), ConfigError> {
        let all = v1::TopicConfig::from(self);
        match name {
            "retention" => change.retention_ms = all.retention_ms,
            "retention_bytes" => change.retention_bytes = all.retention_bytes,
            "batch_bytes_max" => change.batch_bytes_max = all.batch_bytes_max,
            "timestamp_type" => change.timestamp_type = all.timestamp_type,
            "timestamp_ahead_max" => change.timestamp_ahead_max_ms = all.timestamp_ahead_max_ms,
            _ => {
                return Err(ConfigError::UnknownField { name: name.to_owned() });
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.retention_ms > RETENTION_MS_MAX {
            return Err(ConfigError::Retention { retention_ms: self.retention_ms });
        }
        if !(BATCH_BYTES_MAX_MIN..=BATCH_BYTES_MAX_MAX).contains(&self.batch_bytes_max) {
            return Err(ConfigError::BatchBytesMax { batch_bytes_max: self.batch_bytes_max });
        }
        if self.timestamp_ahead_max_ms > TIMESTAMP_AHEAD_MS_MAX {
            return Err(ConfigError::TimestampAheadMax { timestamp_ahead_max_ms: self.timestamp_ahead_max_ms });
        }
        Ok(())
    }
}

fn parse_timestamp_type(code: i32) -> Result<TimestampType, ConfigError> {
    match v1::TimestampType::try_from(code) {
        Ok(v1::TimestampType::CreateTime) => Ok(TimestampType::CreateTime),
        Ok(v1::TimestampType::LogAppendTime) => Ok(TimestampType::LogAppendTime),
        Ok(v1::TimestampType::Unspecified) | Err(_) => Err(ConfigError::TimestampType { code }),
    }
}

impl From<TopicConfig> for v1::TopicConfig {
    fn from(config: TopicConfig) -> Self {
        let timestamp_type = match config.timestamp_type {
            TimestampType::CreateTime => v1::TimestampType::CreateTime,
            TimestampType::LogAppendTime => v1::TimestampType::LogAppendTime,
        };
        Self {
            retention_ms: Some(config.retention_ms),
            retention_bytes: Some(config.retention_bytes),
            batch_bytes_max: Some(config.batch_bytes_max),
            timestamp_type: Some(timestamp_type.into()),
            timestamp_ahead_max_ms: Some(config.timestamp_ahead_max_ms),
        }
    }
}
