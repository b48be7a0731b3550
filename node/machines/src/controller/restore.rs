//! From rows to machine, and the stored form of a topic.

use std::sync::Arc;

use flotilla_proto::internal::v1;

use super::image::{Image, Partition, Topic, TopicId};
use super::node::{DirectoryId, Node, NodeState};
use super::{ControllerMachine, GROUP_ID_MAX, PRODUCER_ID_MAX, TopicConfig};
use crate::name;
use crate::rows::{self, META_KEY, RestoreError, table};

pub(super) fn restore(rows: impl IntoIterator<Item = (u8, Vec<u8>, Vec<u8>)>) -> Result<ControllerMachine, RestoreError> {
    let mut machine = ControllerMachine::default();
    let mut image = Image::default();
    for (table, key, value) in rows {
        match table {
            table::CONTROLLER_META => restore_meta(&mut machine, &mut image, &key, &value)?,
            table::NODE => restore_node(&mut image, &key, &value)?,
            table::TOPIC => restore_topic(&mut image, &key, &value)?,
            table => return Err(RestoreError::UnknownTable { table }),
        }
    }
    check_groups(&machine, &image)?;
    machine.image = Arc::new(image);
    Ok(machine)
}

fn restore_meta(machine: &mut ControllerMachine, image: &mut Image, key: &[u8], value: &[u8]) -> Result<(), RestoreError> {
    let meta: v1::ControllerMeta = rows::decode(table::CONTROLLER_META, key, value)?;
    let fresh = ControllerMachine::default();
    let group_ids = fresh.next_group_id..=GROUP_ID_MAX;
    let producer_ids = fresh.next_producer_id..=PRODUCER_ID_MAX;
    if key != META_KEY || !group_ids.contains(&meta.next_group_id) || !producer_ids.contains(&meta.next_producer_id) {
        let reason = "its key is not empty, or an id is out of range";
        return Err(RestoreError::damaged(table::CONTROLLER_META, key, reason));
    }
    image.version = meta.version;
    machine.now_ms = meta.now_ms;
    machine.next_group_id = meta.next_group_id;
    machine.next_producer_id = meta.next_producer_id;
    Ok(())
}

fn restore_node(image: &mut Image, key: &[u8], value: &[u8]) -> Result<(), RestoreError> {
    let node_id = rows::parse_number_key(table::NODE, key)?;
    let stored: v1::StoredNode = rows::decode(table::NODE, key, value)?;
    let damaged = |reason: &str| RestoreError::damaged(table::NODE, key, reason);
    if stored.removed {
        image.remove_node(node_id);
        return Ok(());
    }
    let directory_id =
        DirectoryId::parse(&stored.directory_id).map_err(|()| damaged("the directory id does not have 16 bytes"))?;
    // Rows from before nodes had states and addresses for peers: such a node was active, and reached at its one address.
    let state = match stored.state {
        0 => NodeState::Active,
        code => NodeState::parse(code).ok_or_else(|| damaged("the node's state is unknown"))?,
    };
    let peer_address = if stored.peer_address.is_empty() { stored.address.clone() } else { stored.peer_address };
    image.insert_node(node_id, Node { address: stored.address, peer_address, rack: stored.rack, directory_id, state });
    Ok(())
}

fn restore_topic(image: &mut Image, key: &[u8], value: &[u8]) -> Result<(), RestoreError> {
    let damaged = |reason: &dyn ToString| RestoreError::damaged(table::TOPIC, key, reason.to_string());
    let name = rows::parse_name_key(table::TOPIC, key)?;
    name::check_topic(name).map_err(|error| damaged(&error))?;
    let stored: v1::StoredTopic = rows::decode(table::TOPIC, key, value)?;
    let id =
        <[u8; 16]>::try_from(&stored.topic_id[..]).map(TopicId).map_err(|_| damaged(&"the topic id does not have 16 bytes"))?;
    if image.topic_by_id(id).is_some() {
        return Err(damaged(&"another topic has the same id"));
    }
    let config = TopicConfig::default().with(&stored.config.unwrap_or_default()).map_err(|error| damaged(&error))?;
    let partitions = stored.partitions.into_iter().map(Partition::from);
    image.insert_topic(Arc::new(Topic {
        name: name.into(),
        id,
        replication_factor: stored.replication_factor,
        config,
        created_at_ms: stored.created_at_ms,
        partitions: partitions.collect(),
    }));
    Ok(())
}

/// Each partition has a group of its own, out of those handed out.
fn check_groups(machine: &ControllerMachine, image: &Image) -> Result<(), RestoreError> {
    for topic in image.topics() {
        for (partition, number) in topic.partitions.iter().zip(0..) {
            let group_id = partition.group_id;
            let own = image.partition_of_group(group_id).is_some_and(|(other, at)| other.name == topic.name && at == number);
            if !own || group_id >= machine.next_group_id {
                let reason = format!("Raft group {group_id} of partition {number} is not its own");
                return Err(RestoreError::damaged(table::TOPIC, topic.name.as_bytes(), reason));
            }
        }
    }
    Ok(())
}

impl From<v1::StoredPartition> for Partition {
    fn from(stored: v1::StoredPartition) -> Self {
        Self {
            group_id: stored.group_id,
            replicas: stored.replicas.unwrap_or_default().nodes,
            target: stored.target.map(|target| target.nodes),
            former: stored.former,
            move_epoch: stored.move_epoch,
        }
    }
}

impl From<&Topic> for v1::StoredTopic {
    fn from(topic: &Topic) -> Self {
        let stored = |partition: &Partition| v1::StoredPartition {
            group_id: partition.group_id,
            replicas: Some(v1::Replicas { nodes: partition.replicas.clone() }),
            target: partition.target.clone().map(|nodes| v1::Replicas { nodes }),
            former: partition.former.clone(),
            move_epoch: partition.move_epoch,
        };
        Self {
            topic_id: topic.id.0.to_vec().into(),
            replication_factor: topic.replication_factor,
            config: Some(topic.config.into()),
            created_at_ms: topic.created_at_ms,
            partitions: topic.partitions.iter().map(stored).collect(),
        }
    }
}
