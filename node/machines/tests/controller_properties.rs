//! What must hold for the controller whatever it is asked to do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use common::Store;
use flotilla_machines::controller::{ControllerAnswer, ControllerMachine, Image, command_payload};
use flotilla_machines::item;
use flotilla_proto::internal::v1;
use flotilla_proto::internal::v1::controller_command::Command;
use proptest::prelude::*;

type Item = (u8, Bytes);

fn any_name() -> impl Strategy<Value = String> {
    proptest::sample::select(&["a", "b", "c", "d", "."][..]).prop_map(str::to_owned)
}

fn any_replicas() -> impl Strategy<Value = Vec<v1::Replicas>> {
    // Mostly one replica on a node that may be known; sometimes nonsense.
    let nodes = prop_oneof![8 => (1_u64..4).prop_map(|node| vec![node]), 1 => proptest::collection::vec(0_u64..5, 0..4)];
    proptest::collection::vec(nodes.prop_map(|nodes| v1::Replicas { nodes }), 0..5)
}

fn any_config() -> impl Strategy<Value = Option<v1::TopicConfig>> {
    let config = (proptest::option::of(0_u64..3), proptest::option::of(1_000_u64..3_000), proptest::option::of(0_i32..4));
    proptest::option::of(config.prop_map(|(retention_ms, batch_bytes_max, timestamp_type)| v1::TopicConfig {
        retention_ms,
        retention_bytes: None,
        batch_bytes_max,
        timestamp_type,
    }))
}

fn any_command() -> impl Strategy<Value = Command> {
    prop_oneof![
        2 => (0_u64..4, 0_u16..3).prop_map(|(node_id, port)| {
            Command::RegisterNode(v1::RegisterNode { node_id, address: format!("host:{port}"), ..Default::default() })
        }),
        4 => (any_name(), any::<u8>(), any_config(), any_replicas()).prop_map(|(name, id, config, partitions)| {
            let topic_id = vec![id % 16; 16].into();
            Command::CreateTopic(v1::CreateTopic { name, topic_id, replication_factor: 1, config, partitions })
        }),
        2 => (any_name(), any_config()).prop_map(|(name, config)| Command::AlterTopic(v1::AlterTopic { name, config })),
        3 => (any_name(), 0_u32..10, any_replicas()).prop_map(|(name, partition_count, added)| {
            Command::AddPartitions(v1::AddPartitions { name, partition_count, added })
        }),
        2 => any_name().prop_map(|name| Command::DeleteTopic(v1::DeleteTopic { name })),
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
            let changed_image = changes.iter().any(|(table, ..)| *table != flotilla_machines::table::CONTROLLER_META);
            prop_assert_eq!(machine.image().version(), held.version() + u64::from(changed_image));
            if outcome.is_err() {
                prop_assert!(changes.is_empty());
                prop_assert_eq!(&machine, &before);
            }
            check_image(&machine.image())?;
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
}
