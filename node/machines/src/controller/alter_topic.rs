//! Changing a topic's configuration.

use flotilla_proto::internal::v1;

use super::image::Topic;
use super::{ControllerAnswer, ControllerMachine, ControllerOutcome};
use crate::rows::Rows;

impl ControllerMachine {
    /// What the command leaves out stays. To put a field back to its default, the leader sends the default: only so
    /// do nodes of different versions store the same.
    pub(super) fn alter_topic(&mut self, command: &v1::AlterTopic, rows: &mut dyn Rows) -> ControllerOutcome {
        let topic = self.topic(&command.name)?;
        let change = command.config.unwrap_or_default();
        let config = topic.config.with(&change)?;
        if config == topic.config {
            return Ok(ControllerAnswer::TopicAltered(topic.clone()));
        }
        let topic = Topic { config, ..Topic::clone(topic) };
        Ok(ControllerAnswer::TopicAltered(self.put_topic(topic, rows)))
    }
}
