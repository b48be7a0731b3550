//! Batches that decode, but that no partition may take: each is refused for its own reason.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use common::{Store, batch};
use flotilla_machines::partition::{PartitionMachine, PartitionRefusal};
use flotilla_machines::{Decision, Malformed, item};
use flotilla_records::BatchError;

/// A batch of three records, changed by `change`.
fn refusal(change: impl Fn(&mut Vec<u8>)) -> BatchError {
    let mut bytes = batch(None, 3, 0).to_vec();
    change(&mut bytes);
    let (mut machine, mut store) = (PartitionMachine::default(), Store::default());
    let applied = machine.apply(item::BATCH, &bytes.into(), &mut store);
    assert_eq!((machine, store, applied.decision), (PartitionMachine::default(), Store::default(), Decision::Drop));
    match applied.outcome {
        Err(PartitionRefusal::Malformed(Malformed::Batch(error))) => error,
        outcome => panic!("{outcome:?}"),
    }
}

const ATTRIBUTES: usize = 22;
const LAST_OFFSET_DELTA: usize = 26;
const RECORD_COUNT: usize = 60;

#[test]
fn more_bytes_than_announced() {
    assert_eq!(refusal(|bytes| bytes.push(0)), BatchError::LengthMismatch { announced: 61, actual: 62 });
}

#[test]
fn control_batches() {
    assert_eq!(refusal(|bytes| bytes[ATTRIBUTES] = 1 << 5), BatchError::ControlNotAllowed);
}

#[test]
fn transactional_batches() {
    assert_eq!(refusal(|bytes| bytes[ATTRIBUTES] = 1 << 4), BatchError::TransactionalNotAllowed);
}

#[test]
fn no_records() {
    assert_eq!(refusal(|bytes| bytes[RECORD_COUNT] = 0), BatchError::NoRecords);
}

#[test]
fn offsets_without_records() {
    assert_eq!(refusal(|bytes| bytes[RECORD_COUNT] = 2), BatchError::OffsetGaps { count: 2, last_offset_delta: 2 });
    assert_eq!(refusal(|bytes| bytes[LAST_OFFSET_DELTA] = 200), BatchError::OffsetGaps { count: 3, last_offset_delta: 200 });
}
