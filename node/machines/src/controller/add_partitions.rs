//! More partitions for a topic.

use flotilla_proto::internal::v1;

use super::image::Topic;
use super::limits::PARTITIONS_PER_TOPIC_MAX;
use super::{ControllerAnswer, ControllerMachine, ControllerOutcome, ControllerRefusal};
use crate::rows::Rows;

impl ControllerMachine {
    pub(super) fn add_partitions(&mut self, command: v1::AddPartitions, rows: &mut dyn Rows) -> ControllerOutcome {
        let topic = self.topic(&command.name)?;
        let present = topic.partitions.len();
        let requested = command.partition_count as usize;
        if requested > PARTITIONS_PER_TOPIC_MAX {
            return Err(ControllerRefusal::InvalidPartitionCount {
                partitions: requested,
                partitions_max: PARTITIONS_PER_TOPIC_MAX,
            });
        }
        if requested <= present {
            return Err(ControllerRefusal::NotMorePartitions { name: command.name, partition_count: present, requested });
        }
        if requested - present != command.added.len() {
            return Err(ControllerRefusal::PlanOutdated { name: command.name, partition_count: present });
        }
        let added = self.place(command.added, present, topic.replication_factor)?;
        let mut topic = Topic::clone(topic);
        self.next_group_id += added.len() as u64;
        self.take_replica_ids(added.iter().map(|partition| partition.replicas.len() as u64).sum());
        topic.partitions.extend(added);
        Ok(ControllerAnswer::PartitionsAdded(self.put_topic(topic, rows)))
    }
}
