//! Administration of topics: every change is one command of the controller's group.

use std::sync::Arc;

use bytes::Bytes;
use flotilla_machines::controller::plan::{self, PlanError};
use flotilla_machines::controller::{
    ControllerAnswer, ControllerRefusal, Image, NodeState, PARTITIONS_PER_TOPIC_MAX, Topic, TopicConfig,
};
use flotilla_machines::partition::PartitionAnswer;
use flotilla_proto::internal::v1;
use flotilla_proto::internal::v1::controller_command::Command;
use flotilla_proto::internal::v1::partition_command::Command as PartitionCommand;
use flotilla_records::TimestampType;
use uuid::Uuid;

use crate::broker::Broker;
use crate::error::TopicError;
use crate::partition::Ends;

/// Replicas where a request names no number and the cluster is large enough.
const REPLICATION_FACTOR_DEFAULT: u32 = 3;

/// A topic to create.
#[derive(Debug, Clone, Default)]
pub struct CreateTopic {
    /// Its name.
    pub name: String,
    /// Default 1.
    pub partitions: Option<u32>,
    /// Default 3, or the number of nodes where there are fewer.
    pub replication_factor: Option<u32>,
    /// Values that differ from the defaults.
    pub config: ConfigChange,
    /// Succeed if it exists with the same number of partitions.
    pub if_not_exists: bool,
}

/// Values to set; what is absent stays.
#[derive(Debug, Clone, Copy, Default)]
pub struct ConfigChange {
    /// Milliseconds; 0 keeps records for ever.
    pub retention_ms: Option<u64>,
    /// Bytes; 0 is no limit.
    pub retention_bytes: Option<u64>,
    /// Bytes.
    pub batch_bytes_max: Option<u64>,
    /// Whose time a record carries.
    pub timestamp_type: Option<TimestampType>,
    /// How far ahead of the server's time a record may be dated, in milliseconds.
    pub timestamp_ahead_max_ms: Option<u64>,
}

/// The answer to [`Broker::create_topic`].
#[derive(Debug, Clone)]
pub struct CreatedTopic {
    /// The topic.
    pub topic: Arc<Topic>,
    /// False: it existed.
    pub created: bool,
}

/// A topic and where its partitions stand.
#[derive(Debug, Clone)]
pub struct TopicDescription {
    /// The topic.
    pub topic: Arc<Topic>,
    /// By number.
    pub partitions: Vec<PartitionDescription>,
}

/// Where a partition stands.
#[derive(Debug, Clone)]
pub struct PartitionDescription {
    /// Its number.
    pub partition: u32,
    /// Its Raft group.
    pub group_id: u64,
    /// Who leads it, if anyone.
    pub leader: Option<u64>,
    /// Nodes that hold a copy.
    pub replicas: Vec<u64>,
    /// The ids of these replicas, in the same order.
    pub replica_ids: Vec<u64>,
    /// Nodes that shall hold a copy after the move that is under way; empty: it does not move.
    pub target: Vec<u64>,
    /// Those that have everything committed.
    pub in_sync: Vec<u64>,
    /// The log's ends, as its leader knows them.
    pub ends: Ends,
    /// Whether a majority confirmed that these are its ends.
    pub ends_confirmed: bool,
    /// Bytes on the leader.
    pub size_bytes: u64,
    /// Absent: no leader says.
    pub time: Option<PartitionTime>,
}

/// What time it is in a partition, in milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionTime {
    /// By this, its records and producers expire.
    pub time_ms: i64,
    /// What the leader's own clock says.
    pub leader_clock_ms: i64,
}

impl Broker {
    /// Creates a topic; returns when its partitions can be written, or cannot for a while: it is made in any case.
    ///
    /// # Errors
    /// See [`TopicError`].
    pub async fn create_topic(&self, request: CreateTopic) -> Result<CreatedTopic, TopicError> {
        let image = self.image();
        let staying = image.nodes().filter(|(_, node)| node.state != NodeState::Leaving).count();
        let replication_factor = request
            .replication_factor
            .unwrap_or(REPLICATION_FACTOR_DEFAULT.min(u32::try_from(staying.max(1)).unwrap_or(u32::MAX)));
        let partitions = check_partitions(request.partitions.unwrap_or(1))?;
        let config = TopicConfig::default().with(&request.config.into()).map_err(ControllerRefusal::from)?;
        // Known without a plan, which may not be possible at the moment.
        if let Some(topic) = image.topic(&request.name).filter(|topic| topic.partitions.len() == partitions as usize)
            && request.if_not_exists
        {
            return Ok(CreatedTopic { topic: Arc::clone(topic), created: false });
        }
        let command = Command::CreateTopic(v1::CreateTopic {
            name: request.name.clone(),
            topic_id: Bytes::copy_from_slice(Uuid::new_v4().as_bytes()),
            replication_factor,
            config: Some(config.into()),
            partitions: self.place(&image, replication_factor, partitions)?,
        });
        match self.control(command).await? {
            Ok(ControllerAnswer::TopicCreated(topic)) => {
                self.wait_writable(&topic).await;
                Ok(CreatedTopic { topic, created: true })
            }
            Ok(other) => Err(unexpected(&other)),
            Err(ControllerRefusal::TopicExists { same_layout: true, .. }) if request.if_not_exists => {
                let topic = self.topic(&request.name)?;
                Ok(CreatedTopic { topic, created: false })
            }
            Err(ControllerRefusal::TopicExists { name, partition_count, .. }) if request.if_not_exists => {
                Err(TopicError::OtherPartitionCount { name, partition_count, requested: partitions })
            }
            Err(refused) => Err(refused.into()),
        }
    }

    /// Every topic, by name.
    #[must_use]
    pub fn topics(&self) -> Vec<Arc<Topic>> {
        self.image().topics().cloned().collect()
    }

    /// A topic and where its partitions stand: asked of their leaders.
    ///
    /// # Errors
    /// If there is no such topic.
    pub async fn describe_topic(&self, name: &str) -> Result<TopicDescription, TopicError> {
        let topic = self.topic(name)?;
        let partitions = self.describe_partitions(&topic).await;
        Ok(TopicDescription { topic, partitions })
    }

    /// Changes a topic's configuration: sets what `change` has, and puts the fields named in `reset` back.
    ///
    /// # Errors
    /// See [`TopicError`].
    pub async fn alter_topic(&self, name: &str, change: ConfigChange, reset: &[String]) -> Result<Arc<Topic>, TopicError> {
        let mut config = v1::TopicConfig::from(change);
        for field in reset {
            TopicConfig::default().put_field(field, &mut config).map_err(ControllerRefusal::from)?;
        }
        let command = Command::AlterTopic(v1::AlterTopic { name: name.to_owned(), config: Some(config) });
        match self.control(command).await?? {
            ControllerAnswer::TopicAltered(topic) => Ok(topic),
            other => Err(unexpected(&other)),
        }
    }

    /// Adds partitions up to `partitions`; returns when they can be written, or cannot for a while: they are added in any case.
    ///
    /// # Errors
    /// See [`TopicError`].
    pub async fn add_partitions(&self, name: &str, partitions: u32) -> Result<Arc<Topic>, TopicError> {
        let topic = self.topic(name)?;
        check_partitions(partitions)?;
        let new = partitions.saturating_sub(u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX));
        let command = Command::AddPartitions(v1::AddPartitions {
            name: name.to_owned(),
            partition_count: partitions,
            added: self.place(&self.image(), topic.replication_factor, new)?,
        });
        match self.control(command).await?? {
            ControllerAnswer::PartitionsAdded(topic) => {
                self.wait_writable(&topic).await;
                Ok(topic)
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Deletes a topic and all that is in it. `false`: there was none, and `if_exists` was set.
    ///
    /// # Errors
    /// See [`TopicError`].
    pub async fn delete_topic(&self, name: &str, if_exists: bool) -> Result<bool, TopicError> {
        let command = Command::DeleteTopic(v1::DeleteTopic { name: name.to_owned() });
        match self.control(command).await? {
            Ok(ControllerAnswer::TopicDeleted(_)) => Ok(true),
            Ok(other) => Err(unexpected(&other)),
            Err(ControllerRefusal::UnknownTopic { .. }) if if_exists => Ok(false),
            Err(refused) => Err(refused.into()),
        }
    }

    /// Moves a partition's log start offset forward; returns the new one.
    ///
    /// # Errors
    /// See [`TopicError`].
    pub async fn delete_records(&self, topic: &str, partition: u32, before_offset: u64) -> Result<u64, TopicError> {
        let topic = self.topic(topic)?;
        let partition = self.partition(&topic, partition)?;
        let command = PartitionCommand::DeleteRecords(v1::DeleteRecords { before_offset });
        match partition.command(command).await?? {
            PartitionAnswer::LogStart { log_start_offset } => Ok(log_start_offset),
            other => Err(TopicError::Unknown { reason: format!("the partition answered {other:?}") }),
        }
    }

    /// Replicas for new partitions.
    fn place(&self, image: &Image, replication_factor: u32, partitions: u32) -> Result<Vec<v1::Replicas>, TopicError> {
        let online = image.nodes().map(|(node_id, _)| node_id).filter(|node_id| self.online(*node_id)).collect();
        match plan::place(image, &online, replication_factor, partitions as usize) {
            Ok(placed) => Ok(placed.into_iter().map(|nodes| v1::Replicas { nodes }).collect()),
            Err(PlanError::TooFewNodes { replication_factor, active }) => {
                Err(TopicError::TooFewNodes { replication_factor, node_count: active })
            }
        }
    }
}

/// Refuses an absurd number before replicas are chosen for each.
fn check_partitions(partitions: u32) -> Result<u32, ControllerRefusal> {
    let (partitions_max, asked) = (PARTITIONS_PER_TOPIC_MAX, partitions as usize);
    if asked > partitions_max {
        return Err(ControllerRefusal::InvalidPartitionCount { partitions: asked, partitions_max });
    }
    Ok(partitions)
}

fn unexpected(answer: &ControllerAnswer) -> TopicError {
    TopicError::Unknown { reason: format!("the controller answered {answer:?}") }
}

impl From<ConfigChange> for v1::TopicConfig {
    fn from(change: ConfigChange) -> Self {
        let timestamp_type = change.timestamp_type.map(|timestamp_type| match timestamp_type {
            TimestampType::CreateTime => v1::TimestampType::CreateTime.into(),
            TimestampType::LogAppendTime => v1::TimestampType::LogAppendTime.into(),
        });
        Self {
            retention_ms: change.retention_ms,
            retention_bytes: change.retention_bytes,
            batch_bytes_max: change.batch_bytes_max,
            timestamp_type,
            timestamp_ahead_max_ms: change.timestamp_ahead_max_ms,
        }
    }
}
