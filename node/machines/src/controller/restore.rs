//! From rows to machine, and the stored form of a topic.

use std::sync::Arc;

use flotilla_proto::internal::v1;

use super::image::{Image, Partition, Topic, TopicId};
use super::node::{DirectoryId, Node, NodeState};
use super::{ControllerMachine, GROUP_ID_MAX, PRODUCER_ID_MAX, REPLICA_ID_MAX, Replica, TopicConfig};
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
    check_replica_ids(&image)?;
    machine.image = Arc::new(image);
    Ok(machine)
}

fn restore_meta(machine: &mut ControllerMachine, image: &mut Image, key: &[u8], value: &[u8]) -> Result<(), RestoreError> {
    let meta: v1::ControllerMeta = rows::decode(table::CONTROLLER_META, key, value)?;
    let fresh = ControllerMachine::default();
    let group_ids = fresh.next_group_id..=GROUP_ID_MAX;
    let producer_ids = fresh.next_producer_id..=PRODUCER_ID_MAX;
    if meta.next_replica_id > REPLICA_ID_MAX {
        return Err(RestoreError::damaged(table::CONTROLLER_META, key, "the next replica id is out of range"));
    }
    if key != META_KEY || !group_ids.contains(&meta.next_group_id) || !producer_ids.contains(&meta.next_producer_id) {
        let reason = "its key is not empty, or an id is out of range";
        return Err(RestoreError::damaged(table::CONTROLLER_META, key, reason));
    }
    image.version = meta.version;
    image.set_next_replica_id(meta.next_replica_id);
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
    let controller_replica = if stored.controller_replica == 0 { node_id } else { stored.controller_replica };
    let (address, rack) = (stored.address, stored.rack);
    image.insert_node(node_id, Node { address, peer_address, rack, directory_id, state, controller_replica });
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

/// No id is there that would be handed out once more.
fn check_replica_ids(image: &Image) -> Result<(), RestoreError> {
    let Some(next) = image.next_replica_id() else { return Ok(()) };
    for topic in image.topics() {
        let mut replicas = topic.partitions.iter().flat_map(Partition::all);
        if let Some(replica) = replicas.find(|replica| (next..REPLICA_ID_MAX).contains(&replica.id)) {
            let reason = format!("replica id {} was not handed out yet: the next one is {next}", replica.id);
            return Err(RestoreError::damaged(table::TOPIC, topic.name.as_bytes(), reason));
        }
    }
    Ok(())
}

impl From<v1::StoredPartition> for Partition {
    fn from(stored: v1::StoredPartition) -> Self {
        let v1::StoredPartition { group_id, move_epoch, .. } = stored;
        if stored.placed.is_empty() {
            // A row from before replicas had ids of their own.
            let of_nodes = |nodes: Vec<u64>| nodes.into_iter().map(Replica::of_node).collect();
            let replicas = of_nodes(stored.replicas.unwrap_or_default().nodes);
            let target = stored.target.map(|target| of_nodes(target.nodes));
            return Self { group_id, replicas, target, former: of_nodes(stored.former), move_epoch };
        }
        let restored = |replicas: Vec<v1::StoredReplica>| replicas.into_iter().map(Replica::from).collect();
        let target = stored.moves_to.map(|target| restored(target.replicas));
        Self { group_id, replicas: restored(stored.placed), target, former: restored(stored.left_over), move_epoch }
    }
}

impl From<&Topic> for v1::StoredTopic {
    fn from(topic: &Topic) -> Self {
        let all = |replicas: &[Replica]| replicas.iter().map(v1::StoredReplica::from).collect::<Vec<_>>();
        let stored = |partition: &Partition| v1::StoredPartition {
            group_id: partition.group_id,
            move_epoch: partition.move_epoch,
            placed: all(&partition.replicas),
            moves_to: partition.target.as_ref().map(|target| v1::StoredReplicas { replicas: all(target) }),
            left_over: all(&partition.former),
            ..v1::StoredPartition::default()
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
