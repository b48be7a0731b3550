//! What must hold for the controller whatever it is asked to do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use common::Store;
use flotilla_machines::controller::{self, ControllerAnswer, ControllerMachine, Image, NodeState, command_payload};
use flotilla_machines::item;
use flotilla_proto::internal::v1;
use flotilla_proto::internal::v1::controller_command::Command;
use proptest::prelude::*;

type Item = (u8, Bytes);

fn any_name() -> impl Strategy<Value = String> {
    proptest::sample::select(&["a", "b", "c", "d", "."][..]).prop_map(str::to_owned)
}

/// Mostly one or two replicas on nodes that may be known; sometimes nonsense.
fn any_nodes() -> impl Strategy<Value = v1::Replicas> {
    let two = proptest::sample::subsequence(vec![1_u64, 2, 3, 4], 2).prop_shuffle();
    let nodes = prop_oneof![
        6 => (1_u64..5).prop_map(|node| vec![node]),
        6 => two,
        1 => proptest::collection::vec(0_u64..6, 0..4),
    ];
    nodes.prop_map(|nodes| v1::Replicas { nodes })
}

fn any_replicas() -> impl Strategy<Value = Vec<v1::Replicas>> {
    prop_oneof![
        4 => (any_nodes(), 1_usize..5).prop_map(|(nodes, count)| vec![nodes; count]),
        1 => proptest::collection::vec(any_nodes(), 0..5),
    ]
}

/// Partitions that may be there, rarely one that is not.
fn any_group() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 1_u64..8, 1 => 0_u64..30]
}

fn any_registration() -> impl Strategy<Value = Command> {
    // Mostly each node at its own address with its own data, so that nodes become known.
    let port = prop_oneof![6 => Just(None), 1 => (1_u64..6).prop_map(Some)];
    let directory = prop_oneof![6 => Just(None), 1 => (0_u8..3).prop_map(Some)];
    (0_u64..6, port, directory, 0_u8..2).prop_map(|(node_id, port, directory, rack)| {
        let directory = directory.unwrap_or(node_id as u8);
        Command::RegisterNode(v1::RegisterNode {
            node_id,
            address: format!("host:{}", port.unwrap_or(node_id)),
            peer_address: port.map(|port| format!("peer:{port}")).unwrap_or_default(),
            rack: format!("rack-{rack}"),
            directory_id: if directory == 0 { vec![] } else { vec![directory; 16] }.into(),
        })
    })
}

fn any_config() -> impl Strategy<Value = Option<v1::TopicConfig>> {
    let small = || proptest::option::of(0_u64..3);
    let config = (small(), proptest::option::of(1_000_u64..3_000), proptest::option::of(0_i32..4), small());
    proptest::option::of(config.prop_map(|(retention_ms, batch_bytes_max, timestamp_type, ahead)| v1::TopicConfig {
        retention_ms,
        retention_bytes: None,
        batch_bytes_max,
        timestamp_type,
        // Too far at 2.
        timestamp_ahead_max_ms: ahead.map(|ahead| ahead * 2_000_000_000_000),
    }))
}

fn any_command() -> impl Strategy<Value = Command> {
    prop_oneof![
        6 => any_registration(),
        4 => (any_name(), any::<u8>(), any_config(), any_replicas()).prop_map(|(name, id, config, partitions)| {
            let topic_id = vec![id % 16; 16].into();
            let replication_factor = partitions.first().map_or(1, |first| first.nodes.len() as u32);
            Command::CreateTopic(v1::CreateTopic { name, topic_id, replication_factor, config, partitions })
        }),
        2 => (0_u64..6, 0_i32..5).prop_map(|(node_id, state)| Command::SetNodeState(v1::SetNodeState { node_id, state })),
        1 => (0_u64..6).prop_map(|node_id| Command::RemoveNode(v1::RemoveNode { node_id })),
        6 => (any_group(), any_nodes()).prop_map(|(group_id, target)| {
            Command::StartMove(v1::StartMove { group_id, target: Some(target) })
        }),
        2 => any_group().prop_map(|group_id| Command::CancelMove(v1::CancelMove { group_id })),
        6 => (any_group(), any_nodes(), 0_u64..4).prop_map(|(group_id, nodes, move_epoch)| {
            Command::FinishMove(v1::FinishMove { group_id, replicas: Some(nodes), move_epoch })
        }),
        2 => (any_name(), any_config()).prop_map(|(name, config)| Command::AlterTopic(v1::AlterTopic { name, config })),
        3 => (any_name(), 0_u32..10, any_replicas()).prop_map(|(name, partition_count, added)| {
            Command::AddPartitions(v1::AddPartitions { name, partition_count, added })
        }),
        2 => any_name().prop_map(|name| Command::DeleteTopic(v1::DeleteTopic { name })),
        2 => Just(Command::BeginReplicaIds(v1::BeginReplicaIds {})),
        4 => (any_group(), proptest::collection::vec(0_u64..30, 0..8)).prop_map(|(group_id, replica_ids)| {
            let groups = vec![v1::EstablishedReplicas { group_id, replica_ids }];
            Command::EstablishReplicas(v1::EstablishReplicas { groups })
        }),
        4 => (any_group(), 0_u64..30).prop_map(|(group_id, replica_id)| {
            Command::RenewReplica(v1::RenewReplica { group_id, replica_id })
        }),
        1 => (0_u32..5).prop_map(|count| Command::AllocateProducerIds(v1::AllocateProducerIds { count })),
    ]
}

fn any_item() -> impl Strategy<Value = Item> {
    prop_oneof![
        12 => any_command().prop_map(|command| (item::COMMAND, command_payload(command))),
        1 => (0_i64..1_000).prop_map(|now_ms| (item::CLOCK, item::clock_payload(now_ms))),
        1 => (any::<u8>(), proptest::collection::vec(any::<u8>(), 0..40)).prop_map(|(kind, bytes)| (kind, bytes.into())),
    ]
}

/// Each partition has as many replicas as its topic says, each on a node of its own that is known; and so does its target.
/// No two nodes that stay have the same address, and no node that was removed is there.
fn check_layout(image: &Image) -> Result<(), TestCaseError> {
    for topic in image.topics() {
        for partition in &topic.partitions {
            for replicas in partition.target.iter().chain([&partition.replicas]) {
                let nodes: Vec<u64> = controller::nodes(replicas).collect();
                let distinct: BTreeSet<u64> = nodes.iter().copied().collect();
                prop_assert_eq!(distinct.len(), topic.replication_factor as usize);
                prop_assert_eq!(nodes.len(), distinct.len());
                prop_assert!(distinct.iter().all(|node_id| image.node(*node_id).is_some()), "{:?}", partition);
            }
            // It moves to where it is only because it is taken back from elsewhere, and nobody is left behind.
            prop_assert!(!partition.is_taken_back() || partition.hosts().count() >= partition.replicas.len(), "{:?}", partition);
            prop_assert!(partition.target.is_some() || partition.former.is_empty(), "{:?}", partition);
            prop_assert!(partition.former.iter().all(|replica| image.node(replica.node).is_some()), "{:?}", partition);
            let hosts: Vec<u64> = partition.hosts().collect();
            prop_assert_eq!(hosts.iter().collect::<BTreeSet<_>>().len(), hosts.len(), "{:?}", partition);
        }
    }
    let staying = || image.nodes().filter(|(_, node)| node.state != NodeState::Leaving);
    let addresses: BTreeSet<&str> = staying().map(|(_, node)| &*node.address).collect();
    let peer_addresses: BTreeSet<&str> = staying().map(|(_, node)| &*node.peer_address).collect();
    prop_assert_eq!((addresses.len(), peer_addresses.len()), (staying().count(), staying().count()));
    prop_assert!(image.nodes().all(|(node_id, _)| !image.removed(node_id)));
    Ok(())
}

/// The index by group, names and ids agree with the topics.
fn check_image(image: &Image) -> Result<BTreeSet<u64>, TestCaseError> {
    let mut group_ids = BTreeSet::new();
    let mut partition_count = 0;
    for topic in image.topics() {
        prop_assert_eq!(image.topic(&topic.name), Some(topic));
        prop_assert_eq!(image.topic_by_id(topic.id), Some(topic));
        for (partition, number) in topic.partitions.iter().zip(0..) {
            prop_assert_eq!(image.partition_of_group(partition.group_id), Some((topic, number)));
            prop_assert!(group_ids.insert(partition.group_id), "group {} holds two partitions", partition.group_id);
            partition_count += 1;
        }
    }
    prop_assert_eq!(image.partition_count(), partition_count);
    Ok(group_ids)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// The rows are the whole state: at any point a machine restored from them is the same and goes on in the same way.
    #[test]
    fn restored_machine_goes_on_as_the_live_one(items in proptest::collection::vec(any_item(), 1..80), cut in 0_usize..80) {
        let (before, after) = items.split_at(cut.min(items.len()));
        let (mut live, mut live_store) = (ControllerMachine::default(), Store::default());
        for (kind, payload) in before {
            live.apply(*kind, payload, &mut live_store);
        }
        let mut restored_store = live_store.clone();
        let mut rows = restored_store.rows();
        rows.reverse();
        let mut restored = ControllerMachine::restore(rows).unwrap();
        prop_assert_eq!(&restored, &live);
        for (kind, payload) in after {
            let expected = live.apply(*kind, payload, &mut live_store);
            prop_assert_eq!(restored.apply(*kind, payload, &mut restored_store), expected);
            prop_assert_eq!(restored_store.take_changes(), live_store.take_changes());
        }
        prop_assert_eq!(restored, live);
    }

    /// An image never changes once it was given out; its version counts the changes; what is refused changes nothing.
    #[test]
    fn images_are_immutable_and_counted(items in proptest::collection::vec(any_item(), 1..80)) {
        let (mut machine, mut store) = (ControllerMachine::default(), Store::default());
        for (kind, payload) in &items {
            let (held, before) = (machine.image(), machine.clone());
            let copy = Image::clone(&held);
            let outcome = machine.apply(*kind, payload, &mut store).outcome;
            let changes = store.take_changes();
            prop_assert_eq!(&*held, &copy);
            let rows = changes.iter().any(|(table, ..)| *table != flotilla_machines::table::CONTROLLER_META);
            let changed_image = rows || machine.image().next_replica_id() != held.next_replica_id();
            prop_assert_eq!(machine.image().version(), held.version() + u64::from(changed_image));
            if outcome.is_err() {
                prop_assert!(changes.is_empty());
                prop_assert_eq!(&machine, &before);
            }
            check_image(&machine.image())?;
            check_layout(&machine.image())?;
        }
    }

    /// Who was removed never comes back, and there is always somebody left.
    #[test]
    fn removed_nodes_stay_removed(items in proptest::collection::vec(any_item(), 1..120)) {
        let (mut machine, mut store) = (ControllerMachine::default(), Store::default());
        let mut removed: BTreeSet<u64> = BTreeSet::new();
        for (kind, payload) in &items {
            let before = machine.image();
            let nodes_before = before.nodes().len();
            if let Ok(ControllerAnswer::NodeRemoved { node_id }) = machine.apply(*kind, payload, &mut store).outcome {
                removed.insert(node_id);
            }
            let image = machine.image();
            // The id of a replica of the controller is kept from nodes, too.
            let renewed = image.nodes().filter(|(node_id, node)| {
                before.node(*node_id).is_some_and(|before| before.controller_replica != node.controller_replica)
            });
            removed.extend(renewed.map(|(_, node)| node.controller_replica));
            prop_assert!(removed.iter().all(|node_id| image.removed(*node_id)));
            prop_assert_eq!(image.removed_count(), removed.len());
            prop_assert!(nodes_before == 0 || image.nodes().len() > 0);
        }
    }

    /// Neither a Raft group nor a producer id is ever given out twice, not even after a deletion.
    #[test]
    fn ids_are_never_reused(items in proptest::collection::vec(any_item(), 1..120)) {
        let (mut machine, mut store) = (ControllerMachine::default(), Store::default());
        let mut owners: BTreeMap<u64, [u8; 16]> = BTreeMap::new();
        let mut highest_group = 0;
        let mut next_producer_id = 0;
        for (kind, payload) in &items {
            let before = check_image(&machine.image())?;
            let outcome = machine.apply(*kind, payload, &mut store).outcome;
            if let Ok(ControllerAnswer::ProducerIds { first, count }) = outcome {
                prop_assert!(first > 0 && first >= next_producer_id);
                next_producer_id = first + u64::from(count);
            }
            let image = machine.image();
            for group_id in check_image(&image)?.difference(&before) {
                prop_assert!(*group_id > highest_group, "group {} was given out before", group_id);
                highest_group = *group_id;
                owners.insert(*group_id, image.partition_of_group(*group_id).unwrap().0.id.0);
            }
            for (group_id, owner) in &owners {
                if let Some((topic, _)) = image.partition_of_group(*group_id) {
                    prop_assert_eq!(&topic.id.0, owner);
                }
            }
        }
    }

    /// Within a group no replica id is given out twice, whatever happens; who stays on a node stays who it is, who was named once
    /// and is no more never comes back, and what was counted on is never taken for something that may begin with nothing.
    #[test]
    fn replica_ids_are_never_reused(items in proptest::collection::vec(any_item(), 1..120)) {
        let (mut machine, mut store) = (ControllerMachine::default(), Store::default());
        let mut known: BTreeMap<(u64, u64), Known> = BTreeMap::new();
        machine.apply(item::COMMAND, &command_payload(Command::BeginReplicaIds(v1::BeginReplicaIds {})), &mut store);
        for (kind, payload) in &items {
            let next = machine.image().next_replica_id().unwrap();
            machine.apply(*kind, payload, &mut store);
            let image = machine.image();
            prop_assert!(image.next_replica_id() >= Some(next));
            let placed = image.topics().flat_map(|topic| &topic.partitions);
            let mut named: Vec<(u64, controller::Replica)> =
                placed.flat_map(|partition| partition.all().map(|replica| (partition.group_id, replica))).collect();
            named.extend(image.nodes().map(|(node, of)| (0, controller::Replica { id: of.controller_replica, node, fresh: false })));
            for (group_id, replica) in &named {
                match known.get_mut(&(*group_id, replica.id)) {
                    None => {
                        let first_of_node = *group_id == 0 && replica.id == replica.node;
                        prop_assert!(replica.id >= next || first_of_node, "{:?} of group {}", replica, group_id);
                        prop_assert!(Some(replica.id) < image.next_replica_id() || first_of_node);
                        known.insert((*group_id, replica.id), Known { replica: *replica, gone: false });
                    }
                    Some(known) => {
                        prop_assert!(!known.gone, "{:?} of group {} is back", replica, group_id);
                        prop_assert_eq!(known.replica.node, replica.node);
                        prop_assert!(known.replica.fresh || !replica.fresh, "{:?} of group {}", replica, group_id);
                        known.replica = *replica;
                    }
                }
            }
            for ((group_id, id), known) in &mut known {
                known.gone |= !named.iter().any(|(group, replica)| group == group_id && replica.id == *id);
            }
        }
    }

    /// Once a group counts on somebody, there is always somebody on whom it counts: nobody begins it anew.
    #[test]
    fn what_was_founded_stays_founded(items in proptest::collection::vec(any_item(), 1..120)) {
        let (mut machine, mut store) = (ControllerMachine::default(), Store::default());
        machine.apply(item::COMMAND, &command_payload(Command::BeginReplicaIds(v1::BeginReplicaIds {})), &mut store);
        let mut founded: BTreeSet<u64> = BTreeSet::new();
        for (kind, payload) in &items {
            machine.apply(*kind, payload, &mut store);
            for partition in machine.image().topics().flat_map(|topic| &topic.partitions) {
                if partition.is_founded() {
                    founded.insert(partition.group_id);
                }
                prop_assert!(!founded.contains(&partition.group_id) || partition.is_founded(), "{:?}", partition);
            }
        }
    }
}

/// A replica that was named once.
#[derive(Debug)]
struct Known {
    replica: controller::Replica,
    gone: bool,
}
