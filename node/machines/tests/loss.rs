//! What a partition makes of what is left after a loss.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use common::{Stamp, Store, batch};
use flotilla_machines::partition::{PartitionAnswer, PartitionMachine, PartitionRefusal, command_payload};
use flotilla_machines::{Decision, item};
use flotilla_proto::internal::v1;
use flotilla_proto::internal::v1::partition_command::Command;

const STAMP: Stamp = Stamp { id: 7, epoch: 0, sequence: 0 };

fn kept(base_offset: u64, offset_count: u32) -> Decision {
    Decision::Keep { base_offset, offset_count, max_timestamp_ms: 0 }
}

fn append(machine: &mut PartitionMachine, store: &mut Store, stamp: Option<Stamp>) -> Result<PartitionAnswer, PartitionRefusal> {
    machine.apply(item::BATCH, &batch(stamp, 2, 0), store).outcome
}

#[test]
fn what_is_left_keeps_its_offsets_and_what_is_missing_is_known() {
    let (mut machine, mut store) = (PartitionMachine::default(), Store::default());
    append(&mut machine, &mut store, Some(STAMP)).unwrap();
    // Two batches are missing; the next one is there.
    machine.adopt(item::BATCH, &batch(Some(Stamp { sequence: 6, ..STAMP }), 2, 0), Some(kept(6, 2)), &mut store);
    assert_eq!((machine.next_offset(), machine.lost(), machine.log_start_offset()), (8, 2..6, 0));
    // Its producer goes on behind it, and what it repeats is recognised; what was lost may not come again.
    let again = append(&mut machine, &mut store, Some(Stamp { sequence: 6, ..STAMP }));
    assert_eq!(again, Ok(PartitionAnswer::Duplicate { base_offset: 6 }));
    let next = append(&mut machine, &mut store, Some(Stamp { sequence: 8, ..STAMP }));
    assert_eq!(next, Ok(PartitionAnswer::Appended { base_offset: 8, record_count: 2 }));
    // A batch that was refused once stays refused, a command has its effect.
    machine.adopt(item::BATCH, &batch(None, 2, 0), Some(Decision::Drop), &mut store);
    let delete = command_payload(Command::DeleteRecords(v1::DeleteRecords { before_offset: 7 }));
    machine.adopt(item::COMMAND, &delete, Some(Decision::Drop), &mut store);
    assert_eq!((machine.next_offset(), machine.log_start_offset()), (10, 7));
    assert_eq!(PartitionMachine::restore(store.rows()).unwrap(), machine);
}

#[test]
fn offsets_that_may_have_been_given_out_are_not_given_out_again() {
    let (mut machine, mut store) = (PartitionMachine::default(), Store::default());
    append(&mut machine, &mut store, Some(STAMP)).unwrap();
    machine.lose(2..1002, &mut store);
    let refused = append(&mut machine, &mut store, Some(Stamp { sequence: 2, ..STAMP }));
    assert_eq!(refused, Err(PartitionRefusal::UnknownProducer { producer_id: 7, got: 2 }));
    let appended = append(&mut machine, &mut store, None);
    assert_eq!(appended, Ok(PartitionAnswer::Appended { base_offset: 1002, record_count: 2 }));
    machine.lose(1..2, &mut store);
    assert_eq!((machine.next_offset(), machine.lost()), (1004, 1..1002));
    machine.lose(5..5, &mut store);
    assert_eq!(PartitionMachine::restore(store.rows()).unwrap(), machine);
}

#[test]
fn what_nothing_is_known_of_was_there_once() {
    let (mut machine, mut store) = (PartitionMachine::default(), Store::default());
    machine.adopt(item::BATCH, &batch(None, 2, 0), Some(kept(500, 2)), &mut store);
    assert_eq!((machine.log_start_offset(), machine.next_offset(), machine.lost()), (0, 502, 0..500));
    assert_eq!(PartitionMachine::restore(store.rows()).unwrap(), machine);
}

/// Entries that were durable and never applied: what was before them may be lost, what they repeat is not kept twice.
#[test]
fn batches_behind_a_loss_are_not_refused_for_it() {
    let (mut machine, mut store) = (PartitionMachine::default(), Store::default());
    machine.lose(0..100, &mut store);
    let later = |sequence| batch(Some(Stamp { sequence, ..STAMP }), 2, 0);
    assert_eq!(machine.adopt(item::BATCH, &later(40), None, &mut store), kept(100, 2));
    assert_eq!(machine.adopt(item::BATCH, &later(42), None, &mut store), kept(102, 2));
    assert_eq!(machine.adopt(item::BATCH, &later(42), None, &mut store), Decision::Drop);
    assert!(append(&mut machine, &mut store, Some(Stamp { id: 8, sequence: 3, ..STAMP })).is_err());
    assert_eq!(PartitionMachine::restore(store.rows()).unwrap(), machine);
}
