//! Every refusal of the API has its own reason and the documented status code, and leaves the log as it was.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use bytes::Bytes;
use flotilla_client::Codec;
use flotilla_proto::v1;
use flotilla_proto::v1::cluster_client::ClusterClient;
use flotilla_proto::v1::consumer_client::ConsumerClient;
use flotilla_proto::v1::groups_client::GroupsClient;
use flotilla_proto::v1::position::At;
use flotilla_proto::v1::produce_request::Payload;
use flotilla_proto::v1::producer_client::ProducerClient;
use flotilla_proto::v1::topics_client::TopicsClient;
use flotilla_records::ProducerStamp;
use flotilla_tests::batch::{self, encode};
use flotilla_tests::read::{self, Partitions};
use flotilla_tests::refusal::{check, check_documented};
use flotilla_tests::server::Server;
use tonic::transport::Channel;
use tonic::{Code, Status};

const TOPIC: &str = "kept";
const PARTITIONS: u32 = 2;
const DECOMPRESSED_BYTES_MAX: usize = 1 << 20;
const REQUEST_BYTES_MAX: usize = 6 << 20;
const RECORDS_MAX: usize = 1_000;

/// A server with small limits, a topic with records, the first of them deleted, and another topic deleted.
struct Fixture {
    _dir: tempfile::TempDir,
    server: Server,
    channel: Channel,
    before: Partitions,
}

impl Fixture {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let limits = ["--decompressed-bytes-max", "1MiB", "--request-bytes-max", "6MiB", "--records-per-batch-max", "1000"];
        let server = Server::started(dir.path(), &limits);
        let client = server.client().await;
        for topic in [TOPIC, "deleted"] {
            read::create_topic(&client, topic, PARTITIONS).await;
        }
        flotilla_tests::history::send(&client, TOPIC, 1, 0..100).await.unwrap();
        let delete = v1::DeleteRecordsRequest { topic: TOPIC.into(), partition: 0, before_offset: 5 };
        client.delete_records(delete).await.unwrap();
        client.delete_topic(v1::DeleteTopicRequest { name: "deleted".into(), if_exists: false }).await.unwrap();
        let channel = Channel::from_shared(format!("http://{}", server.address())).unwrap().connect().await.unwrap();
        let before = read::all(&client, TOPIC).await;
        Self { _dir: dir, server, channel, before }
    }

    async fn produce(&self, request: v1::ProduceRequest) -> Result<v1::ProduceResponse, Status> {
        ProducerClient::new(self.channel.clone()).produce(request).await.map(tonic::Response::into_inner)
    }

    async fn batch(&self, batch: Bytes) -> Result<v1::ProduceResponse, Status> {
        self.produce(to(TOPIC, 0, Payload::Batch(batch))).await
    }

    async fn fetch(&self, topic: &str, partition: u32, offset: u64) -> Result<v1::FetchResponse, Status> {
        let position = at(At::Offset(offset));
        let request = v1::FetchRequest { topic: topic.into(), partition, position, ..Default::default() };
        ConsumerClient::new(self.channel.clone()).fetch(request).await.map(tonic::Response::into_inner)
    }

    /// The first message behind the opening of a stream.
    async fn consume(&self, topic: &str, partition: u32, offset: u64) -> Result<v1::ConsumeResponse, Status> {
        let partitions = vec![v1::PartitionPosition { partition, position: at(At::Offset(offset)), stop_offset: None }];
        let credit = Some(v1::Credit { records: 10, bytes: 1 << 20 });
        let open = v1::ConsumeOpen { topic: topic.into(), partitions, credit, ..Default::default() };
        let request = v1::ConsumeRequest { request: Some(v1::consume_request::Request::Open(open)) };
        let mut stream = ConsumerClient::new(self.channel.clone()).consume(tokio_stream::iter([request])).await?.into_inner();
        loop {
            let answer = stream.message().await?.expect("the stream ended without an error");
            if !matches!(answer.response, Some(v1::consume_response::Response::Opened(_))) {
                return Ok(answer);
            }
        }
    }

    async fn create(&self, name: &str, partitions: u32) -> Result<v1::CreateTopicResponse, Status> {
        self.create_with(v1::CreateTopicRequest { name: name.into(), partitions: Some(partitions), ..Default::default() }).await
    }

    async fn create_with(&self, request: v1::CreateTopicRequest) -> Result<v1::CreateTopicResponse, Status> {
        TopicsClient::new(self.channel.clone()).create_topic(request).await.map(tonic::Response::into_inner)
    }

    async fn commit(&self, request: v1::CommitRequest) -> Result<v1::CommitResponse, Status> {
        GroupsClient::new(self.channel.clone()).commit(request).await.map(tonic::Response::into_inner)
    }

    /// Nothing was written, deleted, created or forgotten; also not behind the scenes, which a restart would show.
    async fn unchanged(mut self) {
        for _ in 0..2 {
            let client = self.server.client().await;
            assert_eq!(read::all(&client, TOPIC).await, self.before);
            let bounds = read::bounds(&client, TOPIC).await;
            let end = |partition: u32| self.before[&partition].last().unwrap().offset + 1;
            assert_eq!(bounds.into_iter().collect::<Vec<_>>(), [(0, (5, end(0))), (1, (0, end(1)))]);
            let topics = client.list_topics(v1::ListTopicsRequest {}).await.unwrap().topics;
            assert_eq!(topics.iter().map(|topic| topic.name.as_str()).collect::<Vec<_>>(), [TOPIC]);
            let committed =
                v1::CommittedRequest { group: "group".into(), topic: TOPIC.into(), partitions: vec![], topic_id: None };
            let committed = client.committed(committed).await.unwrap().offsets;
            assert!(committed.iter().all(|committed| committed.offset.is_none()), "{committed:?}");
            self.server.kill();
            self.server.start();
        }
    }
}

fn to(topic: &str, partition: u32, payload: Payload) -> v1::ProduceRequest {
    v1::ProduceRequest { topic: topic.into(), partition: Some(partition), payload: Some(payload), ..Default::default() }
}

fn at(at: At) -> Option<v1::Position> {
    Some(v1::Position { at: Some(at) })
}

fn good() -> Bytes {
    encode(&["value"], Codec::None, None)
}

fn plain(value: Vec<u8>) -> Payload {
    Payload::Records(v1::Records { records: vec![v1::Record { value: Some(value.into()), ..Default::default() }] })
}

fn commit(topic: &str, partition: u32, offset: u64) -> v1::CommitRequest {
    v1::CommitRequest { group: "group".into(), topic: topic.into(), partition, offset, ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there() {
    let f = Fixture::new().await;
    for topic in ["deleted", "never-there"] {
        check(topic, f.produce(to(topic, 0, Payload::Batch(good()))).await, "UNKNOWN_TOPIC");
        check(topic, f.fetch(topic, 0, 0).await, "UNKNOWN_TOPIC");
        check(topic, f.consume(topic, 0, 0).await, "UNKNOWN_TOPIC");
        check(topic, f.commit(commit(topic, 0, 0)).await, "UNKNOWN_TOPIC");
        let mut topics = TopicsClient::new(f.channel.clone());
        check(topic, topics.describe_topic(v1::DescribeTopicRequest { name: topic.into() }).await, "UNKNOWN_TOPIC");
        let delete = v1::DeleteTopicRequest { name: topic.into(), if_exists: false };
        check(topic, topics.delete_topic(delete).await, "UNKNOWN_TOPIC");
        let request = v1::GetMetadataRequest { topics: vec![topic.into()] };
        check(topic, ClusterClient::new(f.channel.clone()).get_metadata(request).await, "UNKNOWN_TOPIC");
    }
    for partition in [PARTITIONS, u32::MAX] {
        check("produce", f.produce(to(TOPIC, partition, Payload::Batch(good()))).await, "UNKNOWN_PARTITION");
        check("produce plain", f.produce(to(TOPIC, partition, plain(b"v".to_vec()))).await, "UNKNOWN_PARTITION");
        check("fetch", f.fetch(TOPIC, partition, 0).await, "UNKNOWN_PARTITION");
        check("consume", f.consume(TOPIC, partition, 0).await, "UNKNOWN_PARTITION");
        check("commit", f.commit(commit(TOPIC, partition, 0)).await, "UNKNOWN_PARTITION");
        let delete = v1::DeleteRecordsRequest { topic: TOPIC.into(), partition, before_offset: 1 };
        check("delete", TopicsClient::new(f.channel.clone()).delete_records(delete).await, "UNKNOWN_PARTITION");
        let list = v1::ListOffsetsRequest {
            topic: TOPIC.into(),
            partitions: vec![partition],
            position: at(At::Earliest(v1::Earliest {})),
            topic_id: None,
        };
        check("list offsets", ConsumerClient::new(f.channel.clone()).list_offsets(list).await, "UNKNOWN_PARTITION");
    }
    f.unchanged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_that_are_not_there() {
    let f = Fixture::new().await;
    let end = f.before[&0].last().unwrap().offset + 1;
    // Partition 0 begins at 5.
    for offset in [0, 4, end + 1, u64::MAX] {
        check("fetch", f.fetch(TOPIC, 0, offset).await, "OFFSET_OUT_OF_RANGE");
        check("consume", f.consume(TOPIC, 0, offset).await, "OFFSET_OUT_OF_RANGE");
    }
    for offset in [5, end] {
        f.fetch(TOPIC, 0, offset).await.unwrap();
    }
    for offset in [end + 1, u64::MAX] {
        check("commit", f.commit(commit(TOPIC, 0, offset)).await, "OFFSET_OUT_OF_RANGE");
        let delete = v1::DeleteRecordsRequest { topic: TOPIC.into(), partition: 0, before_offset: offset };
        check("delete", TopicsClient::new(f.channel.clone()).delete_records(delete).await, "OFFSET_OUT_OF_RANGE");
    }
    f.unchanged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_that_are_wrong() {
    let f = Fixture::new().await;
    let (whole, mut broken) = (good(), good().to_vec());
    *broken.last_mut().unwrap() ^= 1;
    check("corrupt", f.batch(broken.into()).await, "CORRUPT_BATCH");
    check("empty", f.batch(Bytes::new()).await, "INVALID_BATCH");
    check("cut", f.batch(whole.slice(..whole.len() - 1)).await, "INVALID_BATCH");
    check("two", f.batch([whole.clone(), whole.clone()].concat().into()).await, "INVALID_BATCH");
    let resealed = |at: usize, byte: u8| {
        let mut bytes = whole.to_vec();
        bytes[at] = byte;
        batch::reseal(&mut bytes);
        Bytes::from(bytes)
    };
    check("magic 1", f.batch(resealed(16, 1)).await, "INVALID_BATCH");
    check("codec 5", f.batch(resealed(22, 5)).await, "UNKNOWN_CODEC");
    check("codec 7", f.batch(resealed(22, 7)).await, "UNKNOWN_CODEC");
    check("control", f.batch(resealed(22, 1 << 5)).await, "INVALID_BATCH");
    check("count", f.batch(resealed(60, 2)).await, "INVALID_BATCH");
    check("says gzip, is not", f.batch(resealed(22, 1)).await, "INVALID_BATCH");
    let odd_codec = v1::ProduceRequest { codec: 99, ..to(TOPIC, 0, plain(b"value".to_vec())) };
    check("plain codec", f.produce(odd_codec).await, "UNKNOWN_CODEC");
    f.unchanged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large() {
    let f = Fixture::new().await;
    let large = "x".repeat(5 << 20);
    check("bytes", f.batch(encode(&[&large], Codec::None, None)).await, "BATCH_TOO_LARGE");
    check("plain bytes", f.produce(to(TOPIC, 0, plain(large.into_bytes()))).await, "BATCH_TOO_LARGE");
    check("records", f.batch(encode(&vec!["v"; RECORDS_MAX + 1], Codec::None, None)).await, "BATCH_TOO_LARGE");
    let bomb = vec![0; 16 * DECOMPRESSED_BYTES_MAX];
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let batch = encode(&[&bomb], codec, None);
        assert!(batch.len() < DECOMPRESSED_BYTES_MAX, "{codec:?} compresses it");
        check(&format!("bomb {codec:?}"), f.batch(batch).await, "DECOMPRESSED_TOO_LARGE");
    }
    let request = to(TOPIC, 0, plain(vec![0; REQUEST_BYTES_MAX + 1]));
    check("request", f.produce(request).await, "REQUEST_TOO_LARGE");
    assert!(f.server.resident_bytes() < 512 << 20, "bombs cost memory: {}", f.server.resident_bytes());
    f.unchanged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_settings_that_are_not_allowed() {
    let f = Fixture::new().await;
    let long = "x".repeat(250);
    for name in ["", ".", "..", "a/b", "größe", "a b", "a\n", long.as_str()] {
        check(&format!("topic {name:?}"), f.create(name, 1).await, "INVALID_NAME");
    }
    for group in ["", "a\u{7}", &"x".repeat(256)] {
        let request = v1::CommitRequest { group: group.into(), ..commit(TOPIC, 0, 6) };
        check(&format!("group {group:?}"), f.commit(request).await, "INVALID_NAME");
    }
    check("exists", f.create(TOPIC, PARTITIONS).await, "TOPIC_EXISTS");
    check("no partitions", f.create("new", 0).await, "INVALID_CONFIG");
    check("many partitions", f.create("new", 10_001).await, "INVALID_CONFIG");
    let replicas = v1::CreateTopicRequest { name: "new".into(), replication_factor: Some(2), ..Default::default() };
    check("replicas", f.create_with(replicas).await, "INVALID_CONFIG");
    let config = v1::TopicConfig { batch_bytes_max: Some(17 << 20), ..Default::default() };
    let batches = v1::CreateTopicRequest { name: "new".into(), config: Some(config), ..Default::default() };
    check("batch_bytes_max", f.create_with(batches).await, "INVALID_CONFIG");
    let mut topics = TopicsClient::new(f.channel.clone());
    let reset = v1::AlterTopicRequest { name: TOPIC.into(), config: None, reset: vec!["colour".into()] };
    check("reset", topics.alter_topic(reset).await, "INVALID_CONFIG");
    let fewer = v1::AddPartitionsRequest { name: TOPIC.into(), partitions: PARTITIONS };
    check("not more partitions", topics.add_partitions(fewer).await, "INVALID_CONFIG");
    check("no payload", f.produce(v1::ProduceRequest { topic: TOPIC.into(), ..Default::default() }).await, "INVALID_REQUEST");
    check("no records", f.produce(to(TOPIC, 0, Payload::Records(v1::Records::default()))).await, "INVALID_REQUEST");
    let keyless = v1::ProduceRequest { partition: None, ..to(TOPIC, 0, Payload::Batch(good())) };
    check("batch without partition", f.produce(keyless).await, "INVALID_REQUEST");
    let nowhere = v1::FetchRequest { topic: TOPIC.into(), ..Default::default() };
    check("no position", ConsumerClient::new(f.channel.clone()).fetch(nowhere).await, "INVALID_REQUEST");
    let metadata = v1::CommitRequest { metadata: "x".repeat(4097), ..commit(TOPIC, 0, 6) };
    check("metadata", f.commit(metadata).await, "INVALID_REQUEST");
    let fence = v1::CommitRequest { fence: Some(v1::Fence { epoch: 1, member_id: "me".into() }), ..commit(TOPIC, 0, 6) };
    check("fence", f.commit(fence).await, "FENCED");
    f.unchanged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sequences_that_do_not_follow() {
    let f = Fixture::new().await;
    let init = ProducerClient::new(f.channel.clone()).init_producer(v1::InitProducerRequest {}).await.unwrap().into_inner();
    let id = init.producer_id as i64;
    let stamped = |epoch, base_sequence| encode(&["value"], Codec::None, Some(ProducerStamp { id, epoch, base_sequence }));
    check("unknown producer", f.batch(stamped(1, 7)).await, "UNKNOWN_PRODUCER");
    // One batch is taken here: this fixture's log changes, by this one record and no other.
    let first = f.batch(stamped(1, 0)).await.unwrap().results[0].clone();
    check("a gap", f.batch(stamped(1, 2)).await, "OUT_OF_ORDER_SEQUENCE");
    check("an old epoch", f.batch(stamped(0, 1)).await, "PRODUCER_FENCED");
    let again = f.batch(stamped(1, 0)).await.unwrap().results[0].clone();
    assert!(again.duplicate && again.offset == first.offset && !first.duplicate);
    let mut after = read::all(&f.server.client().await, TOPIC).await;
    assert_eq!(after.get_mut(&0).unwrap().pop().map(|record| record.offset), Some(first.offset));
    assert_eq!(after, f.before);
}

/// In a stream each request has its own answer, and a bad one does not end it.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_behind_a_refusal() {
    let f = Fixture::new().await;
    let mut corrupt = good().to_vec();
    *corrupt.last_mut().unwrap() ^= 1;
    let wrong = [
        (to("deleted", 0, Payload::Batch(good())), "UNKNOWN_TOPIC"),
        (to(TOPIC, 9, Payload::Batch(good())), "UNKNOWN_PARTITION"),
        (to(TOPIC, 0, Payload::Batch(corrupt.into())), "CORRUPT_BATCH"),
        (to(TOPIC, 0, Payload::Batch(Bytes::from_static(b"no batch"))), "INVALID_BATCH"),
        (v1::ProduceRequest { topic: TOPIC.into(), ..Default::default() }, "INVALID_REQUEST"),
    ];
    let number = |(number, (request, _)): (usize, &(v1::ProduceRequest, &str))| v1::ProduceRequest {
        correlation_id: number as u64,
        ..request.clone()
    };
    let requests: Vec<_> = wrong.iter().enumerate().map(number).collect();
    let mut stream =
        ProducerClient::new(f.channel.clone()).produce_stream(tokio_stream::iter(requests)).await.unwrap().into_inner();
    let mut reasons = vec![String::new(); wrong.len()];
    while let Some(answer) = stream.message().await.unwrap() {
        let error = answer.results[0].error.clone().expect("it is wrong");
        check_documented("in a stream", &error.reason, Code::from_i32(error.code));
        reasons[answer.correlation_id as usize] = error.reason;
    }
    assert_eq!(reasons, wrong.iter().map(|(_, reason)| *reason).collect::<Vec<_>>());
    f.unchanged().await;
}
