//! Mutated requests and batches, by the ten thousand, against a running server: it lives, its memory stays bounded, every
//! call is answered, and the log holds what was acknowledged and nothing else.
//!
//! `FLOTILLA_MUTATIONS` (20,000; at full size 1,000,000), `FLOTILLA_SEED`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use flotilla_client::Codec;
use flotilla_proto::v1;
use flotilla_proto::v1::position::At;
use flotilla_proto::v1::produce_request::Payload;
use flotilla_records::{BatchHeader, ProducerStamp};
use flotilla_tests::batch::{encode, reseal};
use flotilla_tests::random::Random;
use flotilla_tests::read;
use flotilla_tests::server::Server;
use flotilla_tests::settings;
use futures::StreamExt;
use prost::Message;
use tonic::client::Grpc;
use tonic::codec::{DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Request, Status};

const TOPIC: &str = "target";
const PARTITIONS: u32 = 3;
const IN_FLIGHT: usize = 64;
const CHANNELS: usize = 4;
/// A call that is not answered by then hangs.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// What the server may take, whatever it is sent.
const RESIDENT_BYTES_MAX: u64 = 512 << 20;
const GARBAGE_CONNECTIONS: usize = 200;

/// A call with a request that the server would take.
struct Seed {
    path: &'static str,
    streams: bool,
    request: Bytes,
}

fn seed(path: &'static str, streams: bool, request: &impl Message) -> Seed {
    Seed { path, streams, request: request.encode_to_vec().into() }
}

/// Every produce request here was made before, so that whatever stays as it is, is a duplicate.
fn produce_requests(producer: i64) -> Vec<v1::ProduceRequest> {
    let stamp = |base_sequence| ProducerStamp { id: producer, epoch: 1, base_sequence };
    let to = |payload| v1::ProduceRequest {
        topic: TOPIC.into(),
        partition: Some(1),
        payload: Some(payload),
        correlation_id: 7,
        ..v1::ProduceRequest::default()
    };
    let values = ["a value", "another value", ""];
    let mut sequence = 0;
    let mut requests = Vec::new();
    for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4] {
        requests.push(to(Payload::Batch(encode(&values, codec, Some(stamp(sequence))))));
        sequence += values.len() as i32;
    }
    let record = v1::Record { key: Some("key".into()), value: Some("value".into()), ..v1::Record::default() };
    let producer = v1::ProducerStamp { producer_id: producer as u64, epoch: 1, sequence: sequence as u32 };
    let records = Payload::Records(v1::Records { records: vec![record.clone(), record] });
    requests.push(v1::ProduceRequest { codec: 5, producer: Some(producer), ..to(records) });
    requests
}

/// Records of the largest produce request above.
const RECORDS_PER_REQUEST_MAX: u64 = 3;

/// Names that stay invalid whatever is cut off, so that no mutation of a deletion succeeds.
const NOBODY: &str = "////////";

fn seeds(produce: &[v1::ProduceRequest]) -> Vec<Seed> {
    let position = Some(v1::Position { at: Some(At::Offset(1)) });
    let config = v1::TopicConfig { retention_bytes: Some(1), batch_bytes_max: Some(5), ..v1::TopicConfig::default() };
    let partition = v1::PartitionPosition { partition: 1, position, stop_offset: Some(3) };
    let open = v1::ConsumeOpen {
        topic: TOPIC.into(),
        partitions: vec![partition, v1::PartitionPosition { partition: 2, ..partition }],
        until_end: true,
        encoding: 2,
        credit: Some(v1::Credit { records: 10, bytes: 1000 }),
        topic_id: None,
    };
    let consume = v1::ConsumeRequest { request: Some(v1::consume_request::Request::Open(open)) };
    let fetch = v1::FetchRequest {
        topic: TOPIC.into(),
        partition: 1,
        position,
        stop_offset: Some(2),
        bytes_max: Some(100),
        records_max: Some(2),
        ..v1::FetchRequest::default()
    };
    let list = v1::ListOffsetsRequest { topic: TOPIC.into(), partitions: vec![0, 1], position, topic_id: None };
    let fence = Some(v1::Fence { epoch: 3, member_id: "member".into() });
    let commit = v1::CommitRequest {
        group: "g".into(),
        topic: TOPIC.into(),
        partition: 1,
        offset: 2,
        metadata: "m".into(),
        fence,
        topic_id: None,
    };
    let committed = v1::CommittedRequest { group: "g".into(), topic: TOPIC.into(), partitions: vec![0, 1], topic_id: None };
    let create = v1::CreateTopicRequest {
        name: NOBODY.into(),
        partitions: Some(1),
        replication_factor: Some(1),
        config: Some(config),
        if_not_exists: true,
    };
    let alter = v1::AlterTopicRequest { name: NOBODY.into(), config: Some(config), reset: vec!["retention".into()] };
    let delete = v1::DeleteRecordsRequest { topic: NOBODY.into(), partition: 1, before_offset: 1 };
    let mut seeds = vec![
        seed("/flotilla.v1.Consumer/Consume", true, &consume),
        seed("/flotilla.v1.Consumer/Fetch", false, &fetch),
        seed("/flotilla.v1.Consumer/ListOffsets", false, &list),
        seed("/flotilla.v1.Groups/Commit", false, &commit),
        seed("/flotilla.v1.Groups/Committed", false, &committed),
        seed("/flotilla.v1.Topics/CreateTopic", false, &create),
        seed("/flotilla.v1.Topics/AlterTopic", false, &alter),
        seed("/flotilla.v1.Topics/AddPartitions", false, &v1::AddPartitionsRequest { name: NOBODY.into(), partitions: 2 }),
        seed("/flotilla.v1.Topics/DeleteTopic", false, &v1::DeleteTopicRequest { name: NOBODY.into(), if_exists: true }),
        seed("/flotilla.v1.Topics/DeleteRecords", false, &delete),
        seed("/flotilla.v1.Topics/DescribeTopic", false, &v1::DescribeTopicRequest { name: TOPIC.into() }),
        seed("/flotilla.v1.Cluster/GetMetadata", false, &v1::GetMetadataRequest { topics: vec![TOPIC.into()] }),
    ];
    for request in produce {
        seeds.push(seed("/flotilla.v1.Producer/Produce", false, request));
        seeds.push(seed("/flotilla.v1.Producer/ProduceStream", true, request));
    }
    seeds
}

/// Changes bytes in one to four places.
fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        let end = at + random.below(8).min(bytes.len() - at);
        match random.below(8) {
            0..=2 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            3 if !bytes.is_empty() => bytes[at] = *random.pick(&[0, 1, 0x7f, 0x80, 0xff]),
            4 => bytes[at..end].fill(0xff),
            5 => drop(bytes.drain(at..end)),
            6 => bytes.insert(at, random.next_u64() as u8),
            _ => bytes.truncate(bytes.len() - random.below(16).min(bytes.len())),
        }
    }
}

/// A mutated request: anywhere, or only the batch in it, whose checksum is then made to fit half of the time.
fn mutation(seed: &Seed, random: &mut Random) -> Bytes {
    let batch = v1::ProduceRequest::decode(seed.request.clone()).ok().filter(|_| seed.path.contains("Produce"));
    if let Some(v1::ProduceRequest { payload: Some(Payload::Batch(batch)), .. }) = &batch
        && random.below(4) > 0
    {
        let mut bytes = batch.to_vec();
        mutate(&mut bytes, random);
        if random.below(2) == 0 {
            reseal(&mut bytes);
        }
        let request = v1::ProduceRequest::decode(seed.request.clone()).unwrap();
        return v1::ProduceRequest { payload: Some(Payload::Batch(bytes.into())), ..request }.encode_to_vec().into();
    }
    let mut bytes = seed.request.to_vec();
    mutate(&mut bytes, random);
    bytes.into()
}

/// Sends and receives bytes as they are.
#[derive(Debug, Clone, Copy, Default)]
struct Raw;

impl tonic::codec::Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

async fn call(channel: Channel, seed: &Seed, request: Bytes) -> Result<Bytes, Status> {
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let path = PathAndQuery::from_static(seed.path);
    if !seed.streams {
        return Ok(grpc.unary(Request::new(request), path, Raw).await?.into_inner());
    }
    let request = Request::new(tokio_stream::iter([request]));
    // The first answer is enough; a consumer would wait for more for ever.
    let mut answers = grpc.streaming(request, path, Raw).await?.into_inner();
    answers.message().await.map(Option::unwrap_or_default)
}

/// Records that the server says it has appended: partition and offset.
type Appended = Arc<Mutex<BTreeMap<(u32, u64), ()>>>;

fn note(appended: &Appended, request: &Bytes, answer: &Bytes) {
    let Ok(request) = v1::ProduceRequest::decode(request.clone()) else { return };
    let answer = v1::ProduceResponse::decode(answer.clone()).unwrap();
    let count = match &request.payload {
        Some(Payload::Batch(batch)) => BatchHeader::parse(batch).map_or(0, |header| header.record_count),
        _ => 1,
    };
    let mut appended = appended.lock().unwrap();
    for result in answer.results.iter().filter(|result| result.error.is_none() && !result.duplicate) {
        for offset in result.offset..result.offset + u64::from(count) {
            assert_eq!(appended.insert((result.partition, offset), ()), None, "offset {offset} was given twice");
        }
    }
}

async fn attack(seeds: &[Seed], channels: &[Channel], count: u64, random: &mut Random) -> (Appended, BTreeMap<String, u64>) {
    let appended = Appended::default();
    let outcomes: Mutex<BTreeMap<String, u64>> = Mutex::default();
    let calls = (0..count).map(|number| {
        let seed = random.pick(seeds);
        (seed, mutation(seed, random), channels[number as usize % channels.len()].clone())
    });
    let one = async |(seed, request, channel): (&Seed, Bytes, Channel)| {
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, call(channel, seed, request.clone())).await;
        let answer = answer.unwrap_or_else(|_| panic!("no answer from {}: {request:?}", seed.path));
        let outcome = match &answer {
            Ok(answer) => {
                if seed.path.contains("Produce") {
                    note(&appended, &request, answer);
                }
                "ok".to_owned()
            }
            Err(status) => format!("{:?}", status.code()),
        };
        let unexpected = ["Unknown", "Internal", "Unavailable", "DeadlineExceeded", "DataLoss"].contains(&outcome.as_str());
        assert!(!unexpected, "{} answered {answer:?} to {request:?}", seed.path);
        *outcomes.lock().unwrap().entry(outcome).or_default() += 1;
    };
    futures::stream::iter(calls).for_each_concurrent(IN_FLIGHT, one).await;
    (appended, outcomes.into_inner().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_stands_mutated_requests() {
    let count = settings::number("FLOTILLA_MUTATIONS", 20_000);
    let dir = tempfile::tempdir().unwrap();
    let limits = ["--wait-max", "10ms", "--log-level", "warn", "--decompressed-bytes-max", "1MiB"];
    let mut server = Server::started(dir.path(), &limits);
    let client = server.client().await;
    read::create_topic(&client, TOPIC, PARTITIONS).await;
    flotilla_tests::history::send(&client, TOPIC, 1, 0..500).await.unwrap();
    let producer = client.init_producer(v1::InitProducerRequest {}).await.unwrap().producer_id as i64;
    let produce = produce_requests(producer);
    for request in &produce {
        assert_eq!(client.produce(request.clone()).await.unwrap().results[0].error, None);
    }
    let before = read::all(&client, TOPIC).await;
    let mut channels = Vec::new();
    for _ in 0..CHANNELS {
        channels.push(Channel::from_shared(format!("http://{}", server.address())).unwrap().connect().await.unwrap());
    }

    let (appended, outcomes) = attack(&seeds(&produce), &channels, count, &mut Random::fresh()).await;

    assert!(server.is_running());
    let peak = server.resident_bytes_peak();
    assert!(peak < RESIDENT_BYTES_MAX, "{peak} bytes resident");
    assert!(!server.log().contains("panicked"), "a task panicked");
    let appended = appended.lock().unwrap().clone();
    for _ in 0..2 {
        let client = server.client().await;
        let mut after = read::all(&client, TOPIC).await;
        let mut new = BTreeMap::new();
        for (partition, records) in &mut after {
            let behind = records.split_off(before[partition].len());
            new.extend(behind.iter().map(|record| ((*partition, record.offset), ())));
        }
        assert_eq!(after, before, "what was there is as it was");
        // This side's HTTP/2 gives up a connection once 1,024 late frames came for streams that it broke off; the
        // outcomes of what was on its way go with it.
        let unknown = outcomes.get("Cancelled").copied().unwrap_or_default();
        let unacknowledged = new.keys().filter(|place| !appended.contains_key(place)).count() as u64;
        assert!(appended.keys().all(|place| new.contains_key(place)), "something acknowledged is missing");
        assert!(unacknowledged <= unknown * RECORDS_PER_REQUEST_MAX, "the log grew by {unacknowledged} records that nobody sent");
        assert_eq!(client.list_topics(v1::ListTopicsRequest {}).await.unwrap().topics.len(), 1);
        server.kill();
        server.start();
    }
    println!("{count} mutations: {outcomes:?}; {} records accepted, {} MiB at most", appended.len(), peak >> 20);
}

/// Bytes that are not even HTTP/2, and connections that break off anywhere.
#[tokio::test(flavor = "multi_thread")]
async fn the_server_stands_garbage() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::started(dir.path(), &["--log-level", "warn"]);
    let mut random = Random::fresh();
    for number in 0..GARBAGE_CONNECTIONS {
        let mut stream = TcpStream::connect(server.address()).unwrap();
        let mut bytes: Vec<u8> = (0..random.below(2_000)).map(|_| random.next_u64() as u8).collect();
        if number % 2 == 0 {
            bytes.splice(0..0, *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
        }
        // The server may hang up before it has read all.
        let _ = stream.write_all(&bytes);
        if number % 3 == 0 {
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        }
    }
    read::create_topic(&server.client().await, TOPIC, 1).await;
    assert!(server.is_running() && server.resident_bytes() < RESIDENT_BYTES_MAX);
    assert!(!server.log().contains("panicked"), "a task panicked");
}
