//! What this node asks of other nodes about the cluster: the client's side of the Peer service.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flotilla_proto::internal::v1;
use flotilla_proto::internal::v1::controller_command::Command;
use flotilla_proto::internal::v1::peer_client::PeerClient;
use flotilla_raft::network::Dialer;
use prost::Message;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};

/// How long a node may take to answer that it is there.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a connection is asked whether it still leads anywhere, and how long that may take: TCP itself notices only after
/// minutes that a machine is gone or was cut off for a while.
const PING_INTERVAL: Duration = Duration::from_secs(1);
const PING_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a command of the controller may take.
const CONTROL_TIMEOUT: Duration = Duration::from_secs(5);

/// Channels to other nodes, opened when they are needed. They connect again by themselves.
pub(crate) struct PeerCalls {
    dialer: Arc<dyn Dialer>,
    channels: Mutex<HashMap<String, Channel>>,
}

/// What became of a controller command.
#[derive(Debug)]
pub(crate) enum Proposed {
    Done(v1::ControlDone),
    /// In words.
    Refused(String),
    /// Nothing happened. Who leads, if the asked node knows.
    NotLeader(Option<u64>),
    /// It may or may not take effect; in words.
    Unknown(String),
}

impl PeerCalls {
    pub(crate) fn new(dialer: Arc<dyn Dialer>) -> Self {
        Self { dialer, channels: Mutex::default() }
    }

    /// Who is at `address`, if anybody answers.
    pub(crate) async fn introduce(&self, address: &str, request: v1::IntroduceRequest) -> Option<v1::IntroduceResponse> {
        let mut client = self.client(address).ok()?;
        let mut request = Request::new(request);
        request.set_timeout(ASK_TIMEOUT);
        let answer = self.within(ASK_TIMEOUT, address, client.introduce(request)).await;
        answer.inspect_err(|status| tracing::debug!(address, %status, "no introduction")).ok()
    }

    /// Makes the node at `address` a member of the cluster that is being formed.
    pub(crate) async fn form(&self, address: &str, request: v1::FormRequest) -> Result<(), Status> {
        let mut request = Request::new(request);
        request.set_timeout(CONTROL_TIMEOUT);
        self.client(address)?.form(request).await.map(|_| ())
    }

    /// Proposes a controller command through the node at `address`.
    pub(crate) async fn control(&self, address: &str, command: Command, forwarded: bool) -> Proposed {
        let command = v1::ControllerCommand { command: Some(command) }.encode_to_vec().into();
        let mut request = Request::new(v1::ControlRequest { command, forwarded });
        request.set_timeout(CONTROL_TIMEOUT);
        let answer = match self.client(address) {
            Ok(mut client) => self.within(CONTROL_TIMEOUT, address, client.control(request)).await,
            Err(_) => return Proposed::NotLeader(None),
        };
        match answer {
            Ok(answer) => match answer.result {
                Some(v1::control_response::Result::Done(done)) => Proposed::Done(done),
                Some(v1::control_response::Result::Refused(reason)) => Proposed::Refused(reason),
                Some(v1::control_response::Result::NotLeader(leader)) => Proposed::NotLeader((leader != 0).then_some(leader)),
                Some(v1::control_response::Result::Unknown(reason)) => Proposed::Unknown(reason),
                None => Proposed::Unknown(format!("{address} answered nothing")),
            },
            Err(status) if status.code() == Code::Unimplemented => Proposed::NotLeader(None),
            Err(status) => Proposed::Unknown(status.message().to_owned()),
        }
    }

    /// How partitions stand that the node at `address` leads.
    pub(crate) async fn describe(&self, address: &str, group_ids: Vec<u64>) -> Vec<v1::PartitionStatus> {
        let Ok(mut client) = self.client(address) else { return Vec::new() };
        let mut request = Request::new(v1::DescribePartitionsRequest { group_ids });
        request.set_timeout(ASK_TIMEOUT);
        let answer = self.within(ASK_TIMEOUT, address, client.describe_partitions(request)).await;
        answer.map(|answer| answer.partitions).unwrap_or_default()
    }

    /// What is wrong on the node at `address`; `None` if it does not say.
    pub(crate) async fn troubles(&self, address: &str) -> Option<Vec<v1::Trouble>> {
        let mut client = self.client(address).ok()?;
        let mut request = Request::new(v1::TroublesRequest {});
        request.set_timeout(ASK_TIMEOUT);
        let answer = self.within(ASK_TIMEOUT, address, client.troubles(request)).await;
        answer.map(|answer| answer.troubles).ok()
    }

    /// What the replicas of groups on the node at `address` have applied; `None` if it does not say.
    pub(crate) async fn tracks(&self, address: &str, group_ids: Vec<u64>) -> Option<Vec<v1::ReplicaTrack>> {
        let mut client = self.client(address).ok()?;
        let mut request = Request::new(v1::TracksRequest { group_ids });
        request.set_timeout(ASK_TIMEOUT);
        let answer = self.within(ASK_TIMEOUT, address, client.tracks(request)).await;
        answer.map(|answer| answer.replicas).ok()
    }

    /// Asks the node at `address` that groups which it leads go on without a damaged replica.
    pub(crate) async fn release(&self, address: &str, request: v1::ReleaseRequest) -> Option<v1::ReleaseResponse> {
        let mut client = self.client(address).ok()?;
        let mut request = Request::new(request);
        request.set_timeout(CONTROL_TIMEOUT);
        let answer = self.within(CONTROL_TIMEOUT, address, client.release(request)).await;
        answer.inspect_err(|status| tracing::warn!(address, reason = status.message(), "a damaged replica was not let go")).ok()
    }

    /// The answer to a call. A connection over which none comes in time is given up, so that the next call opens another:
    /// the process at its other end may be gone, or about to belong to another server.
    async fn within<T>(
        &self,
        patience: Duration,
        address: &str,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Status> {
        let answer = tokio::time::timeout(patience, call).await;
        let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded(format!("{address} did not answer in time"))));
        if let Err(status) = &answer
            && matches!(status.code(), Code::Cancelled | Code::DeadlineExceeded)
        {
            self.channels.lock().unwrap_or_else(PoisonError::into_inner).remove(address);
        }
        answer.map(Response::into_inner)
    }

    fn client(&self, address: &str) -> Result<PeerClient<Channel>, Status> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(address) {
            return Ok(PeerClient::new(channel.clone()));
        }
        let endpoint = Endpoint::from_shared(format!("http://{address}"));
        let endpoint = endpoint.map_err(|error| Status::invalid_argument(format!("{address}: {error}")))?;
        let channel = self.dialer.dial_lazily(kept_alive(endpoint));
        channels.insert(address.to_owned(), channel.clone());
        Ok(PeerClient::new(channel))
    }
}

fn kept_alive(endpoint: Endpoint) -> Endpoint {
    endpoint
        .tcp_nodelay(true)
        .connect_timeout(ASK_TIMEOUT)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
}
