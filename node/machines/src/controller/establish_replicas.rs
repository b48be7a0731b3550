//! Replicas on which their groups count from now on.

use std::collections::BTreeMap;
use std::sync::Arc;

use flotilla_proto::internal::v1;

use super::image::Topic;
use super::{ControllerAnswer, ControllerMachine, ControllerOutcome};
use crate::rows::Rows;

impl ControllerMachine {
    /// Said by the leaders of groups, for many partitions at once: the rows of their topics are written once. What does not
    /// exist any more is passed over. Idempotent.
    pub(super) fn establish_replicas(&mut self, command: v1::EstablishReplicas, rows: &mut dyn Rows) -> ControllerOutcome {
        let mut changed: BTreeMap<Arc<str>, Topic> = BTreeMap::new();
        for v1::EstablishedReplicas { group_id, replica_ids } in command.groups {
            let Some((topic, number)) = self.image.partition_of_group(group_id) else { continue };
            let named = |replica: &super::Replica| replica.fresh && replica_ids.contains(&replica.id);
            let fresh = topic.partitions.get(number as usize).is_some_and(|partition| partition.all().any(|it| named(&it)));
            if !fresh {
                continue;
            }
            let topic = changed.entry(topic.name.clone()).or_insert_with(|| Topic::clone(topic));
            if let Some(partition) = topic.partitions.get_mut(number as usize) {
                partition.each_mut(|replica| replica.fresh &= !replica_ids.contains(&replica.id));
            }
        }
        if !changed.is_empty() {
            self.put_topics(changed.into_values().map(Arc::new).collect(), rows);
        }
        Ok(ControllerAnswer::ReplicasEstablished)
    }
}
