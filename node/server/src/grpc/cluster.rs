//! The Cluster service: what there is, and what the server accepts.

use flotilla_broker::{ClusterDescription, NodeDescription, NodeState, Topic};
use flotilla_proto::v1;
use flotilla_proto::v1::cluster_server::Cluster;
use tonic::{Request, Response, Status};

use super::call::unary;
use super::convert;
use super::problem::{Problem, RETRY_BACKOFF, Reason};
use super::topics::topic;
use super::{Limits, Shared};

/// Largest batch that any topic can be set to accept.
const BATCH_BYTES_MAX: u64 = 16 << 20;

/// See the module.
pub struct ClusterService(pub Shared);

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn describe_cluster(
        &self,
        request: Request<v1::DescribeClusterRequest>,
    ) -> Result<Response<v1::DescribeClusterResponse>, Status> {
        let describe = async {
            let cluster = self.0.broker.describe_cluster();
            Ok(v1::DescribeClusterResponse {
                nodes: nodes(&cluster),
                cluster_id: cluster.cluster_id,
                controller_leader: cluster.controller_leader,
                topic_count: u32::try_from(cluster.topic_count).unwrap_or(u32::MAX),
                partition_count: u32::try_from(cluster.partition_count).unwrap_or(u32::MAX),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                leaderless_partitions: u32::try_from(cluster.leaderless_partitions).unwrap_or(u32::MAX),
                under_replicated_partitions: u32::try_from(cluster.under_replicated_partitions).unwrap_or(u32::MAX),
                moving_partitions: u32::try_from(cluster.moving_partitions).unwrap_or(u32::MAX),
            })
        };
        unary(&self.0.metrics, "DescribeCluster", request.metadata(), describe).await
    }

    async fn get_metadata(&self, request: Request<v1::GetMetadataRequest>) -> Result<Response<v1::GetMetadataResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        unary(&self.0.metrics, "GetMetadata", &metadata, async { get_metadata(&self.0, &request) }).await
    }
}

fn get_metadata(shared: &Shared, request: &v1::GetMetadataRequest) -> Result<v1::GetMetadataResponse, Problem> {
    let image = shared.broker.image();
    let find = |name: &String| {
        let found = image.topic(name).map(|found| topic_metadata(shared, found));
        found.ok_or_else(|| {
            let message = format!("topic {name:?} does not exist: create it, or check its name");
            Problem::new(Reason::UnknownTopic, message).with("topic", name)
        })
    };
    Ok(v1::GetMetadataResponse {
        version: image.version(),
        nodes: nodes(&shared.broker.describe_cluster()),
        topics: request.topics.iter().map(find).collect::<Result<_, _>>()?,
        limits: Some(limits(&shared.limits)),
    })
}

fn topic_metadata(shared: &Shared, of: &Topic) -> v1::TopicMetadata {
    let leaders = shared.broker.leaders(of).into_iter();
    let partitions = leaders.zip(0..).map(|(leader, partition)| v1::PartitionLeader { partition, leader });
    v1::TopicMetadata { topic: Some(topic(of)), partitions: partitions.collect() }
}

fn nodes(cluster: &ClusterDescription) -> Vec<v1::Node> {
    cluster.nodes.iter().map(node).collect()
}

/// A node as the wire says it.
pub fn node(node: &NodeDescription) -> v1::Node {
    let state = match node.state {
        NodeState::Active => v1::NodeState::Active,
        NodeState::Draining => v1::NodeState::Draining,
        NodeState::Leaving => v1::NodeState::Leaving,
    };
    v1::Node {
        node_id: node.node_id,
        address: node.address.clone(),
        rack: node.rack.clone(),
        state: state.into(),
        online: node.online,
        replicas: node.replicas,
        leaders: node.leaders,
        controller_voter: node.controller_voter,
    }
}

fn limits(limits: &Limits) -> v1::Limits {
    v1::Limits {
        request_bytes_max: limits.request_bytes_max as u64,
        batch_bytes_max: BATCH_BYTES_MAX.min(limits.request_bytes_max as u64),
        decompressed_bytes_max: limits.decompressed_bytes_max as u64,
        records_per_batch_max: limits.records_per_batch_max,
        retry_backoff: Some(convert::wire_duration(RETRY_BACKOFF)),
    }
}
