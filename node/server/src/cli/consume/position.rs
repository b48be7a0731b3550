//! Positions as people write them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flotilla_client::Position;
use prost_types::Timestamp;

use crate::units::parse_duration;

/// Reads `earliest`, `latest`, `N`, `offset:N`, `timestamp:RFC3339` or `-DURATION`.
///
/// # Errors
/// What is wrong with the text, and what would be right.
pub fn parse_position(text: &str) -> Result<Position, String> {
    let wrong = || {
        "not a position: write earliest, latest, an offset such as 42, timestamp:2026-11-21T08:00:00Z or a time ago such as -1h"
            .to_owned()
    };
    if let Some(ago) = text.strip_prefix('-') {
        let ago = parse_duration(ago).map_err(|_| wrong())?;
        return Ok(Position::Timestamp(SystemTime::now().checked_sub(ago).unwrap_or(UNIX_EPOCH)));
    }
    if let Some(time) = text.strip_prefix("timestamp:") {
        let time: Timestamp = time.parse().map_err(|_| wrong())?;
        let (seconds, nanos) = (u64::try_from(time.seconds), u32::try_from(time.nanos));
        let since = seconds.ok().zip(nanos.ok()).map(|(seconds, nanos)| Duration::new(seconds, nanos));
        return Ok(Position::Timestamp(UNIX_EPOCH + since.unwrap_or_default()));
    }
    match text {
        "earliest" => Ok(Position::Earliest),
        "latest" => Ok(Position::Latest),
        _ => text.strip_prefix("offset:").unwrap_or(text).parse().map(Position::Offset).map_err(|_| wrong()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn reads_what_people_write() {
        assert_eq!(parse_position("earliest").unwrap(), Position::Earliest);
        assert_eq!(parse_position("latest").unwrap(), Position::Latest);
        assert_eq!(parse_position("42").unwrap(), Position::Offset(42));
        assert_eq!(parse_position("offset:42").unwrap(), Position::Offset(42));
        let time = UNIX_EPOCH + Duration::from_millis(1_500);
        assert_eq!(parse_position("timestamp:1970-01-01T00:00:01.5Z").unwrap(), Position::Timestamp(time));
        assert!(matches!(parse_position("-1h").unwrap(), Position::Timestamp(then) if then < SystemTime::now()));
    }

    #[test]
    fn says_what_would_be_right() {
        for text in ["", "begin", "-5", "offset:x", "timestamp:yesterday", "1.5"] {
            let error = parse_position(text).unwrap_err();
            assert!(error.contains("write"), "{error}");
        }
    }
}
