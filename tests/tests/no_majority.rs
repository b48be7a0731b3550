//! What the leader of a partition does whose other replicas stand still: it says nothing that a majority would have to
//! confirm, and serves everything else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use flotilla_proto::v1;
use flotilla_proto::v1::cluster_client::ClusterClient;
use flotilla_proto::v1::consume_request::Request as Ask;
use flotilla_proto::v1::consume_response::Response as Push;
use flotilla_proto::v1::consumer_client::ConsumerClient;
use flotilla_proto::v1::producer_client::ProducerClient;
use flotilla_proto::v1::topics_client::TopicsClient;
use flotilla_tests::cluster::Cluster;
use flotilla_tests::refusal;
use rustix::process::Signal;
use tokio::task::JoinSet;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

/// What has not happened by then does not happen.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// For requests that others must not hold up.
const DEADLINE: Duration = Duration::from_secs(10);
const ARGS: [&str; 8] =
    ["--journal-bytes", "128MiB", "--request-bytes-max", "2MiB", "--proposal-bytes-max", "8MiB", "--receive-bytes-max", "16MiB"];
/// In flight at once: more than the node takes of proposals, and almost all that it takes of requests.
const REQUESTS: usize = 14;
/// Where everything is as it comes: more than it takes of proposals, and more than it takes of requests.
const REQUESTS_AS_IT_COMES: [usize; 2] = [120, 320];
const REQUEST_BYTES: usize = 1 << 20;
const CONNECTIONS: usize = 4;
/// Requests to the others, one after the other, while those are stuck; at least.
const ROUNDS: usize = 40;

/// A cluster of three, the leader of partition 0 of topic "stuck", and a partition of topic "whole" that only it has.
struct Stand {
    cluster: Cluster,
    leader: u64,
    whole: u32,
    _dir: tempfile::TempDir,
}

impl Stand {
    async fn start(args: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut cluster = Cluster::started(dir.path(), 3, args);
        let mut topics = TopicsClient::new(channel(cluster.node(1).address()).await);
        for (name, partitions, replication_factor) in [("stuck", 1, 3), ("whole", 3, 1)] {
            let create = v1::CreateTopicRequest {
                name: name.into(),
                partitions: Some(partitions),
                replication_factor: Some(replication_factor),
                ..v1::CreateTopicRequest::default()
            };
            topics.create_topic(create).await.unwrap();
            cluster.wait_in_sync(name, PATIENCE).await;
        }
        let leader = described(&mut cluster, 1, "stuck").await[0].leader.unwrap();
        let whole = described(&mut cluster, 1, "whole").await;
        let whole = whole.iter().find(|partition| partition.leader == Some(leader)).unwrap().partition;
        Self { cluster, leader, whole, _dir: dir }
    }

    /// The nodes that do not lead it.
    fn others(&self) -> Vec<u64> {
        (1..=3).filter(|node| *node != self.leader).collect()
    }

    fn signal(&mut self, nodes: &[u64], signal: Signal) {
        nodes.iter().for_each(|node| self.cluster.node(*node).signal(signal));
    }

    async fn channel(&mut self, node: u64) -> Channel {
        channel(self.cluster.node(node).address()).await
    }
}

async fn channel(address: String) -> Channel {
    Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

async fn described(cluster: &mut Cluster, node: u64, topic: &str) -> Vec<v1::Partition> {
    let mut topics = TopicsClient::new(channel(cluster.node(node).address()).await);
    topics.describe_topic(v1::DescribeTopicRequest { name: topic.into() }).await.unwrap().into_inner().partitions
}

fn produce(topic: &str, partition: u32, bytes: usize) -> v1::ProduceRequest {
    let record = v1::Record { value: Some(Bytes::from(vec![7; bytes])), ..v1::Record::default() };
    v1::ProduceRequest {
        topic: topic.into(),
        partition: Some(partition),
        payload: Some(v1::produce_request::Payload::Records(v1::Records { records: vec![record] })),
        ..v1::ProduceRequest::default()
    }
}

fn within<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(DEADLINE);
    request
}

fn earliest() -> Option<v1::Position> {
    Some(v1::Position { at: Some(v1::position::At::Earliest(v1::Earliest {})) })
}

fn latest() -> Option<v1::Position> {
    Some(v1::Position { at: Some(v1::position::At::Latest(v1::Latest {})) })
}

/// Produces until told to stop, so much at once that nothing else fits where it waits.
#[derive(Default)]
struct Flood {
    stop: AtomicBool,
    acknowledged: AtomicU64,
    failed: Mutex<Vec<Status>>,
}

impl Flood {
    fn start(channels: &[Channel], requests: usize) -> (Arc<Self>, JoinSet<()>) {
        let flood = Arc::new(Self::default());
        let clients = channels.iter().cycle().take(requests).map(|channel| flood.clone().produce(channel.clone()));
        (flood.clone(), clients.collect())
    }

    async fn produce(self: Arc<Self>, channel: Channel) {
        let mut producer = ProducerClient::new(channel);
        while !self.stop.load(Ordering::Relaxed) {
            match producer.produce(within(produce("stuck", 0, REQUEST_BYTES))).await {
                Ok(_) => drop(self.acknowledged.fetch_add(1, Ordering::Relaxed)),
                Err(status) => self.failed.lock().unwrap().push(status),
            }
        }
    }

    fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    fn failed(&self) -> usize {
        self.failed.lock().unwrap().len()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_without_a_majority_takes_nothing_from_the_others() {
    without_a_majority(&ARGS, REQUESTS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_much_is_on_its_way_to_it() {
    for requests in REQUESTS_AS_IT_COMES {
        without_a_majority(&[], requests).await;
    }
}

/// Its followers stop while so many requests are on their way.
async fn without_a_majority(args: &[&str], requests: usize) {
    let mut stand = Stand::start(args).await;
    let (leader, others, whole) = (stand.leader, stand.others(), stand.whole);
    let channel = stand.channel(leader).await;
    let (mut producer, mut consumer) = (ProducerClient::new(channel.clone()), ConsumerClient::new(channel.clone()));
    let mut cluster = ClusterClient::new(channel);
    let mut channels = Vec::new();
    for _ in 0..CONNECTIONS {
        channels.push(stand.channel(leader).await);
    }
    let (flood, clients) = Flood::start(&channels, requests);
    while flood.acknowledged() < requests as u64 {
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    stand.signal(&others, Signal::STOP);
    let mut round = 0;
    while round < ROUNDS || flood.failed() < requests {
        round += 1;
        let offset = producer.produce(within(produce("whole", whole, 1_000))).await.unwrap().into_inner().results[0].offset;
        let position = Some(v1::Position { at: Some(v1::position::At::Offset(offset)) });
        let fetch = v1::FetchRequest { topic: "whole".into(), partition: whole, position, ..v1::FetchRequest::default() };
        assert_eq!(consumer.fetch(within(fetch)).await.unwrap().into_inner().records.len(), 1, "round {round}");
        cluster.get_metadata(within(v1::GetMetadataRequest::default())).await.unwrap();
    }
    stand.signal(&others, Signal::CONT);
    let before = flood.acknowledged();
    let goes_on = async {
        while flood.acknowledged() < before + requests as u64 {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    };
    tokio::time::timeout(PATIENCE, goes_on).await.expect("the partition goes on when its replicas do");
    flood.stop.store(true, Ordering::Relaxed);
    clients.join_all().await;
    // A client may give up before the node says why.
    for status in flood.failed.lock().unwrap().iter().filter(|status| status.code() != Code::Cancelled) {
        let reason = refusal::reason(status);
        let expected = ["UNAVAILABLE", "NOT_LEADER", "OUTCOME_UNKNOWN", "DEADLINE_EXCEEDED", "OVERLOADED"];
        assert!(expected.contains(&reason.as_str()), "{status:?}");
    }
}

/// All records and the end that a stream up to the end gives.
async fn until_end(channel: Channel) -> Result<(u64, u64), Status> {
    let open = v1::ConsumeOpen {
        topic: "stuck".into(),
        partitions: vec![v1::PartitionPosition { partition: 0, position: earliest(), stop_offset: None }],
        until_end: true,
        credit: Some(v1::Credit { records: u64::MAX, bytes: u64::MAX }),
        ..v1::ConsumeOpen::default()
    };
    let ask = tokio_stream::iter([v1::ConsumeRequest { request: Some(Ask::Open(open)) }]);
    let mut pushes = ConsumerClient::new(channel).consume(within(ask)).await?.into_inner();
    let (mut records, mut end) = (0, 0);
    while let Some(push) = pushes.message().await? {
        match push.response {
            Some(Push::Records(push)) => records += push.records.len() as u64,
            Some(Push::PartitionEnd(at)) => end = at.next_offset,
            _ => {}
        }
    }
    Ok((records, end))
}

/// Whatever claims where a partition ends.
async fn claims(channel: Channel) -> Vec<(&'static str, Result<u64, Status>)> {
    let mut consumer = ConsumerClient::new(channel.clone());
    let fetch = |position| v1::FetchRequest { topic: "stuck".into(), position, ..v1::FetchRequest::default() };
    let mut never = v1::Record::default().timestamp.unwrap_or_default();
    never.seconds = 1 << 33;
    let never = Some(v1::Position { at: Some(v1::position::At::Timestamp(never)) });
    let list = v1::ListOffsetsRequest { topic: "stuck".into(), position: latest(), ..v1::ListOffsetsRequest::default() };
    vec![
        ("until the end", until_end(channel).await.map(|(_, end)| end)),
        ("latest", consumer.fetch(within(fetch(latest()))).await.map(|answer| answer.into_inner().next_offset)),
        ("a time without records", consumer.fetch(within(fetch(never))).await.map(|answer| answer.into_inner().next_offset)),
        ("offsets", consumer.list_offsets(within(list)).await.map(|answer| answer.into_inner().offsets[0].high_watermark)),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_partition_ends_is_not_told_without_a_majority() {
    const RECORDS: u64 = 20;
    let mut stand = Stand::start(&ARGS).await;
    let (leader, others) = (stand.leader, stand.others());
    let mut producer = ProducerClient::new(stand.channel(leader).await);
    for _ in 0..RECORDS {
        producer.produce(produce("stuck", 0, 10)).await.unwrap();
    }
    // The leader itself, which believes at first that all is well, and a follower.
    for (asked, silent) in [(leader, others.clone()), (others[0], vec![leader, others[1]])] {
        let channel = stand.channel(asked).await;
        stand.signal(&silent, Signal::STOP);
        let ends = described(&mut stand.cluster, asked, "stuck").await;
        assert!(!ends[0].end_confirmed, "{ends:?}");
        for (what, told) in claims(channel.clone()).await {
            let status = told.expect_err(what);
            let reason = refusal::reason(&status);
            assert!(["UNAVAILABLE", "NOT_LEADER"].contains(&reason.as_str()), "{what}: {status:?}");
        }
        // What is committed can be read all the same; of the very last it may not know.
        let fetch = v1::FetchRequest { topic: "stuck".into(), position: earliest(), ..v1::FetchRequest::default() };
        let read = ConsumerClient::new(channel).fetch(within(fetch)).await.unwrap().into_inner().records.len() as u64;
        assert!((RECORDS - 1..=RECORDS).contains(&read), "{read} records");
        stand.signal(&silent, Signal::CONT);
        stand.cluster.wait_in_sync("stuck", PATIENCE).await;
    }
    let channel = stand.channel(leader).await;
    assert_eq!(until_end(channel.clone()).await.unwrap(), (RECORDS, RECORDS));
    for (what, told) in claims(channel).await {
        assert_eq!(told.unwrap(), RECORDS, "{what}");
    }
    assert!(described(&mut stand.cluster, leader, "stuck").await[0].end_confirmed);
}
