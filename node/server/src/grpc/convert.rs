//! Takes wire types apart and puts them together. Everything that a client may get wrong ends in a [`Problem`].

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flotilla_broker::{TopicId, TopicRef};
use flotilla_proto::v1;
use flotilla_records::{Codec, ProducerStamp};
use uuid::Uuid;

use super::problem::{Problem, Reason};

/// Milliseconds since the Unix epoch, from the wire's form of a time.
///
/// # Errors
/// If the system's clock cannot say it.
pub fn timestamp_ms<Wire>(field: &'static str, timestamp: Wire) -> Result<i64, Problem>
where
    SystemTime: TryFrom<Wire>,
{
    let time = SystemTime::try_from(timestamp).ok();
    let ms = time.and_then(|time| match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_millis()).ok(),
        // Rounded towards the past, as times after the epoch are.
        Err(before) => {
            let ms = before.duration().as_nanos().div_ceil(1_000_000);
            i128::try_from(ms).ok().and_then(|ms| i64::try_from(-ms).ok())
        }
    });
    ms.ok_or_else(|| Problem::field(field, "is not a time in the range that 64 bits of milliseconds can say"))
}

/// The wire's form of milliseconds since the Unix epoch.
pub fn timestamp<Wire: From<SystemTime>>(ms: i64) -> Wire {
    let distance = Duration::from_millis(ms.unsigned_abs());
    let time = if ms < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
    time.unwrap_or(UNIX_EPOCH).into()
}

/// A topic as a request names it.
///
/// # Errors
/// If its id is none.
pub fn topic_ref<'a>(name: &'a str, id: Option<&str>) -> Result<TopicRef<'a>, Problem> {
    let parsed = id.map(|id| Uuid::try_parse(id).map(|id| TopicId(id.into_bytes()))).transpose();
    let id = parsed.map_err(|_| Problem::field("topic_id", "is not a UUID: send the id that the topic was described with"))?;
    Ok(TopicRef { name, id })
}

/// A span of time, from the wire's form.
///
/// # Errors
/// If it is negative.
pub fn duration<Wire>(field: &'static str, duration: Wire) -> Result<Duration, Problem>
where
    Duration: TryFrom<Wire>,
{
    duration.try_into().map_err(|_| Problem::field(field, "is negative: use zero or more"))
}

/// The wire's form of a span of time.
pub fn wire_duration<Wire: TryFrom<Duration> + Default>(duration: Duration) -> Wire {
    duration.try_into().unwrap_or_default()
}

/// The codec for plain records; where a request is silent, none.
///
/// # Errors
/// If there is no such codec.
pub fn codec(code: i32) -> Result<Codec, Problem> {
    match v1::Codec::try_from(code) {
        Ok(v1::Codec::Unspecified | v1::Codec::None) => Ok(Codec::None),
        Ok(v1::Codec::Gzip) => Ok(Codec::Gzip),
        Ok(v1::Codec::Snappy) => Ok(Codec::Snappy),
        Ok(v1::Codec::Lz4) => Ok(Codec::Lz4),
        Ok(v1::Codec::Zstd) => Ok(Codec::Zstd),
        Err(_) => {
            let message = format!("codec {code} does not exist: use none, gzip, snappy, lz4 or zstd");
            Err(Problem::new(Reason::UnknownCodec, message).at("codec"))
        }
    }
}

/// Whether a read returns batches (or plain records).
///
/// # Errors
/// If there is no such encoding.
pub fn wants_batches(encoding: i32) -> Result<bool, Problem> {
    match v1::Encoding::try_from(encoding) {
        Ok(v1::Encoding::Unspecified | v1::Encoding::Records) => Ok(false),
        Ok(v1::Encoding::Batches) => Ok(true),
        Err(_) => Err(Problem::field("encoding", format!("{encoding} does not exist: use records or batches"))),
    }
}

/// An idempotent producer's stamp.
///
/// # Errors
/// If a number is larger than the record batch format can say.
pub fn stamp(stamp: &v1::ProducerStamp) -> Result<ProducerStamp, Problem> {
    let id = i64::try_from(stamp.producer_id).ok();
    let epoch = i16::try_from(stamp.epoch).ok();
    let base_sequence = i32::try_from(stamp.sequence).ok();
    match (id, epoch, base_sequence) {
        (Some(id), Some(epoch), Some(base_sequence)) => Ok(ProducerStamp { id, epoch, base_sequence }),
        _ => Err(Problem::field("producer", "is out of range: ids end at 2^63-1, epochs at 32767, sequences at 2^31-1")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use proptest::prelude::*;

    use super::*;

    fn record_at(ms: i64) -> v1::Record {
        v1::Record { timestamp: Some(timestamp(ms)), ..v1::Record::default() }
    }

    proptest! {
        #[test]
        fn times_survive_the_wire(ms: i64, seconds: i64, nanos: i32) {
            prop_assert_eq!(timestamp_ms("at", record_at(ms).timestamp.unwrap()), Ok(ms));
            let mut record = record_at(0);
            if let Some(timestamp) = &mut record.timestamp {
                (timestamp.seconds, timestamp.nanos) = (seconds, nanos);
            }
            let _ = timestamp_ms("at", record.timestamp.unwrap());
            let mut limits = v1::Limits { retry_backoff: Some(wire_duration(Duration::ZERO)), ..v1::Limits::default() };
            if let Some(backoff) = &mut limits.retry_backoff {
                (backoff.seconds, backoff.nanos) = (seconds, nanos);
            }
            let read = duration("span", limits.retry_backoff.unwrap());
            prop_assert!(seconds >= 0 || read.is_err() || nanos > 0);
        }
    }

    #[test]
    fn times_before_1970_are_times() {
        let mut record = record_at(-1);
        assert_eq!(timestamp_ms("at", record.timestamp.take().unwrap()), Ok(-1));
        assert!(timestamp_ms("at", record_at(i64::MIN).timestamp.unwrap()).is_ok());
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(codec(6).is_err() && codec(-1).is_err() && wants_batches(3).is_err());
        assert!(stamp(&v1::ProducerStamp { producer_id: u64::MAX, epoch: 0, sequence: 0 }).is_err());
        assert!(stamp(&v1::ProducerStamp { producer_id: 1, epoch: 40_000, sequence: 0 }).is_err());
    }
}
