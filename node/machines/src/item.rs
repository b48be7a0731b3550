//! The kinds of items that an entry is made of. All codes stand here; a retired one stays reserved.
//!
//! | kind | payload |
//! |---|---|
//! | 1 | a record batch: Kafka RecordBatch v2, verbatim |
//! | 2 | a command: protobuf `internal.v1.PartitionCommand` or `ControllerCommand` |
//! | 3 | the leader's clock: milliseconds since the Unix epoch, i64, big-endian |

use bytes::Bytes;
use flotilla_records::BatchError;

/// A record batch.
pub const BATCH: u8 = 1;
/// A command.
pub const COMMAND: u8 = 2;
/// The time at which the leader made the entry; machine time never goes back.
pub const CLOCK: u8 = 3;

/// The payload of a [`CLOCK`] item.
#[must_use]
pub fn clock_payload(now_ms: i64) -> Bytes {
    Bytes::copy_from_slice(&now_ms.to_be_bytes())
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
    /// A command that names nothing to do.
    #[error("the command is empty or unknown: upgrade this node if a newer one leads")]
    UnknownCommand,
    /// A command without a part that it needs.
    #[error("the command lacks its {field}: report this as a defect")]
    Missing {
        /// Name of the field.
        field: &'static str,
    },
}
