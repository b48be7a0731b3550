//! Rows that contradict themselves or each other: no machine starts from them, and the error names the row.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use common::Store;
use flotilla_machines::controller::{ControllerMachine, Node, NodeState, Replica, TopicConfig, command_payload};
use flotilla_machines::partition::PartitionMachine;
use flotilla_machines::{RestoreError, item, table};
use flotilla_proto::internal::v1;
use flotilla_proto::internal::v1::controller_command::Command;
use prost::Message;

type Row = (u8, Vec<u8>, Vec<u8>);

fn row(table: u8, key: &[u8], value: impl Message) -> Row {
    (table, key.to_vec(), value.encode_to_vec())
}

/// The table of the row that partition or controller refuse.
fn damaged<M>(restored: Result<M, RestoreError>) -> (u8, String) {
    match restored {
        Err(RestoreError::Damaged { table, reason, .. }) => (table, reason),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("restored from damaged rows"),
    }
}

fn partition(row: Row) -> (u8, String) {
    damaged(PartitionMachine::restore([row]))
}

#[test]
fn unknown_tables() {
    let rows = || [row(table::TOPIC, b"a", v1::StoredTopic::default())];
    assert_eq!(PartitionMachine::restore(rows()), Err(RestoreError::UnknownTable { table: table::TOPIC }));
    let rows = || [row(table::GROUP, b"a", v1::StoredGroup::default())];
    assert_eq!(ControllerMachine::restore(rows()), Err(RestoreError::UnknownTable { table: table::GROUP }));
}

#[test]
fn partition_meta() {
    let meta = |log_start_offset| v1::PartitionMeta { next_offset: 5, log_start_offset, ..Default::default() };
    assert!(PartitionMachine::restore([row(table::PARTITION_META, b"", meta(5))]).is_ok());
    for damaged in [row(table::PARTITION_META, b"", meta(6)), row(table::PARTITION_META, b"x", meta(5))] {
        assert_eq!(partition(damaged).0, table::PARTITION_META);
    }
    assert_eq!(partition((table::PARTITION_META, vec![], vec![0xff])).0, table::PARTITION_META);
    for (lost_from, lost_to) in [(3, 2), (3, 6)] {
        let meta = v1::PartitionMeta { lost_from, lost_to, ..meta(5) };
        assert_eq!(partition(row(table::PARTITION_META, b"", meta)).0, table::PARTITION_META);
    }
}

#[test]
fn producers() {
    let producer = |epoch, batches, base_sequence| v1::StoredProducer {
        epoch,
        last_append_ms: 0,
        batches: vec![v1::StoredBatch { base_sequence, record_count: 1, base_offset: 0 }; batches],
    };
    let id = 7_u64.to_be_bytes();
    assert!(PartitionMachine::restore([row(table::PRODUCER, &id, producer(1, 5, 0))]).is_ok());
    for damaged in [
        row(table::PRODUCER, &id, producer(1, 0, 0)),
        row(table::PRODUCER, &id, producer(1, 6, 0)),
        row(table::PRODUCER, &id, producer(1 << 15, 1, 0)),
        row(table::PRODUCER, &id, producer(1, 1, 1 << 31)),
        row(table::PRODUCER, &u64::MAX.to_be_bytes(), producer(1, 1, 0)),
        row(table::PRODUCER, &id[1..], producer(1, 1, 0)),
    ] {
        assert_eq!(partition(damaged).0, table::PRODUCER);
    }
}

#[test]
fn groups() {
    let group = |fence| v1::StoredGroup { fence, committed: None };
    assert!(PartitionMachine::restore([row(table::GROUP, b"g", group(Some(v1::GroupFence::default())))]).is_ok());
    assert_eq!(partition(row(table::GROUP, b"g", group(None))).0, table::GROUP);
    assert_eq!(partition(row(table::GROUP, b"\xff", group(Some(v1::GroupFence::default())))).0, table::GROUP);
}

fn controller_meta(next_group_id: u64, next_producer_id: u64) -> Row {
    let meta = v1::ControllerMeta { version: 1, next_group_id, next_producer_id, ..Default::default() };
    row(table::CONTROLLER_META, b"", meta)
}

fn topic(id: u8, group_ids: &[u64]) -> v1::StoredTopic {
    let partition = |group_id: &u64| v1::StoredPartition { group_id: *group_id, ..Default::default() };
    v1::StoredTopic {
        topic_id: vec![id; 16].into(),
        replication_factor: 1,
        config: Some(TopicConfig::default().into()),
        created_at_ms: 0,
        partitions: group_ids.iter().map(partition).collect(),
    }
}

#[test]
fn controller_meta_rows() {
    assert!(ControllerMachine::restore([controller_meta(1, 1)]).is_ok());
    for (group_id, producer_id) in [(0, 1), (1, 0), (u64::MAX, 1), (1, u64::MAX)] {
        assert_eq!(damaged(ControllerMachine::restore([controller_meta(group_id, producer_id)])).0, table::CONTROLLER_META);
    }
}

#[test]
fn nodes() {
    let node = || v1::StoredNode { address: "host:1".to_owned(), ..Default::default() };
    let restore = |node| ControllerMachine::restore([row(table::NODE, &7_u64.to_be_bytes(), node)]);
    assert_eq!(damaged(ControllerMachine::restore([row(table::NODE, b"1", node())])).0, table::NODE);
    assert_eq!(damaged(restore(v1::StoredNode { state: 4, ..node() })).0, table::NODE);
    assert_eq!(damaged(restore(v1::StoredNode { directory_id: vec![1; 15].into(), ..node() })).0, table::NODE);

    let image = restore(v1::StoredNode { removed: true, ..Default::default() }).unwrap().image();
    assert!(image.removed(7) && image.node(7).is_none());
}

#[test]
fn nodes_of_the_version_before_racks() {
    let node = v1::StoredNode { address: "host:1".to_owned(), ..Default::default() };
    let image = ControllerMachine::restore([row(table::NODE, &7_u64.to_be_bytes(), node)]).unwrap().image();
    let expected = Node {
        address: "host:1".to_owned(),
        peer_address: "host:1".to_owned(),
        rack: String::new(),
        directory_id: None,
        state: NodeState::Active,
        controller_replica: 7,
    };
    assert_eq!(image.node(7), Some(&expected));
}

/// Bytes that the version before wrote: nodes 7 and 300 hold group 1, it moves to 300 and 9, and 8 is left over.
const TOPIC_OF_BEFORE: &[u8] = b"\x0a\x10\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x10\x02\x2a\x15\
\x08\x01\x12\x05\x0a\x03\x07\xac\x02\x1a\x05\x0a\x03\xac\x02\x09\x22\x01\x08\x28\x03";

#[test]
fn replicas_of_the_version_before_replica_ids_are_called_as_their_nodes_and_new_ones_otherwise() {
    let node = |id: u64| {
        let node = v1::StoredNode { address: format!("host-{id}:1"), ..Default::default() };
        row(table::NODE, &id.to_be_bytes(), node)
    };
    let rows =
        [controller_meta(2, 1), node(7), node(8), node(9), node(300), (table::TOPIC, b"a".to_vec(), TOPIC_OF_BEFORE.to_vec())];
    let mut machine = ControllerMachine::restore(rows).unwrap();
    let of_node = |node: u64| Replica { id: node, node, fresh: false };
    let partition = machine.image().partition(1).unwrap().clone();
    assert_eq!(partition.replicas, [7, 300].map(of_node));
    assert_eq!(partition.target, Some([300, 9].map(of_node).to_vec()));
    assert_eq!((partition.former, partition.move_epoch), (vec![of_node(8)], 3));
    assert_eq!(machine.image().next_replica_id(), None);

    let mut store = Store::default();
    let mut run = |command| machine.apply(item::COMMAND, &command_payload(command), &mut store).outcome.unwrap();
    run(Command::BeginReplicaIds(v1::BeginReplicaIds {}));
    run(Command::CancelMove(v1::CancelMove { group_id: 1 }));
    run(Command::StartMove(v1::StartMove { group_id: 1, target: Some(v1::Replicas { nodes: vec![8, 7] }) }));
    let image = machine.image();
    let partition = image.partition(1).unwrap();
    assert_eq!(partition.target, Some([8, 7].map(of_node).to_vec()), "who is there already stays who it is");
    assert_eq!((partition.former.clone(), image.next_replica_id()), (vec![of_node(9)], Some(301)));
}

#[test]
fn topics() {
    let restore = |a: v1::StoredTopic, b: v1::StoredTopic| {
        ControllerMachine::restore([controller_meta(10, 1), row(table::TOPIC, b"a", a), row(table::TOPIC, b"b", b)])
    };
    let good = || topic(1, &[1, 2, 9]);
    assert!(restore(good(), topic(2, &[3, 4])).is_ok());
    let short_id = v1::StoredTopic { topic_id: vec![2; 15].into(), ..topic(2, &[3]) };
    let config = v1::TopicConfig { timestamp_type: Some(9), ..Default::default() };
    let bad_config = v1::StoredTopic { config: Some(config), ..topic(2, &[3]) };
    for (bad, why) in [
        (short_id, "16 bytes"),
        (bad_config, "timestamp type 9"),
        (topic(1, &[3]), "same id"),
        (topic(2, &[3, 2]), "group 2"),
        (topic(2, &[3, 3]), "group 3"),
        (topic(2, &[10]), "group 10"),
        (topic(2, &[u64::MAX, 0]), "group"),
    ] {
        let (table, reason) = damaged(restore(good(), bad));
        assert_eq!(table, table::TOPIC);
        assert!(reason.contains(why), "{reason}");
    }
    let bad_name = row(table::TOPIC, b"a/b", good());
    assert_eq!(damaged(ControllerMachine::restore([controller_meta(10, 1), bad_name])).0, table::TOPIC);
}
