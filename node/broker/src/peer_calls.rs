//! What this node asks of other nodes about the cluster: the client's side of the Peer service.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use flotilla_proto::internal::v1;
use flotilla_proto::internal::v1::controller_command::Command;
use flotilla_proto::internal::v1::peer_client::PeerClient;
use prost::Message;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

/// How long a node may take to answer that it is there.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a command of the controller may take.
const CONTROL_TIMEOUT: Duration = Duration::from_secs(5);

/// Channels to other nodes, opened when they are needed. They connect again by themselves.
#[derive(Default)]
pub(crate) struct PeerCalls {
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
    /// Who is at `address`, if anybody answers.
    pub(crate) async fn introduce(&self, address: &str, request: v1::IntroduceRequest) -> Option<v1::IntroduceResponse> {
        let mut client = self.client(address).ok()?;
        let mut request = Request::new(request);
        request.set_timeout(ASK_TIMEOUT);
        match tokio::time::timeout(ASK_TIMEOUT, client.introduce(request)).await {
            Ok(Ok(answer)) => Some(answer.into_inner()),
            Ok(Err(status)) => {
                tracing::debug!(address, %status, "no introduction");
                None
            }
            Err(_) => None,
        }
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
            Ok(mut client) => tokio::time::timeout(CONTROL_TIMEOUT, client.control(request)).await,
            Err(_) => return Proposed::NotLeader(None),
        };
        match answer {
            Ok(Ok(answer)) => match answer.into_inner().result {
                Some(v1::control_response::Result::Done(done)) => Proposed::Done(done),
                Some(v1::control_response::Result::Refused(reason)) => Proposed::Refused(reason),
                Some(v1::control_response::Result::NotLeader(leader)) => Proposed::NotLeader((leader != 0).then_some(leader)),
                Some(v1::control_response::Result::Unknown(reason)) => Proposed::Unknown(reason),
                None => Proposed::Unknown(format!("{address} answered nothing")),
            },
            Ok(Err(status)) if status.code() == Code::Unimplemented => Proposed::NotLeader(None),
            Ok(Err(status)) => Proposed::Unknown(status.message().to_owned()),
            Err(_) => Proposed::Unknown(format!("{address} did not answer in time")),
        }
    }

    /// How partitions stand that the node at `address` leads.
    pub(crate) async fn describe(&self, address: &str, group_ids: Vec<u64>) -> Vec<v1::PartitionStatus> {
        let Ok(mut client) = self.client(address) else { return Vec::new() };
        let mut request = Request::new(v1::DescribePartitionsRequest { group_ids });
        request.set_timeout(ASK_TIMEOUT);
        match tokio::time::timeout(ASK_TIMEOUT, client.describe_partitions(request)).await {
            Ok(Ok(answer)) => answer.into_inner().partitions,
            _ => Vec::new(),
        }
    }

    fn client(&self, address: &str) -> Result<PeerClient<Channel>, Status> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(address) {
            return Ok(PeerClient::new(channel.clone()));
        }
        let endpoint = Endpoint::from_shared(format!("http://{address}"));
        let endpoint = endpoint.map_err(|error| Status::invalid_argument(format!("{address}: {error}")))?;
        let channel = endpoint.tcp_nodelay(true).connect_timeout(ASK_TIMEOUT).connect_lazy();
        channels.insert(address.to_owned(), channel.clone());
        Ok(PeerClient::new(channel))
    }
}
