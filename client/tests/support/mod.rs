//! A server in this process, over vectors, that can be told to fail: what the client's tests talk to.
//!
//! It keeps the promises of the API that the client builds on: order within a stream, sequence checks per producer and
//! partition with the last five batches remembered, credits.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod consume;
mod produce;
pub mod proxy;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use flotilla_client::{Client, ClientOptions};
use flotilla_proto::v1;
use flotilla_proto::v1::cluster_server::{Cluster, ClusterServer};
use flotilla_records::{Batch, ProducerStamp};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};

pub const TOPIC: &str = "ships";

/// What to do with one produced batch instead of appending and answering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Append it, then break the stream: the client cannot know.
    BreakAfterAppend,
    /// Break the stream without having appended it.
    BreakBefore,
    /// Append it and say nothing.
    AppendSilently,
    /// Nobody leads its partition: refuse it once it has waited for a leader as long as it may.
    NoLeader,
    /// Refuse it for now, with this reason.
    Refuse(&'static str),
    /// Refuse it for good.
    Reject(&'static str),
    /// Forget all producers, then go on as usual.
    ForgetProducers,
}

pub type Breaks = Box<dyn Fn(u64) -> bool + Send>;

/// Decides about the n-th produced batch (from 0).
pub type Script = Box<dyn FnMut(u64) -> Option<Fault> + Send>;

#[derive(Default)]
pub struct Log {
    pub batches: Vec<(u64, Bytes)>,
    pub start: u64,
    pub end: u64,
    producers: HashMap<(i64, i16), Remembered>,
}

/// The last batches of a producer: stamp, records, offset.
type Remembered = VecDeque<(ProducerStamp, u32, u64)>;

#[derive(Default)]
pub struct State {
    pub logs: Vec<Log>,
    produced: u64,
    script: Option<Script>,
    producer_ids: u64,
    /// Which node leads a partition, as metadata says.
    pub leaders: HashMap<u32, u64>,
    /// Where the nodes are, as metadata says.
    pub nodes: HashMap<u64, String>,
    pub topic_id: String,
    /// Produce streams are not opened.
    pub refuses_streams: bool,
    /// Breaks a consume stream at its n-th message (counted over all streams, from 1) if it says so.
    pub break_consume_at: Option<Breaks>,
    pub consume_streams: u64,
    pub pushed_messages: u64,
}

/// The server. Clones share it.
#[derive(Clone)]
pub struct Fake {
    pub address: String,
    /// Each is a cluster of its own.
    pub cluster_id: String,
    pub state: Arc<Mutex<State>>,
    /// Rises with each append.
    appended: Arc<watch::Sender<u64>>,
    /// Answers to produce wait while false.
    pub answering: Arc<watch::Sender<bool>>,
}

impl Fake {
    pub async fn start(partitions: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let state = State { logs: (0..partitions).map(|_| Log::default()).collect(), ..State::default() };
        let address = listener.local_addr().unwrap().to_string();
        let fake = Self {
            cluster_id: format!("cluster of {address}"),
            address,
            state: Arc::new(Mutex::new(state)),
            appended: Arc::new(watch::Sender::new(0)),
            answering: Arc::new(watch::Sender::new(true)),
        };
        let router = tonic::transport::Server::builder()
            .add_service(ClusterServer::new(fake.clone()))
            .add_service(v1::producer_server::ProducerServer::new(fake.clone()).max_decoding_message_size(32 << 20))
            .add_service(v1::consumer_server::ConsumerServer::new(fake.clone()));
        tokio::spawn(router.serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true))));
        fake
    }

    pub async fn client(&self) -> Client {
        Client::connect([self.address.clone()], ClientOptions::default()).await.unwrap()
    }

    fn nodes(&self) -> Vec<v1::Node> {
        let nodes = self.state.lock().unwrap().nodes.clone().into_iter();
        nodes.map(|(node_id, address)| v1::Node { node_id, address, online: true, ..Default::default() }).collect()
    }

    /// From now on metadata says that a node at this address leads a partition.
    pub fn lead(&self, partition: u32, node_id: u64, address: &str) {
        let mut state = self.state.lock().unwrap();
        state.leaders.insert(partition, node_id);
        state.nodes.insert(node_id, address.to_owned());
    }

    /// Deletes the topic, and creates it again under its name.
    pub fn recreate(&self) {
        let mut state = self.state.lock().unwrap();
        state.topic_id += "again";
        let count = state.logs.len();
        state.logs = (0..count).map(|_| Log::default()).collect();
    }

    pub fn script(&self, script: impl FnMut(u64) -> Option<Fault> + Send + 'static) {
        self.state.lock().unwrap().script = Some(Box::new(script));
    }

    /// Every record of a partition: value and offset, in order.
    pub fn values(&self, partition: usize) -> Vec<(Vec<u8>, u64)> {
        let state = self.state.lock().unwrap();
        let mut values = Vec::new();
        for (base, bytes) in &state.logs[partition].batches {
            let body = Batch::parse(bytes.clone()).unwrap().body(1 << 30).unwrap();
            for record in &body {
                let record = record.unwrap();
                values.push((record.value.unwrap_or_default().to_vec(), base + u64::from(record.offset_delta)));
            }
        }
        values
    }

    pub fn all_values(&self) -> Vec<Vec<u8>> {
        let partitions = self.state.lock().unwrap().logs.len();
        (0..partitions).flat_map(|partition| self.values(partition)).map(|(value, _)| value).collect()
    }
}

/// Whether a request means another topic than the one that is there.
fn means_another(state: &State, topic_id: Option<&str>) -> bool {
    topic_id.is_some_and(|id| id != state.topic_id)
}

/// A refusal as the real server makes them.
pub fn refusal(code: Code, reason: &str) -> Status {
    let details = ErrorDetails::with_error_info(reason, "flotilla", HashMap::new());
    Status::with_error_details(code, format!("refused: {reason}"), details)
}

#[tonic::async_trait]
impl Cluster for Fake {
    async fn describe_cluster(
        &self,
        _: Request<v1::DescribeClusterRequest>,
    ) -> Result<Response<v1::DescribeClusterResponse>, Status> {
        Ok(Response::new(v1::DescribeClusterResponse::default()))
    }

    async fn get_metadata(&self, request: Request<v1::GetMetadataRequest>) -> Result<Response<v1::GetMetadataResponse>, Status> {
        let partition_count = self.state.lock().unwrap().logs.len() as u32;
        let mut topics = Vec::new();
        for name in request.into_inner().topics {
            if name != TOPIC {
                return Err(refusal(Code::NotFound, "UNKNOWN_TOPIC"));
            }
            let leader = |partition| self.state.lock().unwrap().leaders.get(&partition).copied();
            let partitions =
                (0..partition_count).map(|partition| v1::PartitionLeader { partition, leader: leader(partition) }).collect();
            let id = self.state.lock().unwrap().topic_id.clone();
            let topic = Some(v1::Topic { name, id, partition_count, ..Default::default() });
            topics.push(v1::TopicMetadata { topic, partitions });
        }
        let retry_backoff = Some(prost_types::Duration { seconds: 0, nanos: 1_000_000 });
        let limits = v1::Limits { retry_backoff, ..Default::default() };
        let (nodes, cluster_id) = (self.nodes(), self.cluster_id.clone());
        Ok(Response::new(v1::GetMetadataResponse { version: 1, nodes, topics, limits: Some(limits), cluster_id }))
    }

    async fn verify_replicas(
        &self,
        _: Request<v1::VerifyReplicasRequest>,
    ) -> Result<Response<v1::VerifyReplicasResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

/// Numbers that look random and come again with the same seed (xorshift64).
pub fn numbers(seed: u64) -> impl FnMut() -> u64 + Send + 'static {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}
