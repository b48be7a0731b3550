//! The Groups service: committed offsets.

use flotilla_broker::{Commit, CommittedOffset};
use flotilla_proto::v1;
use flotilla_proto::v1::groups_server::Groups;
use tonic::{Request, Response, Status};

use super::Shared;
use super::call::unary;
use super::convert;

/// See the module.
pub struct GroupsService(pub Shared);

#[tonic::async_trait]
impl Groups for GroupsService {
    async fn commit(&self, request: Request<v1::CommitRequest>) -> Result<Response<v1::CommitResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let commit = async {
            self.0.broker.commit(commit(request)).await?;
            Ok(v1::CommitResponse {})
        };
        unary(&self.0.metrics, "Commit", &metadata, commit).await
    }

    async fn committed(&self, request: Request<v1::CommittedRequest>) -> Result<Response<v1::CommittedResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let committed = async {
            let offsets = self.0.broker.committed(&request.group, &request.topic, &request.partitions).await?;
            Ok(v1::CommittedResponse { offsets: offsets.into_iter().map(committed_offset).collect() })
        };
        unary(&self.0.metrics, "Committed", &metadata, committed).await
    }
}

/// A request in the broker's words.
pub fn commit(request: v1::CommitRequest) -> Commit {
    Commit {
        group: request.group,
        topic: request.topic,
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
