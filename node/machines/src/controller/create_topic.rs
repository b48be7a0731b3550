//! A new topic.

use flotilla_proto::internal::v1;

use super::image::{Topic, TopicId};
use super::limits::{PARTITIONS_PER_TOPIC_MAX, TOPICS_MAX};
use super::{ControllerAnswer, ControllerMachine, ControllerOutcome, ControllerRefusal, TopicConfig};
use crate::name;
use crate::rows::Rows;

impl ControllerMachine {
    pub(super) fn create_topic(&mut self, command: v1::CreateTopic, rows: &mut dyn Rows) -> ControllerOutcome {
        self.check_new_topic(&command)?;
        let id = self.new_topic_id(&command.topic_id)?;
        Self::check_replication_factor(command.replication_factor)?;
        let change = command.config.unwrap_or_default();
        let config = TopicConfig::default().with(&change)?;
        let partitions = self.place(command.partitions, 0, command.replication_factor)?;
        self.next_group_id += partitions.len() as u64;
        self.take_replica_ids(partitions.iter().map(|partition| partition.replicas.len() as u64).sum());
        let topic = Topic {
            name: command.name.into(),
            id,
            replication_factor: command.replication_factor,
            config,
            created_at_ms: self.now_ms,
            partitions,
        };
        Ok(ControllerAnswer::TopicCreated(self.put_topic(topic, rows)))
    }

    fn check_new_topic(&self, command: &v1::CreateTopic) -> Result<(), ControllerRefusal> {
        let name = &command.name;
        let partitions = command.partitions.len();
        name::check_topic(name).map_err(|why| ControllerRefusal::InvalidName { name: name.clone(), why })?;
        if let Some(existing) = self.image.topic(name) {
            return Err(ControllerRefusal::TopicExists {
                name: name.clone(),
                partition_count: existing.partitions.len(),
                same_layout: existing.partitions.len() == partitions,
            });
        }
        if self.image.topics().len() >= TOPICS_MAX {
            return Err(ControllerRefusal::LimitReached { what: "topics", max: TOPICS_MAX });
        }
        if !(1..=PARTITIONS_PER_TOPIC_MAX).contains(&partitions) {
            return Err(ControllerRefusal::InvalidPartitionCount { partitions, partitions_max: PARTITIONS_PER_TOPIC_MAX });
        }
        Ok(())
    }

    fn new_topic_id(&self, bytes: &[u8]) -> Result<TopicId, ControllerRefusal> {
        let id = bytes.try_into().ok().map(TopicId);
        id.filter(|id| self.image.topic_by_id(*id).is_none())
            .ok_or_else(|| ControllerRefusal::InvalidTopicId { topic_id: bytes.to_vec() })
    }
}
