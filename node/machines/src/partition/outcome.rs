//! What a partition answers to an item.

use flotilla_records::BatchError;

use super::groups::{Commit, METADATA_BYTES_MAX};
use super::producers::PRODUCERS_MAX;
use crate::item::Malformed;
use crate::name::NameError;

/// The answer to one item, or why it was refused.
pub type PartitionOutcome = Result<PartitionAnswer, PartitionRefusal>;

/// What an accepted item did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartitionAnswer {
    /// The batch is part of the log.
    Appended {
        /// Offset of its first record.
        base_offset: u64,
        /// Number of records.
        record_count: u32,
    },
    /// The batch had been appended before. Nothing changed.
    Duplicate {
        /// Offset of its first record, from back then.
        base_offset: u64,
    },
    /// The log starts at or above the offset asked for.
    LogStart {
        /// The first offset that is still there.
        log_start_offset: u64,
    },
    /// The offset is committed.
    OffsetCommitted,
    /// The fence stands as asked for.
    FenceRaised {
        /// Where the new owner goes on; absent if nothing was committed yet.
        committed: Option<Commit>,
    },
    /// The group is not known here any more.
    GroupDeleted {
        /// Whether it had been.
        existed: bool,
    },
    /// The machine's time.
    Time {
        /// Milliseconds since the Unix epoch.
        now_ms: i64,
    },
}

/// Why an item was refused. Nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PartitionRefusal {
    /// Another instance of the producer has taken over.
    #[error(
        "producer {producer_id} has epoch {current_epoch} now, this batch has epoch {epoch}: another instance took over, stop this one"
    )]
    ProducerFenced {
        /// The producer.
        producer_id: i64,
        /// Epoch of the batch.
        epoch: i16,
        /// The producer's epoch.
        current_epoch: i16,
    },
    /// Batches are missing before this one, or it is a retry of a batch older than the last five.
    #[error(
        "producer {producer_id} must send sequence {expected} next, this batch has sequence {got}: send the batches in order, or continue under a new producer id"
    )]
    OutOfOrderSequence {
        /// The producer.
        producer_id: i64,
        /// The sequence that the next batch has.
        expected: i32,
        /// The sequence that this batch has.
        got: i32,
    },
    /// Nothing is remembered of the producer, but its batch is not a first one.
    #[error(
        "producer {producer_id} is not known to this partition and its batch has sequence {got}, not 0: continue under a new producer id"
    )]
    UnknownProducer {
        /// The producer.
        producer_id: i64,
        /// The sequence that the batch has.
        got: i32,
    },
    /// There is no room for another producer, and none that is known has been idle for long enough to be forgotten.
    #[error(
        "the partition has no room for producer {producer_id}: {PRODUCERS_MAX} idempotent producers wrote to it within a day; keep producers open instead of opening one for each batch, use another partition, or produce without a producer id"
    )]
    TooManyProducers {
        /// The producer.
        producer_id: i64,
    },
    /// There is no offset left.
    #[error("the partition's offsets are used up: produce to another partition")]
    OffsetsExhausted,
    /// An offset behind the end of the log.
    #[error("offset {offset} is beyond the end of the partition at {next_offset}: use an offset up to that")]
    OffsetOutOfRange {
        /// The offset asked for.
        offset: u64,
        /// The largest that would be accepted.
        next_offset: u64,
    },
    /// The partition belongs to another member, or to another epoch.
    #[error(
        "the partition's fence for group {group:?} is at epoch {epoch}, held by {}: {}",
        holder(member),
        fence_advice(member)
    )]
    Fenced {
        /// The group.
        group: String,
        /// Epoch of the fence.
        epoch: u64,
        /// Who holds it; empty: nobody.
        member: String,
    },
    /// A member consumes the partition.
    #[error("member {member:?} of group {group:?} owns the partition: stop the group's members first")]
    GroupInUse {
        /// The group.
        group: String,
        /// Who owns the partition.
        member: String,
    },
    /// More groups than a partition remembers.
    #[error("the partition already keeps offsets of {groups_max} groups: delete groups that are not used any more")]
    TooManyGroups {
        /// Limit.
        groups_max: usize,
    },
    /// Not a name for a group.
    #[error("group name {name:?} is invalid: {why}")]
    InvalidGroup {
        /// The name.
        name: String,
        /// What is wrong with it.
        why: NameError,
    },
    /// Not a member id.
    #[error("member id {member:?} is invalid: {why}")]
    InvalidMember {
        /// The member id.
        member: String,
        /// What is wrong with it.
        why: NameError,
    },
    /// Too much metadata with a committed offset.
    #[error("the commit's metadata has {bytes} bytes, allowed are {METADATA_BYTES_MAX}: keep it elsewhere")]
    MetadataTooLarge {
        /// Bytes sent.
        bytes: usize,
    },
    /// The item means nothing here.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

impl From<BatchError> for PartitionRefusal {
    fn from(error: BatchError) -> Self {
        Self::Malformed(Malformed::Batch(error))
    }
}

fn holder(member: &str) -> String {
    if member.is_empty() { "nobody".to_owned() } else { format!("member {member:?}") }
}

fn fence_advice(member: &str) -> &'static str {
    if member.is_empty() {
        "commit without a fence, or as the member that the next assignment names"
    } else {
        "only that member may commit; stop it, or force the commit"
    }
}
