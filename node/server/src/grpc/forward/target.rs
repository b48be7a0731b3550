//! What a request is about, which decides who serves it.

use std::fmt;
use std::sync::Arc;

use flotilla_broker::{Topic, TopicMissing};

use super::Problem;

/// A Raft group with a name for people.
#[derive(Debug, Clone)]
pub enum Target {
    /// One partition.
    Partition {
        /// Its topic's name.
        topic: Arc<str>,
        /// Its number.
        partition: u32,
        /// Its group.
        group_id: u64,
    },
    /// The cluster's metadata.
    Controller,
}

impl Target {
    /// A partition of a topic, if it has it.
    pub fn partition(topic: &Topic, partition: u32) -> Option<Self> {
        let layout = topic.partitions.get(partition as usize)?;
        Some(Self::Partition { topic: topic.name.clone(), partition, group_id: layout.group_id })
    }

    /// The same.
    ///
    /// # Errors
    /// If it does not have it.
    pub fn existing(topic: &Topic, partition: u32) -> Result<Self, Problem> {
        Self::partition(topic, partition).ok_or_else(|| {
            let partition_count = u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX);
            TopicMissing::UnknownPartition { topic: topic.name.to_string(), partition, partition_count }.into()
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Partition { topic, partition, .. } => write!(f, "partition {partition} of topic {topic:?}"),
            Self::Controller => f.write_str("the controller"),
        }
    }
}
