//! Payloads and rows that nobody sane would write: no panic, and what is refused changes nothing.
//!
//! `FLOTILLA_MUTATIONS` says how many are tried (default 200,000).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use bytes::Bytes;
use common::{Numbers, Stamp, Store, batch};
use flotilla_machines::controller::{self, ControllerMachine};
use flotilla_machines::partition::{self, PartitionMachine};
use flotilla_machines::{Decision, item};
use flotilla_proto::internal::v1;
use flotilla_proto::internal::v1::controller_command::Command as ControllerCommand;
use flotilla_proto::internal::v1::partition_command::Command as PartitionCommand;

const STAMP: v1::Stamp =
    v1::Stamp { now_ms: 1_700_000_000_000, dated_ms: 1_700_000_060_000, timestamp_ahead_max_ms: Some(3_600_000) };

fn mutations() -> usize {
    std::env::var("FLOTILLA_MUTATIONS").map_or(200_000, |count| count.parse().expect("FLOTILLA_MUTATIONS is a number"))
}

fn partition_items() -> Vec<(u8, Bytes)> {
    let command = |command| (item::COMMAND, partition::command_payload(command));
    let group = || "audit".to_owned();
    let fence = Some(v1::GroupFence { epoch: 3, member: "a".to_owned() });
    vec![
        (item::CLOCK, item::clock_payload(1_700_000_000_000)),
        (item::STAMP, item::stamp_payload(&STAMP)),
        (item::BATCH, batch(None, 10, 1)),
        (item::BATCH, batch(Some(Stamp { id: 1, epoch: 0, sequence: 0 }), 3, 2)),
        (item::BATCH, batch(Some(Stamp { id: 1, epoch: 0, sequence: 3 }), 3, 2)),
        command(PartitionCommand::DeleteRecords(v1::DeleteRecords { before_offset: 4 })),
        command(PartitionCommand::RaiseFence(v1::RaiseFence { group: group(), fence: fence.clone() })),
        command(PartitionCommand::CommitOffset(v1::CommitOffset { group: group(), offset: 5, metadata: group(), fence })),
        command(PartitionCommand::ForceCommit(v1::ForceCommit { group: group(), epoch: 4, offset: 5, metadata: group() })),
        command(PartitionCommand::DeleteGroup(v1::DeleteGroup { group: group() })),
    ]
}

fn controller_items() -> Vec<(u8, Bytes)> {
    let command = |command| (item::COMMAND, controller::command_payload(command));
    let name = || "access".to_owned();
    let replicas = |count| vec![v1::Replicas { nodes: vec![1] }; count];
    let config = Some(v1::TopicConfig { retention_ms: Some(1), ..Default::default() });
    let topic_id = vec![7; 16].into();
    vec![
        (item::CLOCK, item::clock_payload(1_700_000_000_000)),
        (item::STAMP, item::stamp_payload(&STAMP)),
        command(ControllerCommand::RegisterNode(v1::RegisterNode {
            node_id: 1,
            address: "host:1".to_owned(),
            peer_address: "host:2".to_owned(),
            rack: "rack-1".to_owned(),
            directory_id: vec![1; 16].into(),
        })),
        command(ControllerCommand::CreateTopic(v1::CreateTopic {
            name: name(),
            topic_id,
            replication_factor: 1,
            config,
            partitions: replicas(3),
        })),
        command(ControllerCommand::AlterTopic(v1::AlterTopic { name: name(), config })),
        command(ControllerCommand::AddPartitions(v1::AddPartitions { name: name(), partition_count: 5, added: replicas(2) })),
        command(ControllerCommand::AllocateProducerIds(v1::AllocateProducerIds { count: 1_000 })),
        command(ControllerCommand::RegisterNode(v1::RegisterNode {
            node_id: 2,
            address: "host:3".to_owned(),
            ..Default::default()
        })),
        command(ControllerCommand::StartMove(v1::StartMove { group_id: 1, target: Some(v1::Replicas { nodes: vec![2] }) })),
        command(ControllerCommand::FinishMove(v1::FinishMove {
            group_id: 1,
            replicas: Some(v1::Replicas { nodes: vec![2] }),
            move_epoch: 1,
        })),
        command(ControllerCommand::StartMove(v1::StartMove { group_id: 1, target: Some(v1::Replicas { nodes: vec![1] }) })),
        command(ControllerCommand::CancelMove(v1::CancelMove { group_id: 1 })),
        command(ControllerCommand::SetNodeState(v1::SetNodeState { node_id: 1, state: v1::NodeState::Draining.into() })),
        command(ControllerCommand::RemoveNode(v1::RemoveNode { node_id: 2 })),
        command(ControllerCommand::DeleteTopic(v1::DeleteTopic { name: name() })),
    ]
}

/// A payload with some bytes changed, cut, repeated, or all made up.
fn mutated(original: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = original.to_vec();
    for _ in 0..=numbers.below(4) {
        let at = numbers.below(bytes.len().max(1));
        match numbers.below(6) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at.min(bytes.len()), numbers.next() as u8),
            2 => bytes.extend_from_within(at.min(bytes.len())..),
            3 => bytes = (0..numbers.below(80)).map(|_| numbers.next() as u8).collect(),
            4 if !bytes.is_empty() => bytes[at] = [0x00, 0x7f, 0x80, 0xff][numbers.below(4)],
            _ if !bytes.is_empty() => bytes[at] ^= 1 << numbers.below(8),
            _ => {}
        }
    }
    bytes
}

#[test]
fn hostile_items_of_a_partition() {
    let items = partition_items();
    let (mut start, mut start_store) = (PartitionMachine::default(), Store::default());
    for (kind, payload) in &items[..7] {
        assert!(start.apply(*kind, payload, &mut start_store).outcome.is_ok());
    }
    start_store.take_changes();
    let mut numbers = Numbers(1);
    let (mut refused, mut accepted) = (0, 0);
    for _ in 0..mutations() {
        let (kind, payload) = &items[numbers.below(items.len())];
        let (mut machine, mut store) = (start.clone(), Store::default());
        let applied = machine.apply(*kind, &mutated(payload, &mut numbers).into(), &mut store);
        if applied.outcome.is_err() {
            assert_eq!((machine, store.take_changes(), applied.decision), (start.clone(), vec![], Decision::Drop));
            refused += 1;
        } else {
            accepted += 1;
        }
    }
    assert!(refused > 0 && accepted > 0, "{refused} refused, {accepted} accepted: the mutations miss one side");
}

#[test]
fn hostile_items_of_the_controller() {
    let items = controller_items();
    let (mut start, mut start_store) = (ControllerMachine::default(), Store::default());
    for (kind, payload) in &items[..8] {
        assert!(start.apply(*kind, payload, &mut start_store).outcome.is_ok());
    }
    let mut numbers = Numbers(2);
    let (mut refused, mut accepted) = (0, 0);
    for _ in 0..mutations() {
        let (kind, payload) = &items[numbers.below(items.len())];
        let (mut machine, mut store) = (start.clone(), Store::default());
        let applied = machine.apply(*kind, &mutated(payload, &mut numbers).into(), &mut store);
        assert_eq!(applied.decision, Decision::Drop);
        if applied.outcome.is_err() {
            assert_eq!((machine, store.take_changes()), (start.clone(), vec![]));
            refused += 1;
        } else {
            accepted += 1;
        }
    }
    assert!(refused > 0 && accepted > 0, "{refused} refused, {accepted} accepted: the mutations miss one side");
}

#[test]
fn hostile_rows() {
    let mut store = Store::default();
    let mut machine = PartitionMachine::default();
    for (kind, payload) in &partition_items()[..7] {
        machine.apply(*kind, payload, &mut store);
    }
    let mut controller_store = Store::default();
    let mut controller = ControllerMachine::default();
    for (kind, payload) in &controller_items()[..8] {
        controller.apply(*kind, payload, &mut controller_store);
    }
    let mut numbers = Numbers(3);
    let mut refused = 0;
    for _ in 0..mutations() {
        let (mut partition_rows, mut controller_rows) = (store.rows(), controller_store.rows());
        for rows in [&mut partition_rows, &mut controller_rows] {
            let at = numbers.below(rows.len());
            let (table, key, value) = &mut rows[at];
            match numbers.below(8) {
                0 => *table = numbers.next() as u8,
                1 => *key = mutated(key, &mut numbers),
                _ => *value = mutated(value, &mut numbers),
            }
        }
        refused += usize::from(PartitionMachine::restore(partition_rows).is_err());
        refused += usize::from(ControllerMachine::restore(controller_rows).is_err());
    }
    assert!(refused > 0);
}
