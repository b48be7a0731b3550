//! The Groups service: committed offsets.

use flotilla_broker::{Commit, CommittedOffset};
use flotilla_proto::v1;
use flotilla_proto::v1::groups_client::GroupsClient;
use flotilla_proto::v1::groups_server::Groups;
use tonic::{Request, Response, Status};

use super::call::{Call, unary};
use super::forward::{self, Envelope, Repeat, Target, verbatim};
use super::problem::{Problem, Reason};
use super::{Shared, convert};

/// See the module.
pub struct GroupsService(pub Shared);

#[tonic::async_trait]
impl Groups for GroupsService {
    async fn commit(&self, request: Request<v1::CommitRequest>) -> Result<Response<v1::CommitResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let (call, shared) = (Call::of(&metadata), &self.0);
        let commit = async {
            let topic = convert::topic_ref(&request.topic, request.topic_id.as_deref())?;
            let topic = shared.gateway.topic(&shared.broker, call, topic, Some(request.partition)).await?;
            let target = Target::existing(&topic, request.partition)?;
            let here = || async {
                shared.broker.commit(Commit { topic_id: Some(topic.id), ..commit(request.clone()) }).await?;
                Ok(v1::CommitResponse {})
            };
            let there = verbatim!(shared.gateway, GroupsClient::commit(request.clone()));
            shared.gateway.at_leader(call, &target, Repeat::Idempotent, here, there).await
        };
        unary(&shared.metrics, "Commit", &metadata, commit).await
    }

    async fn committed(&self, request: Request<v1::CommittedRequest>) -> Result<Response<v1::CommittedResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        unary(&self.0.metrics, "Committed", &metadata, committed(&self.0, Call::of(&metadata), &request)).await
    }
}

async fn committed(shared: &Shared, call: Call, request: &v1::CommittedRequest) -> Result<v1::CommittedResponse, Problem> {
    let v1::CommittedRequest { group, topic, topic_id, partitions } = request;
    let (topic, last) = (convert::topic_ref(topic, topic_id.as_deref())?, partitions.iter().max().copied());
    let known = &shared.gateway.topic(&shared.broker, call, topic, last).await?;
    let here = |partition| async move {
        let offsets = shared.broker.committed(group, known, &[partition]).await?;
        let first = offsets.into_iter().next().map(committed_offset);
        first.ok_or_else(|| Problem::new(Reason::Internal, "a partition did not say what is committed"))
    };
    let there = |channel, envelope: Envelope, partitions| {
        let (topic, topic_id) = (known.name.to_string(), Some(known.id.to_string()));
        let request = v1::CommittedRequest { group: group.clone(), topic, topic_id, partitions };
        let request = envelope.around(request);
        async move { Ok(GroupsClient::new(channel).committed(request).await?.map(|answer| answer.offsets)) }
    };
    let offsets = shared.gateway.by_leader(call, known, forward::partitions(known, partitions), here, there).await?;
    Ok(v1::CommittedResponse { offsets })
}

/// A request in the broker's words.
pub fn commit(request: v1::CommitRequest) -> Commit {
    Commit {
        group: request.group,
        topic: request.topic,
        topic_id: None,
        partition: request.partition,
        offset: request.offset,
        metadata: request.metadata,
        fence: request.fence.map(|fence| (fence.epoch, fence.member_id)),
    }
}

fn committed_offset(of: CommittedOffset) -> v1::CommittedOffset {
    let (offset, metadata, commit_time) = match of.committed {
        Some((offset, metadata, at_ms)) => (Some(offset), metadata, Some(convert::timestamp(at_ms))),
        None => (None, String::new(), None),
    };
    v1::CommittedOffset {
        partition: of.partition,
        offset,
        metadata,
        commit_time,
        log_start_offset: of.ends.log_start_offset,
        high_watermark: of.ends.high_watermark,
        lag: of.lag,
    }
}
