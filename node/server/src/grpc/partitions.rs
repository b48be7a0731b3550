//! The Partitions service: where partitions are, and moving them.

use std::time::{Duration, Instant};

use flotilla_broker::{Image, PartitionDescription, Salvaged, Topic};
use flotilla_proto::v1;
use flotilla_proto::v1::partitions_client::PartitionsClient;
use flotilla_proto::v1::partitions_server::Partitions;
use futures::{StreamExt, stream};
use tonic::{Request, Response, Status};

use super::Shared;
use super::call::{Call, unary};
use super::forward::{PAUSE, Repeat, Target, verbatim};
use super::problem::{Problem, Reason};
use super::topics;

/// Topics whose leaders are asked at the same time.
const TOPICS_AT_ONCE: usize = 16;
/// How long an answer waits until this node has heard who leads now.
const HEARSAY_PATIENCE: Duration = Duration::from_secs(1);

/// See the module.
pub struct PartitionsService(pub Shared);

#[tonic::async_trait]
impl Partitions for PartitionsService {
    async fn list_partitions(
        &self,
        request: Request<v1::ListPartitionsRequest>,
    ) -> Result<Response<v1::ListPartitionsResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        unary(&self.0.metrics, "ListPartitions", &metadata, self.list(Call::of(&metadata), request)).await
    }

    async fn move_partition(
        &self,
        request: Request<v1::MovePartitionRequest>,
    ) -> Result<Response<v1::MovePartitionResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let (call, shared) = (Call::of(&metadata), &self.0);
        let start = async {
            let group_id = self.group(call, &request.topic, request.partition).await?;
            let here = || async {
                shared.broker.start_move(group_id, request.replicas.clone()).await?;
                Ok(v1::MovePartitionResponse { partition: None })
            };
            let there = verbatim!(shared.gateway, PartitionsClient::move_partition(request.clone()));
            shared.gateway.at_leader(call, &Target::Controller, Repeat::Once, here, there).await?;
            let heard = |target: Option<&[u64]>, replicas: &[u64]| target.unwrap_or(replicas) == request.replicas;
            let partition = self.described(call, &request.topic, request.partition, heard).await?;
            Ok(v1::MovePartitionResponse { partition: Some(partition) })
        };
        unary(&shared.metrics, "MovePartition", &metadata, start).await
    }

    async fn cancel_move(&self, request: Request<v1::CancelMoveRequest>) -> Result<Response<v1::CancelMoveResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let (call, shared) = (Call::of(&metadata), &self.0);
        let cancel = async {
            let group_id = self.group(call, &request.topic, request.partition).await?;
            let here = || async {
                shared.broker.cancel_move(group_id).await?;
                Ok(v1::CancelMoveResponse { partition: None })
            };
            let there = verbatim!(shared.gateway, PartitionsClient::cancel_move(request.clone()));
            shared.gateway.at_leader(call, &Target::Controller, Repeat::Once, here, there).await?;
            let heard = |target: Option<&[u64]>, replicas: &[u64]| target.is_none_or(|target| target == replicas);
            let partition = self.described(call, &request.topic, request.partition, heard).await?;
            Ok(v1::CancelMoveResponse { partition: Some(partition) })
        };
        unary(&shared.metrics, "CancelMove", &metadata, cancel).await
    }

    async fn transfer_leader(
        &self,
        request: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        unary(&self.0.metrics, "TransferLeader", &metadata, self.transfer(Call::of(&metadata), request)).await
    }

    async fn recover_partition(
        &self,
        request: Request<v1::RecoverPartitionRequest>,
    ) -> Result<Response<v1::RecoverPartitionResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        unary(&self.0.metrics, "RecoverPartition", &metadata, self.recover(Call::of(&metadata), request)).await
    }
}

impl PartitionsService {
    async fn list(&self, call: Call, request: v1::ListPartitionsRequest) -> Result<v1::ListPartitionsResponse, Problem> {
        let topics = match request.topic {
            Some(name) => vec![self.0.gateway.topic(&self.0.broker, call, &name, None).await?],
            None => self.0.broker.topics(),
        };
        let describe = |topic: std::sync::Arc<Topic>| async move {
            let described = self.0.broker.describe_partitions(&topic).await;
            described.into_iter().map(|partition| topic_partition(&topic, partition)).collect::<Vec<_>>()
        };
        let described: Vec<_> = stream::iter(topics).map(describe).buffered(TOPICS_AT_ONCE).collect().await;
        let listed = described.into_iter().flatten().filter(|of| !request.unhealthy || !is_healthy(of));
        Ok(v1::ListPartitionsResponse { partitions: listed.collect() })
    }

    async fn transfer(&self, call: Call, request: v1::TransferLeaderRequest) -> Result<v1::TransferLeaderResponse, Problem> {
        let shared = &self.0;
        let target = shared.gateway.partition(&shared.broker, call, &request.topic, request.partition).await?;
        let image = shared.broker.image();
        let layout = image.topic(&request.topic).and_then(|topic| topic.partitions.get(request.partition as usize));
        let (group_id, replicas) = layout.map(|layout| (layout.group_id, layout.nodes().collect::<Vec<_>>())).unwrap_or_default();
        let to = request.node_id.or(replicas.first().copied()).unwrap_or_default();
        if !replicas.contains(&to) {
            let why = format!("names node {to}, which holds no replica of {target}: choose one of {replicas:?}");
            return Err(Problem::field("node_id", why));
        }
        if !shared.broker.online(to) {
            let why = format!("names node {to}, which is offline: start it, or choose another one of {replicas:?}");
            return Err(Problem::field("node_id", why));
        }
        // Whoever asks for the preferred leader gets the one that was asked for, whatever becomes of the replicas meanwhile.
        let request = v1::TransferLeaderRequest { node_id: Some(to), ..request };
        let here = || async {
            shared.broker.transfer_leader(group_id, to).await?;
            Ok(v1::TransferLeaderResponse { leader: to })
        };
        let there = verbatim!(shared.gateway, PartitionsClient::transfer_leader(request.clone()));
        let answer = shared.gateway.at_leader(call, &target, Repeat::Idempotent, here, there).await?;
        let until = call.patient_until.min(Instant::now() + HEARSAY_PATIENCE);
        while shared.broker.leader_of(group_id) != Some(to) && Instant::now() < until {
            tokio::time::sleep(PAUSE).await;
        }
        Ok(answer)
    }

    async fn recover(&self, call: Call, request: v1::RecoverPartitionRequest) -> Result<v1::RecoverPartitionResponse, Problem> {
        let shared = &self.0;
        if !request.accept_loss {
            return Err(Problem::field("accept_loss", "is not set: what cannot be read of the partition would be lost for good"));
        }
        let target = shared.gateway.partition(&shared.broker, call, &request.topic, request.partition).await?;
        let image = shared.broker.image();
        let layout = image.topic(&request.topic).and_then(|topic| topic.partitions.get(request.partition as usize));
        let (group_id, replicas) = layout.map(|layout| (layout.group_id, layout.nodes().collect::<Vec<_>>())).unwrap_or_default();
        let Some(node_id) = replicas.first().copied() else { return Err(shared.gateway.not_leader(&target)) };
        let here = || async {
            let salvaged = shared.broker.recover_partition(group_id).await;
            let problem = |problem: Problem| Problem::new(problem.reason(), format!("{target}: {}", problem.message()));
            Ok(recovered(node_id, salvaged.map_err(|error| problem(error.into()))?))
        };
        let there = verbatim!(shared.gateway, PartitionsClient::recover_partition(request.clone()));
        shared.gateway.at_node(call, (node_id, &target), here, there).await
    }

    async fn group(&self, call: Call, topic: &str, partition: u32) -> Result<u64, Problem> {
        match self.0.gateway.partition(&self.0.broker, call, topic, partition).await? {
            Target::Partition { group_id, .. } => Ok(group_id),
            Target::Controller => Err(Problem::new(Reason::Internal, "a partition is not the controller")),
        }
    }

    /// How a partition stands, once `heard` says of its target and replicas here that this node knows of the change.
    async fn described(
        &self,
        call: Call,
        topic: &str,
        partition: u32,
        heard: impl Fn(Option<&[u64]>, &[u64]) -> bool,
    ) -> Result<v1::TopicPartition, Problem> {
        let heard = |image: &Image| {
            let layout = image.topic(topic).and_then(|topic| topic.partitions.get(partition as usize));
            layout.is_none_or(|layout| heard(layout.target_nodes().as_deref(), &layout.nodes().collect::<Vec<_>>()))
        };
        self.0.gateway.caught_up(&self.0.broker, call, heard).await;
        let known = self.0.gateway.topic(&self.0.broker, call, topic, Some(partition)).await?;
        let described = self.0.broker.describe_partitions(&known).await;
        let found = described.into_iter().find(|of| of.partition == partition);
        let gone = || Problem::new(Reason::UnknownPartition, format!("partition {partition} of topic {topic:?} is gone"));
        Ok(topic_partition(&known, found.ok_or_else(gone)?))
    }
}

fn recovered(node_id: u64, salvaged: Salvaged) -> v1::RecoverPartitionResponse {
    let Salvaged { lost, lost_offsets, end_unknown, useless_bytes, next_offset } = salvaged;
    let lost = lost.into_iter().map(|lost| v1::OffsetRange { from: lost.start, to: lost.end }).collect();
    v1::RecoverPartitionResponse { node_id, lost, lost_offsets, end_unknown, useless_bytes, next_offset }
}

fn topic_partition(topic: &Topic, partition: PartitionDescription) -> v1::TopicPartition {
    let target = partition.target.clone();
    v1::TopicPartition { topic: topic.name.to_string(), partition: Some(topics::partition(partition)), target }
}

/// A leader, every replica in sync, and no move under way.
fn is_healthy(of: &v1::TopicPartition) -> bool {
    let Some(partition) = &of.partition else { return false };
    let in_sync = partition.replicas.iter().all(|node| partition.in_sync.contains(node));
    partition.leader.is_some() && in_sync && of.target.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lacks_a_leader_or_a_replica_or_moves_is_not_healthy() {
        let partition = |leader, in_sync: &[u64]| v1::Partition {
            leader,
            replicas: vec![1, 2],
            in_sync: in_sync.to_vec(),
            ..v1::Partition::default()
        };
        let of = |partition, target: &[u64]| v1::TopicPartition {
            topic: String::new(),
            partition: Some(partition),
            target: target.to_vec(),
        };
        assert!(is_healthy(&of(partition(Some(1), &[2, 1]), &[])));
        assert!(!is_healthy(&of(partition(None, &[2, 1]), &[])));
        assert!(!is_healthy(&of(partition(Some(1), &[1]), &[])));
        assert!(!is_healthy(&of(partition(Some(1), &[2, 1]), &[2, 3])));
    }
}
