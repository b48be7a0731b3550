//! What grows is bounded: the limits hold, and at the limit the machines answer instead of growing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use common::{Stamp, Store, batch};
use flotilla_machines::controller::{
    self, ControllerMachine, ControllerOutcome, ControllerRefusal, NODES_MAX, NODES_REMOVED_MAX, NodeRefusal, PARTITIONS_MAX,
    PARTITIONS_PER_TOPIC_MAX, TOPICS_MAX,
};
use flotilla_machines::item;
use flotilla_machines::partition::{
    self, GROUPS_MAX, METADATA_BYTES_MAX, PRODUCER_IDLE_MS_MAX, PRODUCERS_MAX, PartitionAnswer, PartitionMachine,
    PartitionOutcome, PartitionRefusal,
};
use flotilla_proto::internal::v1;
use flotilla_proto::internal::v1::controller_command::Command as ControllerCommand;
use flotilla_proto::internal::v1::partition_command::Command as PartitionCommand;

#[derive(Default)]
struct Partition {
    machine: PartitionMachine,
    store: Store,
}

impl Partition {
    fn append(&mut self, id: i64, sequence: i32) -> PartitionOutcome {
        let payload = batch(Some(Stamp { id, epoch: 0, sequence }), 1, 0);
        self.machine.apply(item::BATCH, &payload, &mut self.store).outcome
    }

    fn clock(&mut self, now_ms: i64) {
        self.machine.apply(item::CLOCK, &item::clock_payload(now_ms), &mut self.store).outcome.unwrap();
    }

    fn stamp(&mut self, now_ms: i64, dated_ms: i64) {
        let stamp = v1::Stamp { now_ms, dated_ms, timestamp_ahead_max_ms: None };
        self.machine.apply(item::STAMP, &item::stamp_payload(&stamp), &mut self.store).outcome.unwrap();
    }

    fn commit(&mut self, group: String, metadata: String) -> PartitionOutcome {
        let command = PartitionCommand::CommitOffset(v1::CommitOffset { group, offset: 0, metadata, fence: None });
        self.machine.apply(item::COMMAND, &partition::command_payload(command), &mut self.store).outcome
    }

    fn check_restore(&self) {
        assert_eq!(PartitionMachine::restore(self.store.rows()).unwrap(), self.machine);
    }
}

/// A batch that is sent again is recognised however many other producers write meanwhile: they are refused instead.
#[test]
fn who_may_still_send_again_is_remembered_and_new_producers_are_refused() {
    let mut partition = Partition::default();
    let last = PRODUCERS_MAX as i64;
    for id in 1..=last {
        partition.append(id, 0).unwrap();
    }
    let rows = partition.store.rows();
    assert_eq!(partition.append(last + 1, 0), Err(PartitionRefusal::TooManyProducers { producer_id: last + 1 }));
    assert_eq!(partition.store.rows(), rows);
    assert_eq!(partition.append(1, 0), Ok(PartitionAnswer::Duplicate { base_offset: 0 }));
    // Who is known goes on, and who needs nothing, too.
    assert!(matches!(partition.append(2, 1), Ok(PartitionAnswer::Appended { .. })));
    let plain = partition.machine.apply(item::BATCH, &batch(None, 1, 0), &mut partition.store).outcome;
    assert!(matches!(plain, Ok(PartitionAnswer::Appended { .. })));
    assert_eq!(partition.machine.producer_count(), PRODUCERS_MAX);

    partition.clock(PRODUCER_IDLE_MS_MAX);
    assert!(matches!(partition.append(last + 1, 0), Ok(PartitionAnswer::Appended { .. })));
    partition.check_restore();
}

/// Time that nobody has proven forgets nobody, and what happened in it counts from then.
#[test]
fn producers_are_forgotten_by_proven_time_alone() {
    let mut partition = Partition::default();
    partition.append(1, 0).unwrap();
    partition.stamp(1_000, 10 * PRODUCER_IDLE_MS_MAX);
    assert_eq!(partition.append(1, 0), Ok(PartitionAnswer::Duplicate { base_offset: 0 }));
    partition.append(2, 0).unwrap();
    // It was right.
    partition.stamp(10 * PRODUCER_IDLE_MS_MAX + 1, 10 * PRODUCER_IDLE_MS_MAX + 1);
    assert_eq!(partition.append(1, 1), Err(PartitionRefusal::UnknownProducer { producer_id: 1, got: 1 }));
    assert!(matches!(partition.append(2, 1), Ok(PartitionAnswer::Appended { .. })));
    partition.check_restore();
}

#[test]
fn idle_producers_are_forgotten_piece_by_piece() {
    let mut partition = Partition::default();
    for id in 1..=1_500 {
        partition.append(id, 0).unwrap();
    }
    partition.clock(PRODUCER_IDLE_MS_MAX - 1);
    assert_eq!(partition.machine.producer_count(), 1_500);
    partition.append(7, 1).unwrap();
    partition.clock(PRODUCER_IDLE_MS_MAX);
    assert_eq!(partition.machine.producer_count(), 500, "one entry forgets at most a thousand");
    partition.clock(PRODUCER_IDLE_MS_MAX + 1);
    assert_eq!(partition.machine.producer_count(), 1, "who appended since stays");
    partition.append(7, 2).unwrap();
    partition.check_restore();
}

#[test]
fn groups_and_metadata_are_bounded() {
    let mut partition = Partition::default();
    for group in 0..GROUPS_MAX {
        partition.commit(format!("group-{group}"), String::new()).unwrap();
    }
    let refused = Err(PartitionRefusal::TooManyGroups { groups_max: GROUPS_MAX });
    assert_eq!(partition.commit("one-more".to_owned(), String::new()), refused);
    partition.commit("group-0".to_owned(), "m".repeat(METADATA_BYTES_MAX)).unwrap();
    let refused = Err(PartitionRefusal::MetadataTooLarge { bytes: METADATA_BYTES_MAX + 1 });
    assert_eq!(partition.commit("group-0".to_owned(), "m".repeat(METADATA_BYTES_MAX + 1)), refused);
    partition.check_restore();
}

#[test]
fn offsets_end() {
    let rows = |next_offset| {
        let meta = v1::PartitionMeta { next_offset, ..Default::default() };
        vec![(flotilla_machines::table::PARTITION_META, vec![], prost::Message::encode_to_vec(&meta))]
    };
    let machine = PartitionMachine::restore(rows(partition::OFFSET_MAX - 1)).unwrap();
    let mut partition = Partition { machine, store: Store::default() };
    let mut append = |records| partition.machine.apply(item::BATCH, &batch(None, records, 0), &mut partition.store).outcome;
    assert_eq!(append(2), Err(PartitionRefusal::OffsetsExhausted));
    assert!(append(1).is_ok());
    assert_eq!(append(1), Err(PartitionRefusal::OffsetsExhausted));
    assert!(PartitionMachine::restore(rows(partition::OFFSET_MAX + 1)).is_err());
}

#[derive(Default)]
struct Controller {
    machine: ControllerMachine,
    store: Store,
    topics: u128,
}

impl Controller {
    fn run(&mut self, command: ControllerCommand) -> ControllerOutcome {
        let outcome = self.machine.apply(item::COMMAND, &controller::command_payload(command), &mut self.store).outcome;
        self.store.take_changes();
        outcome
    }

    fn register(&mut self, node_id: u64) -> ControllerOutcome {
        self.run(ControllerCommand::RegisterNode(v1::RegisterNode {
            node_id,
            address: format!("host{node_id}:1"),
            ..Default::default()
        }))
    }

    fn create(&mut self, partitions: usize) -> ControllerOutcome {
        self.topics += 1;
        self.run(ControllerCommand::CreateTopic(v1::CreateTopic {
            name: format!("topic-{}", self.topics),
            topic_id: self.topics.to_be_bytes().to_vec().into(),
            replication_factor: 1,
            config: None,
            partitions: vec![v1::Replicas { nodes: vec![1] }; partitions],
        }))
    }
}

#[test]
fn topics_are_bounded() {
    let mut controller = Controller::default();
    controller.register(1).unwrap();
    for _ in 0..TOPICS_MAX {
        controller.create(1).unwrap();
    }
    assert_eq!(controller.create(1), Err(ControllerRefusal::LimitReached { what: "topics", max: TOPICS_MAX }));
    assert_eq!(ControllerMachine::restore(controller.store.rows()).unwrap(), controller.machine);
}

#[test]
fn partitions_are_bounded() {
    let mut controller = Controller::default();
    controller.register(1).unwrap();
    let too_many = PARTITIONS_PER_TOPIC_MAX + 1;
    let refused = ControllerRefusal::InvalidPartitionCount { partitions: too_many, partitions_max: PARTITIONS_PER_TOPIC_MAX };
    assert_eq!(controller.create(too_many), Err(refused));
    for _ in 0..PARTITIONS_MAX / PARTITIONS_PER_TOPIC_MAX {
        controller.create(PARTITIONS_PER_TOPIC_MAX).unwrap();
    }
    assert_eq!(controller.create(1), Err(ControllerRefusal::LimitReached { what: "partitions", max: PARTITIONS_MAX }));
}

#[test]
fn nodes_are_bounded() {
    let mut controller = Controller::default();
    for node_id in 1..=NODES_MAX as u64 {
        controller.register(node_id).unwrap();
    }
    let refused = Err(ControllerRefusal::LimitReached { what: "nodes", max: NODES_MAX });
    assert_eq!(controller.register(NODES_MAX as u64 + 1), refused);
    controller.register(1).unwrap();
}

#[test]
fn removed_nodes_are_remembered_up_to_a_limit() {
    let mut controller = Controller::default();
    controller.register(1).unwrap();
    let remove = |node_id| ControllerCommand::RemoveNode(v1::RemoveNode { node_id });
    let last = NODES_REMOVED_MAX as u64 + 2;
    for node_id in 2..last {
        controller.register(node_id).unwrap();
        controller.run(remove(node_id)).unwrap();
    }
    controller.register(last).unwrap();
    assert_eq!(controller.run(remove(last)), Err(NodeRefusal::TooManyRemoved { node_id: last }.into()));
    assert_eq!(controller.register(2), Err(NodeRefusal::Removed { node_id: 2 }.into()));
    assert_eq!(ControllerMachine::restore(controller.store.rows()).unwrap(), controller.machine);
}
