//! The end of a topic.

use std::sync::Arc;

use flotilla_proto::internal::v1;

use super::{ControllerAnswer, ControllerMachine, ControllerOutcome};
use crate::rows::{Rows, table};

impl ControllerMachine {
    pub(super) fn delete_topic(&mut self, command: &v1::DeleteTopic, rows: &mut dyn Rows) -> ControllerOutcome {
        let topic = Arc::clone(self.topic(&command.name)?);
        rows.delete(table::TOPIC, command.name.as_bytes());
        self.change_image(rows, |image| image.remove_topic(&command.name));
        Ok(ControllerAnswer::TopicDeleted(topic))
    }
}
