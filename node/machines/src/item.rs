//! The kinds of items that an entry is made of. All codes stand here; a retired one stays reserved.
//!
//! | kind | payload |
//! |---|---|
//! | 1 | a record batch: Kafka RecordBatch v2, verbatim |
//! | 2 | a command: protobuf `internal.v1.PartitionCommand` or `ControllerCommand` |
//! | 3 | the leader's clock: milliseconds since the Unix epoch, i64, big-endian; written by earlier versions only |
//! | 4 | what the leader knows of the time: protobuf `internal.v1.Stamp` |

use bytes::Bytes;
use flotilla_proto::internal::v1;
use flotilla_records::BatchError;
use prost::Message;

/// A record batch.
pub const BATCH: u8 = 1;
/// A command.
pub const COMMAND: u8 = 2;
/// The time at which the leader made the entry, in logs of earlier versions.
pub const CLOCK: u8 = 3;
/// What the leader knew of the time when it made the entry; see [`crate::time`].
pub const STAMP: u8 = 4;

/// The payload of a [`CLOCK`] item.
#[must_use]
pub fn clock_payload(now_ms: i64) -> Bytes {
    Bytes::copy_from_slice(&now_ms.to_be_bytes())
}

/// The payload of a [`STAMP`] item.
#[must_use]
pub fn stamp_payload(stamp: &v1::Stamp) -> Bytes {
    stamp.encode_to_vec().into()
}

pub(crate) fn parse_clock(payload: &[u8]) -> Result<i64, Malformed> {
    let bytes = payload.try_into().map_err(|_| Malformed::Clock { bytes: payload.len() })?;
    Ok(i64::from_be_bytes(bytes))
}

/// Why an item means nothing to a machine. The leader proposes only what it has checked, so this is damage, a
/// defect, or an entry of a newer version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// No such kind of item here.
    #[error("log item kind {kind} is unknown here: upgrade this node if a newer one leads")]
    UnknownKind {
        /// The kind found.
        kind: u8,
    },
    /// Not a time.
    #[error("a clock item has 8 bytes, this one has {bytes}: report this as a defect")]
    Clock {
        /// Bytes found.
        bytes: usize,
    },
    /// Not a record batch that a partition can take.
    #[error("the log item is not a valid record batch: {0}")]
    Batch(#[from] BatchError),
    /// Not protobuf of the expected message.
    #[error("the log item is not a command: {0}; report this as a defect")]
    Command(#[from] prost::DecodeError),
    /// Not protobuf of a stamp.
    #[error("the log item is not a stamp of the time: {0}; report this as a defect")]
    Stamp(prost::DecodeError),
    /// A command that names nothing to do.
    #[error("the command is empty or unknown: upgrade this node if a newer one leads")]
    UnknownCommand,
    /// A command or stamp without a part that it needs.
    #[error("the log item lacks its {field}: report this as a defect")]
    Missing {
        /// Name of the field.
        field: &'static str,
    },
}
