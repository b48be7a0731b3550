//! The Topics service: administration.

use std::time::Duration;

use flotilla_broker::{ConfigChange, CreateTopic, Image, PartitionDescription, TimestampType, Topic, TopicConfig};
use flotilla_proto::v1;
use flotilla_proto::v1::topics_client::TopicsClient;
use flotilla_proto::v1::topics_server::Topics;
use tonic::{Request, Response, Status};

use super::Shared;
use super::call::{Call, unary};
use super::convert;
use super::forward::{Repeat, Target, verbatim};
use super::problem::{Problem, Reason};

/// More partitions than a topic may have: checked here, before anything is planned for each of them.
const PARTITIONS_MAX: u32 = 10_000;

/// What a topic's retention is counted in.
const RETENTION_MIN: Duration = Duration::from_millis(1);

/// See the module.
pub struct TopicsService(pub Shared);

#[tonic::async_trait]
impl Topics for TopicsService {
    async fn create_topic(&self, request: Request<v1::CreateTopicRequest>) -> Result<Response<v1::CreateTopicResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let (call, shared) = (Call::of(&metadata), &self.0);
        let create = async {
            let here = || async {
                let made = shared.broker.create_topic(create_topic(request.clone())?).await?;
                Ok(v1::CreateTopicResponse { topic: Some(topic(&made.topic)), created: made.created })
            };
            let there = verbatim!(shared.gateway, TopicsClient::create_topic(request.clone()));
            let answer = shared.gateway.at_leader(call, &Target::Controller, Repeat::Once, here, there).await?;
            self.seen(call, answer.topic.as_ref()).await;
            Ok(answer)
        };
        unary(&shared.metrics, "CreateTopic", &metadata, create).await
    }

    async fn list_topics(&self, request: Request<v1::ListTopicsRequest>) -> Result<Response<v1::ListTopicsResponse>, Status> {
        let list = async {
            let topics = self.0.broker.topics();
            Ok(v1::ListTopicsResponse { topics: topics.iter().map(|each| topic(each)).collect() })
        };
        unary(&self.0.metrics, "ListTopics", request.metadata(), list).await
    }

    async fn describe_topic(
        &self,
        request: Request<v1::DescribeTopicRequest>,
    ) -> Result<Response<v1::DescribeTopicResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let describe = async {
            self.0.gateway.topic(&self.0.broker, Call::of(&metadata), &request.name, None).await?;
            let described = self.0.broker.describe_topic(&request.name).await?;
            let partitions = described.partitions.into_iter().map(partition).collect();
            Ok(v1::DescribeTopicResponse { topic: Some(topic(&described.topic)), partitions })
        };
        unary(&self.0.metrics, "DescribeTopic", &metadata, describe).await
    }

    async fn alter_topic(&self, request: Request<v1::AlterTopicRequest>) -> Result<Response<v1::AlterTopicResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let (call, shared) = (Call::of(&metadata), &self.0);
        let alter = async {
            let here = || async {
                let change = request.config.map_or(Ok(ConfigChange::default()), config_change)?;
                let altered = shared.broker.alter_topic(&request.name, change, &request.reset).await?;
                Ok(v1::AlterTopicResponse { topic: Some(topic(&altered)) })
            };
            let there = verbatim!(shared.gateway, TopicsClient::alter_topic(request.clone()));
            let answer = shared.gateway.at_leader(call, &Target::Controller, Repeat::Idempotent, here, there).await?;
            self.seen(call, answer.topic.as_ref()).await;
            Ok(answer)
        };
        unary(&shared.metrics, "AlterTopic", &metadata, alter).await
    }

    async fn add_partitions(
        &self,
        request: Request<v1::AddPartitionsRequest>,
    ) -> Result<Response<v1::AddPartitionsResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let (call, shared) = (Call::of(&metadata), &self.0);
        let add = async {
            let here = || async {
                let grown = shared.broker.add_partitions(&request.name, partition_count(request.partitions)?).await?;
                Ok(v1::AddPartitionsResponse { topic: Some(topic(&grown)) })
            };
            let there = verbatim!(shared.gateway, TopicsClient::add_partitions(request.clone()));
            let answer = shared.gateway.at_leader(call, &Target::Controller, Repeat::Once, here, there).await?;
            self.seen(call, answer.topic.as_ref()).await;
            Ok(answer)
        };
        unary(&shared.metrics, "AddPartitions", &metadata, add).await
    }

    async fn delete_topic(&self, request: Request<v1::DeleteTopicRequest>) -> Result<Response<v1::DeleteTopicResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let (call, shared) = (Call::of(&metadata), &self.0);
        let delete = async {
            let before = shared.broker.image().topic(&request.name).map(|topic| topic.id);
            let here = || async {
                let deleted = shared.broker.delete_topic(&request.name, request.if_exists).await?;
                Ok(v1::DeleteTopicResponse { deleted })
            };
            let there = verbatim!(shared.gateway, TopicsClient::delete_topic(request.clone()));
            let answer = shared.gateway.at_leader(call, &Target::Controller, Repeat::Once, here, there).await?;
            let gone = |image: &Image| image.topic(&request.name).is_none_or(|topic| Some(topic.id) != before);
            shared.gateway.caught_up(&shared.broker, call, gone).await;
            Ok(answer)
        };
        unary(&shared.metrics, "DeleteTopic", &metadata, delete).await
    }

    async fn delete_records(
        &self,
        request: Request<v1::DeleteRecordsRequest>,
    ) -> Result<Response<v1::DeleteRecordsResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let (call, shared) = (Call::of(&metadata), &self.0);
        let delete = async {
            let target = shared.gateway.partition(&shared.broker, call, &request.topic, request.partition).await?;
            let here = || async {
                let deleted = shared.broker.delete_records(&request.topic, request.partition, request.before_offset).await;
                Ok(v1::DeleteRecordsResponse { log_start_offset: deleted? })
            };
            let there = verbatim!(shared.gateway, TopicsClient::delete_records(request.clone()));
            shared.gateway.at_leader(call, &target, Repeat::Idempotent, here, there).await
        };
        unary(&shared.metrics, "DeleteRecords", &metadata, delete).await
    }
}

impl TopicsService {
    /// Returns once this node's metadata has the topic as it was answered, however far behind it is.
    async fn seen(&self, call: Call, answered: Option<&v1::Topic>) {
        let Some(answered) = answered else { return };
        let has = |image: &Image| image.topic(&answered.name).is_some_and(|known| topic(known) == *answered);
        self.0.gateway.caught_up(&self.0.broker, call, has).await;
    }
}

/// A request in the broker's words.
pub fn create_topic(request: v1::CreateTopicRequest) -> Result<CreateTopic, Problem> {
    Ok(CreateTopic {
        name: request.name,
        partitions: request.partitions.map(partition_count).transpose()?,
        replication_factor: request.replication_factor,
        config: request.config.map_or(Ok(ConfigChange::default()), config_change)?,
        if_not_exists: request.if_not_exists,
    })
}

fn partition_count(partitions: u32) -> Result<u32, Problem> {
    if (1..=PARTITIONS_MAX).contains(&partitions) {
        return Ok(partitions);
    }
    let message = format!("a topic has 1 to {PARTITIONS_MAX} partitions, not {partitions}: choose a number between");
    Err(Problem::new(Reason::InvalidConfig, message).at("partitions"))
}

fn config_change(config: v1::TopicConfig) -> Result<ConfigChange, Problem> {
    let retention = config.retention.map(|retention| convert::duration("config.retention", retention)).transpose()?;
    // Rounded to milliseconds it would be 0, which keeps records for ever.
    if retention.is_some_and(|retention| !retention.is_zero() && retention < RETENTION_MIN) {
        return Err(Problem::field("config.retention", "is below 1 ms: use 1 ms or more, or 0 to keep records for ever"));
    }
    let timestamp_type = match v1::TimestampType::try_from(config.timestamp_type) {
        Ok(v1::TimestampType::Unspecified) => None,
        Ok(v1::TimestampType::CreateTime) => Some(TimestampType::CreateTime),
        Ok(v1::TimestampType::LogAppendTime) => Some(TimestampType::LogAppendTime),
        Err(_) => {
            let why = format!("{} does not exist: use create time or log append time", config.timestamp_type);
            return Err(Problem::field("config.timestamp_type", why));
        }
    };
    let ahead = config.timestamp_ahead_max.map(|ahead| convert::duration("config.timestamp_ahead_max", ahead)).transpose()?;
    let whole_ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Ok(ConfigChange {
        retention_ms: retention.map(whole_ms),
        retention_bytes: config.retention_bytes,
        batch_bytes_max: config.batch_bytes_max,
        timestamp_type,
        timestamp_ahead_max_ms: ahead.map(whole_ms),
    })
}

/// A topic as clients see it.
pub fn topic(topic: &Topic) -> v1::Topic {
    v1::Topic {
        name: topic.name.to_string(),
        id: topic.id.to_string(),
        partition_count: u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX),
        replication_factor: topic.replication_factor,
        config: Some(config(&topic.config)),
        created_at: Some(convert::timestamp(topic.created_at_ms)),
    }
}

fn config(config: &TopicConfig) -> v1::TopicConfig {
    let timestamp_type = match config.timestamp_type {
        TimestampType::CreateTime => v1::TimestampType::CreateTime,
        TimestampType::LogAppendTime => v1::TimestampType::LogAppendTime,
    };
    v1::TopicConfig {
        retention: Some(convert::wire_duration(Duration::from_millis(config.retention_ms))),
        retention_bytes: Some(config.retention_bytes),
        batch_bytes_max: Some(config.batch_bytes_max),
        timestamp_type: timestamp_type.into(),
        timestamp_ahead_max: Some(convert::wire_duration(Duration::from_millis(config.timestamp_ahead_max_ms))),
    }
}

/// A partition as clients see it.
pub fn partition(of: PartitionDescription) -> v1::Partition {
    v1::Partition {
        partition: of.partition,
        leader: of.leader,
        replicas: of.replicas,
        in_sync: of.in_sync,
        log_start_offset: of.ends.log_start_offset,
        high_watermark: of.ends.high_watermark,
        size_bytes: of.size_bytes,
        group_id: of.group_id,
        time: of.time.map(|time| convert::timestamp(time.time_ms)),
        leader_clock: of.time.map(|time| convert::timestamp(time.leader_clock_ms)),
        replica_ids: of.replica_ids,
        end_confirmed: of.ends_confirmed,
    }
}
