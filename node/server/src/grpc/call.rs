//! What every unary call goes through: its deadline, and the count of how it ended.

use std::future::Future;
use std::time::{Duration, Instant};

use tonic::metadata::MetadataMap;
use tonic::{Code, Response, Status};

use super::problem::{Problem, Reason};
use crate::telemetry::metrics::Metrics;

/// How long a request without a deadline waits for a leader.
const PATIENCE: Duration = Duration::from_secs(5);

const STREAM_PATIENCE: Duration = Duration::from_secs(2);

/// What a request's metadata says about how it is to be served.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// It is meant for this node: it must not be passed on.
    pub direct: bool,
    /// When the client gives up, if it says so.
    pub deadline: Option<Instant>,
    /// Until when a leader is waited for: a little before the deadline, so that the client is told what is missing.
    pub patient_until: Instant,
}

impl Call {
    /// Of a request that has just arrived.
    pub fn of(metadata: &MetadataMap) -> Self {
        let now = Instant::now();
        let left = deadline(metadata);
        let patience = left.map_or(PATIENCE, |left| left - (left / 10).min(MARGIN_MAX));
        Self {
            direct: metadata.contains_key(flotilla_proto::DIRECT),
            deadline: left.map(|left| now + left),
            patient_until: now + patience,
        }
    }

    /// The same with patience from now on, as much as the client has: for one of many requests of a stream. It is less than
    /// for a single request, as a stream's client sends again what passing trouble refused, and is to know why it waits.
    pub fn renewed(self, patience: Option<Duration>) -> Self {
        Self { patient_until: Instant::now() + patience.unwrap_or(STREAM_PATIENCE).min(STREAM_PATIENCE), ..self }
    }
}

/// Runs `work` within the deadline that the client gave, and counts it.
pub async fn unary<T>(
    metrics: &Metrics,
    method: &'static str,
    metadata: &MetadataMap,
    work: impl Future<Output = Result<T, Problem>>,
) -> Result<Response<T>, Status> {
    let (started, _in_flight) = (Instant::now(), metrics.call_began());
    let result = match deadline(metadata) {
        None => work.await,
        Some(deadline) => tokio::time::timeout(deadline, work).await.unwrap_or_else(|_| Err(late(deadline))),
    };
    let result = result.map(Response::new).map_err(Status::from);
    metrics.called(method, result.as_ref().err().map_or(Code::Ok, Status::code), started.elapsed());
    result
}

/// Of a deadline: a busy machine takes its time to send an answer.
const MARGIN_MAX: Duration = Duration::from_millis(250);

/// A little less than the client's deadline, so that our answer, which explains itself, comes before the transport's.
fn deadline(metadata: &MetadataMap) -> Option<Duration> {
    let timeout = parse_timeout(metadata.get("grpc-timeout")?.to_str().ok()?)?;
    Some(timeout - MARGIN_MAX.min(timeout / 10))
}

/// Reads `grpc-timeout`: up to 8 digits and a unit, as in "Requests" of the specification "gRPC over HTTP2".
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

fn late(deadline: Duration) -> Problem {
    let message = format!("not finished within the {deadline:?} that the client allowed; a write may still take effect");
    Problem::new(Reason::DeadlineExceeded, message)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use tonic_types::StatusExt;

    use super::*;

    #[test]
    fn timeouts_are_read_as_the_specification_says() {
        assert_eq!(parse_timeout("1S"), Some(Duration::from_secs(1)));
        assert_eq!(parse_timeout("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!(parse_timeout("250m"), Some(Duration::from_millis(250)));
        for bad in ["", "S", "1", "-1S", "123456789S", "1s", "+1S", "1µ"] {
            assert_eq!(parse_timeout(bad), None, "{bad}");
        }
    }

    #[tokio::test]
    async fn what_takes_too_long_fails_in_time_and_says_so() {
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-timeout", "1m".parse().unwrap());
        let metrics = Metrics::new();
        let never = std::future::pending::<Result<(), Problem>>();
        let status = unary(&metrics, "Never", &metadata, never).await.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert_eq!(status.get_error_details().error_info().unwrap().reason, "DEADLINE_EXCEEDED");
        assert!(metrics.encode().unwrap().contains("method=\"Never\",code=\"DEADLINE_EXCEEDED\"} 1"));
    }
}
