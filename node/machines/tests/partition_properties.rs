//! What must hold for a partition whatever it is asked to do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeMap;

use bytes::Bytes;
use common::{Stamp, Store, batch};
use flotilla_machines::partition::{
    BATCHES_REMEMBERED, PartitionAnswer, PartitionMachine, PartitionOutcome, PartitionRefusal, command_payload,
};
use flotilla_machines::time::OLDER_STAMP_MS_MAX;
use flotilla_machines::{Applied, Decision, item};
use flotilla_proto::internal::v1;
use flotilla_proto::internal::v1::partition_command::Command;
use proptest::prelude::*;

type Item = (u8, Bytes);

const GROUPS: [&str; 2] = ["audit", "billing"];

fn command(command: Command) -> Item {
    (item::COMMAND, command_payload(command))
}

fn any_group() -> impl Strategy<Value = String> {
    prop_oneof![8 => proptest::sample::select(&GROUPS[..]).prop_map(str::to_owned), 1 => Just(String::new())]
}

fn any_fence() -> impl Strategy<Value = v1::GroupFence> {
    (0_u64..6, proptest::sample::select(&["", "a", "b"][..]))
        .prop_map(|(epoch, member)| v1::GroupFence { epoch, member: member.to_owned() })
}

fn any_batch() -> impl Strategy<Value = Item> {
    let stamp = (1_i64..4, 0_i16..3, 0_i32..12).prop_map(|(id, epoch, sequence)| Stamp { id, epoch, sequence });
    (proptest::option::weighted(0.9, stamp), 0_u32..4, any::<i32>())
        .prop_map(|(stamp, records, at_ms)| (item::BATCH, batch(stamp, records, at_ms.into())))
}

fn any_command() -> impl Strategy<Value = Item> {
    let fence = || proptest::option::of(any_fence());
    prop_oneof![
        (0_u64..60).prop_map(|before_offset| Command::DeleteRecords(v1::DeleteRecords { before_offset })),
        (any_group(), 0_u64..60, fence()).prop_map(|(group, offset, fence)| {
            let metadata = "m".repeat(offset as usize);
            Command::CommitOffset(v1::CommitOffset { group, offset, metadata, fence })
        }),
        (any_group(), fence()).prop_map(|(group, fence)| Command::RaiseFence(v1::RaiseFence { group, fence })),
        (any_group(), 0_u64..6, 0_u64..60).prop_map(|(group, epoch, offset)| {
            Command::ForceCommit(v1::ForceCommit { group, epoch, offset, metadata: String::new() })
        }),
        any_group().prop_map(|group| Command::DeleteGroup(v1::DeleteGroup { group })),
    ]
    .prop_map(command)
}

fn any_stamp() -> impl Strategy<Value = Item> {
    (any::<i32>(), any::<i32>(), proptest::option::of(0_u64..1_000_000_000)).prop_map(|(now, dated, timestamp_ahead_max_ms)| {
        let (now_ms, dated_ms) = (i64::from(now), i64::from(dated));
        (item::STAMP, item::stamp_payload(&v1::Stamp { now_ms, dated_ms, timestamp_ahead_max_ms }))
    })
}

/// Anything, with times that let producers be forgotten now and then.
fn any_item() -> impl Strategy<Value = Item> {
    const DAY_MS: i64 = 24 * 60 * 60 * 1000;
    prop_oneof![
        6 => any_batch(),
        4 => any_command(),
        1 => (0_i64..40).prop_map(|day| (item::CLOCK, item::clock_payload(day * DAY_MS))),
        2 => any_stamp(),
        1 => (any::<u8>(), proptest::collection::vec(any::<u8>(), 0..70)).prop_map(|(kind, bytes)| (kind, bytes.into())),
    ]
}

fn apply(machine: &mut PartitionMachine, store: &mut Store, (kind, payload): &Item) -> Applied<PartitionOutcome> {
    machine.apply(*kind, payload, store)
}

/// What a producer sent so far in its epoch: (sequence, records, offset) of all its batches.
#[derive(Default)]
struct History {
    epoch: i16,
    batches: Vec<(i32, u32, u64)>,
}

impl History {
    fn next_sequence(&self) -> i32 {
        self.batches.iter().map(|(_, records, _)| *records as i32).sum()
    }

    /// The rules of idempotent produce, one after the other, from the whole history.
    fn expect(&mut self, stamp: Stamp, records: u32, next_offset: u64) -> PartitionOutcome {
        let (producer_id, got) = (stamp.id, stamp.sequence);
        if self.batches.is_empty() && got != 0 {
            return Err(PartitionRefusal::UnknownProducer { producer_id, got });
        }
        if !self.batches.is_empty() && stamp.epoch < self.epoch {
            return Err(PartitionRefusal::ProducerFenced { producer_id, epoch: stamp.epoch, current_epoch: self.epoch });
        }
        let expected = if stamp.epoch == self.epoch { self.next_sequence() } else { 0 };
        let mut last = self.batches.iter().rev().take(BATCHES_REMEMBERED);
        if let Some((_, _, base_offset)) = last.find(|batch| stamp.epoch == self.epoch && (batch.0, batch.1) == (got, records)) {
            return Ok(PartitionAnswer::Duplicate { base_offset: *base_offset });
        }
        if got != expected {
            return Err(PartitionRefusal::OutOfOrderSequence { producer_id, expected, got });
        }
        if stamp.epoch != self.epoch {
            *self = Self { epoch: stamp.epoch, batches: vec![] };
        }
        self.batches.push((got, records, next_offset));
        Ok(PartitionAnswer::Appended { base_offset: next_offset, record_count: records })
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// The rows are the whole state: at any point a machine restored from them is the same and goes on in the same way.
    #[test]
    fn restored_machine_goes_on_as_the_live_one(items in proptest::collection::vec(any_item(), 1..120), cut in 0_usize..120) {
        let (before, after) = items.split_at(cut.min(items.len()));
        let (mut live, mut live_store) = (PartitionMachine::default(), Store::default());
        for item in before {
            apply(&mut live, &mut live_store, item);
        }
        let mut restored_store = live_store.clone();
        let mut rows = restored_store.rows();
        rows.reverse();
        let mut restored = PartitionMachine::restore(rows).unwrap();
        prop_assert_eq!(&restored, &live);
        for item in after {
            let expected = apply(&mut live, &mut live_store, item);
            prop_assert_eq!(apply(&mut restored, &mut restored_store, item), expected);
            prop_assert_eq!(restored_store.take_changes(), live_store.take_changes());
        }
        prop_assert_eq!(restored, live);
    }

    /// Offsets have no gap and no overlap, whatever else happens, and what is refused changes nothing.
    #[test]
    fn offsets_are_dense_and_refusals_change_nothing(items in proptest::collection::vec(any_item(), 1..120)) {
        let (mut machine, mut store) = (PartitionMachine::default(), Store::default());
        let mut end = 0;
        for item in &items {
            let before = machine.clone();
            let Applied { outcome, decision } = apply(&mut machine, &mut store, item);
            let changes = store.take_changes();
            if let Decision::Keep { base_offset, offset_count, .. } = decision {
                prop_assert_eq!(base_offset, end);
                prop_assert_eq!(&outcome, &Ok(PartitionAnswer::Appended { base_offset, record_count: offset_count }));
                end += u64::from(offset_count);
            }
            if matches!(outcome, Err(_) | Ok(PartitionAnswer::Duplicate { .. })) {
                prop_assert_eq!(decision, Decision::Drop);
                prop_assert!(changes.is_empty());
                prop_assert_eq!(&machine, &before);
            }
            prop_assert_eq!(machine.next_offset(), end);
            prop_assert!(machine.log_start_offset() >= before.log_start_offset());
            prop_assert!(machine.log_start_offset() <= end);
            let (time, was) = (machine.time(), before.time());
            prop_assert!(time.now_ms >= was.now_ms || was.now_ms - time.now_ms > OLDER_STAMP_MS_MAX);
            prop_assert!(time.dated_ms >= time.now_ms);
        }
    }

    /// Whatever clients and leaders say of the time, no batch is kept as of a time far in the future, nor as of none.
    #[test]
    fn what_is_kept_is_dated_sensibly(
        stamps in proptest::collection::vec((1_i64..1 << 45, 0_i64..1 << 45, 0_u64..1 << 40), 1..20),
        client_ms in any::<i64>(),
    ) {
        let (mut machine, mut store) = (PartitionMachine::default(), Store::default());
        for (now_ms, dated_ms, ahead) in stamps {
            let stamp = v1::Stamp { now_ms, dated_ms, timestamp_ahead_max_ms: Some(ahead) };
            apply(&mut machine, &mut store, &(item::STAMP, item::stamp_payload(&stamp)));
            let decision = apply(&mut machine, &mut store, &(item::BATCH, batch(None, 1, client_ms))).decision;
            let Decision::Keep { max_timestamp_ms, .. } = decision else { panic!("{decision:?}") };
            let arrival_ms = machine.time().dated_ms;
            prop_assert!(max_timestamp_ms >= 0 && max_timestamp_ms <= arrival_ms + ahead as i64);
            prop_assert!(max_timestamp_ms == client_ms || max_timestamp_ms == arrival_ms);
            prop_assert!(max_timestamp_ms == client_ms || client_ms < 0 || client_ms > arrival_ms + ahead as i64);
        }
    }

    /// Several producers, epochs and sequences: exactly the answers of a model that remembers everything.
    #[test]
    fn idempotence_follows_the_model(sends in proptest::collection::vec((1_i64..4, 0_i16..8, 0_i32..40, 1_u32..4), 1..150)) {
        let (mut machine, mut store) = (PartitionMachine::default(), Store::default());
        let mut histories: BTreeMap<i64, History> = BTreeMap::new();
        for (id, epoch, sequence, records) in sends {
            let history = histories.entry(id).or_default();
            // Half of the sends are what is due, and half are in the producer's epoch: else nothing would get far.
            let epoch = if epoch < 4 { history.epoch } else { epoch - 4 };
            let sequence = if sequence < 20 { history.next_sequence() } else { sequence - 20 };
            let stamp = Stamp { id, epoch, sequence };
            let expected = history.expect(stamp, records, machine.next_offset());
            prop_assert_eq!(machine.apply(item::BATCH, &batch(Some(stamp), records, 0), &mut store).outcome, expected);
        }
    }

    /// Batches of one producer arrive in any order and any number of times: each is in the log at most once, in order,
    /// and a retry among the last five learns the offset of the first time. `long` makes sequences wrap on the way.
    #[test]
    fn no_batch_is_accepted_twice(sizes in proptest::collection::vec(1_u32..5, 1..30),
                                  deliveries in proptest::collection::vec(any::<proptest::sample::Index>(), 1..400),
                                  long in any::<bool>()) {
        let mut sizes = sizes;
        if long {
            sizes[0] = i32::MAX as u32 - 20;
        }
        let (mut machine, mut store) = (PartitionMachine::default(), Store::default());
        let mut sequences = Vec::new();
        let mut next = 0_u64;
        for size in &sizes {
            sequences.push((next % (1 << 31)) as i32);
            next += u64::from(*size);
        }
        // Mostly what is due, so that long runs get through; else anything.
        let mut offsets: Vec<u64> = Vec::new();
        for (turn, delivery) in deliveries.iter().enumerate() {
            let due = offsets.len();
            let at = if turn % 3 == 0 && due < sizes.len() { due } else { delivery.index(sizes.len()) };
            if long && at == 0 && due > 0 {
                // A retry from 2^31 records ago cannot be told from what is due: the format has no more bits.
                continue;
            }
            let stamp = Stamp { id: 5, epoch: 0, sequence: sequences[at] };
            let outcome = machine.apply(item::BATCH, &batch(Some(stamp), sizes[at], 0), &mut store).outcome;
            if at == due {
                let expected = PartitionAnswer::Appended { base_offset: machine.next_offset() - u64::from(sizes[at]), record_count: sizes[at] };
                prop_assert_eq!(outcome, Ok(expected));
                offsets.push(machine.next_offset() - u64::from(sizes[at]));
            } else if at < due && due - at <= BATCHES_REMEMBERED {
                prop_assert_eq!(outcome, Ok(PartitionAnswer::Duplicate { base_offset: offsets[at] }));
            } else {
                let refused = matches!(outcome, Err(PartitionRefusal::OutOfOrderSequence { .. } | PartitionRefusal::UnknownProducer { .. }));
                prop_assert!(refused, "batch {} of {} due was answered {:?}", at, due, outcome);
            }
        }
        let appended: u64 = sizes[..offsets.len()].iter().copied().map(u64::from).sum();
        prop_assert_eq!(machine.next_offset(), appended);
    }

    /// Once a fence was raised, no commit under another one gets in; epochs never go back, not even over a deletion.
    #[test]
    fn only_the_holder_of_the_fence_commits(commands in proptest::collection::vec(any_command(), 1..150)) {
        let (mut machine, mut store) = (PartitionMachine::default(), Store::default());
        machine.apply(item::BATCH, &batch(None, 50, 0), &mut store);
        let mut highest: BTreeMap<String, u64> = BTreeMap::new();
        for item in &commands {
            let message = <v1::PartitionCommand as prost::Message>::decode(item.1.clone()).unwrap();
            let fences: Vec<_> = GROUPS.iter().map(|group| machine.fence(group)).collect();
            let outcome = apply(&mut machine, &mut store, item).outcome;
            let fence_of = |group: &str| fences[GROUPS.iter().position(|name| *name == group).unwrap()].clone();
            match (message.command.unwrap(), outcome) {
                (Command::CommitOffset(command), Ok(_)) => {
                    let fence = fence_of(&command.group);
                    match command.fence {
                        Some(claimed) => prop_assert_eq!((claimed.epoch, claimed.member), (fence.epoch, fence.member)),
                        None => prop_assert!(fence.is_vacant()),
                    }
                    prop_assert!(command.offset <= machine.next_offset());
                    prop_assert_eq!(machine.committed(&command.group).unwrap().offset, command.offset);
                }
                (Command::CommitOffset(command), Err(PartitionRefusal::Fenced { .. })) => {
                    let fence = fence_of(&command.group);
                    let claimed = command.fence.map_or((fence.epoch, String::new()), |fence| (fence.epoch, fence.member));
                    prop_assert_ne!(claimed, (fence.epoch, fence.member));
                }
                (Command::ForceCommit(command), Ok(_)) => prop_assert!(command.epoch > fence_of(&command.group).epoch),
                (Command::RaiseFence(command), Ok(PartitionAnswer::FenceRaised { committed })) => {
                    prop_assert_eq!(machine.committed(&command.group), committed.as_ref());
                    let wanted = command.fence.unwrap();
                    let fence = machine.fence(&command.group);
                    prop_assert_eq!((fence.epoch, fence.member), (wanted.epoch, wanted.member));
                }
                _ => {}
            }
            for group in GROUPS {
                let epoch = machine.fence(group).epoch;
                let seen = highest.entry(group.to_owned()).or_default();
                prop_assert!(epoch >= *seen, "the epoch of {} went back from {} to {}", group, seen, epoch);
                *seen = epoch;
            }
        }
    }
}
