//! The Cluster service: what there is, and what the server accepts.

use std::collections::BTreeSet;

use flotilla_broker::{
    ClusterDescription, ClusterTroubles, Finding, Image, NodeDescription, NodeState, NodeTrouble, Topic, VerifiedGroup,
};
use flotilla_proto::v1;
use flotilla_proto::v1::cluster_server::Cluster;
use tonic::{Request, Response, Status};

use super::call::{Call, unary};
use super::convert;
use super::problem::{Problem, RETRY_BACKOFF};
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
            let ClusterTroubles { troubles, silent } = self.0.broker.cluster_troubles().await;
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
                replicas_max: u32::try_from(cluster.replicas_max).unwrap_or(u32::MAX),
                troubles: troubles.into_iter().map(node_trouble).collect(),
                silent_nodes: silent,
            })
        };
        unary(&self.0.metrics, "DescribeCluster", request.metadata(), describe).await
    }

    async fn get_metadata(&self, request: Request<v1::GetMetadataRequest>) -> Result<Response<v1::GetMetadataResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        unary(&self.0.metrics, "GetMetadata", &metadata, get_metadata(&self.0, Call::of(&metadata), &request)).await
    }

    async fn verify_replicas(
        &self,
        request: Request<v1::VerifyReplicasRequest>,
    ) -> Result<Response<v1::VerifyReplicasResponse>, Status> {
        let verify = async {
            let groups = self.0.broker.verify_replicas().await.into_iter().map(verified).collect();
            Ok(v1::VerifyReplicasResponse { groups })
        };
        unary(&self.0.metrics, "VerifyReplicas", request.metadata(), verify).await
    }
}

async fn get_metadata(shared: &Shared, call: Call, request: &v1::GetMetadataRequest) -> Result<v1::GetMetadataResponse, Problem> {
    let mut topics = Vec::new();
    // Each once, however often it is asked for: so an answer is never more than all that there is.
    for name in request.topics.iter().collect::<BTreeSet<_>>() {
        topics.push(topic_metadata(shared, &*shared.gateway.topic(&shared.broker, call, name, None).await?));
        // Of those known here nothing is waited for.
        tokio::task::consume_budget().await;
    }
    let image = shared.broker.image();
    Ok(v1::GetMetadataResponse {
        version: image.version(),
        nodes: listed_nodes(shared, &image),
        topics,
        limits: Some(limits(&shared.limits)),
        cluster_id: shared.broker.cluster_id(),
    })
}

/// The nodes without what has to be counted over all partitions: clients ask for this often, and many at once when a
/// leader dies.
fn listed_nodes(shared: &Shared, image: &Image) -> Vec<v1::Node> {
    let listed = image.nodes().map(|(node_id, found)| {
        node(&NodeDescription {
            node_id,
            address: found.address.clone(),
            rack: found.rack.clone(),
            state: found.state,
            online: shared.broker.online(node_id),
            replicas: 0,
            leaders: 0,
            controller_voter: false,
        })
    });
    listed.collect()
}

fn topic_metadata(shared: &Shared, of: &Topic) -> v1::TopicMetadata {
    let leaders = shared.broker.leaders(of).into_iter();
    let partitions = leaders.zip(0..).map(|(leader, partition)| v1::PartitionLeader { partition, leader });
    v1::TopicMetadata { topic: Some(topic(of)), partitions: partitions.collect() }
}

fn nodes(cluster: &ClusterDescription) -> Vec<v1::Node> {
    cluster.nodes.iter().map(node).collect()
}

/// A node's state as the wire says it.
pub fn state(state: NodeState) -> v1::NodeState {
    match state {
        NodeState::Active => v1::NodeState::Active,
        NodeState::Draining => v1::NodeState::Draining,
        NodeState::Leaving => v1::NodeState::Leaving,
    }
}

/// A node as the wire says it.
pub fn node(node: &NodeDescription) -> v1::Node {
    v1::Node {
        node_id: node.node_id,
        address: node.address.clone(),
        rack: node.rack.clone(),
        state: state(node.state).into(),
        online: node.online,
        replicas: node.replicas,
        leaders: node.leaders,
        controller_voter: node.controller_voter,
    }
}

fn node_trouble(trouble: NodeTrouble) -> v1::NodeTrouble {
    let NodeTrouble { node_id, subject, class, message, partition, age } = trouble;
    let (topic, partition) = partition.map(|(topic, number)| (topic.to_string(), number)).unzip();
    v1::NodeTrouble { node_id, subject, class, message, topic, partition, age: Some(convert::wire_duration(age)) }
}

fn verified(group: VerifiedGroup) -> v1::VerifiedGroup {
    let (topic, partition) = group.partition.map(|(topic, number)| (topic.to_string(), number)).unzip();
    let replica = |(node_id, finding): (u64, Finding)| {
        use v1::ReplicaFinding as Found;
        let (finding, entry) = match finding {
            Finding::Equal { through } => (Found::Equal, Some(through)),
            Finding::Differs { at } => (Found::Differs, Some(at)),
            Finding::Alone => (Found::Alone, None),
            Finding::Behind { applied } => (Found::Behind, applied),
            Finding::NotComparable => (Found::NotComparable, None),
            Finding::Down => (Found::Down, None),
            Finding::Unreachable => (Found::Unreachable, None),
        };
        v1::VerifiedReplica { node_id, finding: finding.into(), entry }
    };
    v1::VerifiedGroup { topic, partition, replicas: group.replicas.into_iter().map(replica).collect() }
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
