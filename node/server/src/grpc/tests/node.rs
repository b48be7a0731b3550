//! A node for tests, and the clients to it.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use flotilla_broker::Broker;
use flotilla_proto::v1;
use flotilla_proto::v1::cluster_client::ClusterClient;
use flotilla_proto::v1::consumer_client::ConsumerClient;
use flotilla_proto::v1::groups_client::GroupsClient;
use flotilla_proto::v1::producer_client::ProducerClient;
use flotilla_proto::v1::topics_client::TopicsClient;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::transport::Channel;
use tonic_types::StatusExt;

use crate::config::{Config, Flags, load};
use crate::grpc::Directory;
use crate::server::{Listeners, ServerError, run_in};

/// A running node. Dropping it leaves the node to the end of its runtime.
pub struct Node {
    pub dir: TempDir,
    pub address: String,
    pub channel: Channel,
    pub stop: CancellationToken,
    pub ended: JoinHandle<Result<(), ServerError>>,
}

fn config(dir: &Path) -> Config {
    let environment = |name: &str| match name {
        "FLOTILLA_DATA_DIR" => Some(dir.display().to_string()),
        "FLOTILLA_LISTEN" | "FLOTILLA_HTTP" => Some("127.0.0.1:0".to_owned()),
        "FLOTILLA_JOURNAL_BYTES" => Some("128MiB".to_owned()),
        "FLOTILLA_REQUEST_BYTES_MAX" => Some("8MiB".to_owned()),
        "FLOTILLA_DECOMPRESSED_BYTES_MAX" => Some("16MiB".to_owned()),
        "FLOTILLA_RECORDS_PER_BATCH_MAX" => Some("1000".to_owned()),
        _ => None,
    };
    load(&Flags::default(), environment, None).unwrap().0
}

impl Node {
    pub async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap()).await
    }

    pub async fn start_in(dir: TempDir) -> Self {
        Self::start_seeing(dir, |broker| Arc::new(broker.clone())).await
    }

    /// A node to which the cluster looks as `cluster` says.
    pub async fn start_seeing(dir: TempDir, cluster: impl FnOnce(&Broker) -> Arc<dyn Directory> + Send + 'static) -> Self {
        let config = config(dir.path());
        let listeners = Listeners::bind(&config).await.unwrap();
        let address = listeners.grpc_address();
        let stop = CancellationToken::new();
        let told = stop.clone();
        let ended = tokio::spawn(async move { run_in(&config, listeners, told, cluster).await });
        // The listener is open already; calls wait in its queue until the node serves.
        let endpoint = Channel::from_shared(format!("http://{address}")).unwrap();
        Self { dir, address: address.to_string(), channel: endpoint.connect_lazy(), stop, ended }
    }

    /// Tells the node to stop, and waits until it has.
    pub async fn stop(self) -> TempDir {
        self.stop.cancel();
        self.ended.await.unwrap().unwrap();
        self.dir
    }

    pub fn producer(&self) -> ProducerClient<Channel> {
        ProducerClient::new(self.channel.clone())
    }

    pub fn consumer(&self) -> ConsumerClient<Channel> {
        ConsumerClient::new(self.channel.clone())
    }

    pub fn topics(&self) -> TopicsClient<Channel> {
        TopicsClient::new(self.channel.clone())
    }

    pub fn groups(&self) -> GroupsClient<Channel> {
        GroupsClient::new(self.channel.clone())
    }

    pub fn cluster(&self) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel.clone())
    }

    pub async fn create(&self, name: &str, partitions: u32) {
        let request = v1::CreateTopicRequest { name: name.into(), partitions: Some(partitions), ..Default::default() };
        self.topics().create_topic(request).await.unwrap();
    }

    /// One record behind the last of partition 0 of topic "t".
    pub async fn high_watermark(&self) -> u64 {
        let described = self.topics().describe_topic(v1::DescribeTopicRequest { name: "t".into() }).await.unwrap();
        described.into_inner().partitions[0].high_watermark
    }

    /// Produces records "0", "1", … to partition 0 of topic "t".
    pub async fn fill(&self, records: u64) {
        let values: Vec<_> = (0..records).map(|n| n.to_string()).collect();
        for part in values.chunks(1_000) {
            self.producer().produce(produce(part)).await.unwrap();
        }
    }
}

/// Plain records for partition 0 of topic "t".
pub fn produce(values: &[impl AsRef<str>]) -> v1::ProduceRequest {
    let record = |value: &str| v1::Record { value: Some(Bytes::copy_from_slice(value.as_bytes())), ..Default::default() };
    let records = v1::Records { records: values.iter().map(|value| record(value.as_ref())).collect() };
    v1::ProduceRequest {
        topic: "t".into(),
        partition: Some(0),
        payload: Some(v1::produce_request::Payload::Records(records)),
        ..Default::default()
    }
}

/// An encoded batch for partition 0 of topic "t".
pub fn produce_batch(batch: Bytes) -> v1::ProduceRequest {
    let payload = Some(v1::produce_request::Payload::Batch(batch));
    v1::ProduceRequest { topic: "t".into(), partition: Some(0), payload, ..Default::default() }
}

pub fn offset(offset: u64) -> Option<v1::Position> {
    Some(v1::Position { at: Some(v1::position::At::Offset(offset)) })
}

pub fn reason(status: &Status) -> String {
    status.get_error_details().error_info().map(|info| info.reason.clone()).unwrap_or_default()
}
