//! Each way to ask for the impossible gets its own clear error, and the log is unchanged.

use bytes::Bytes;
use flotilla_proto::v1;
use flotilla_records::{BatchBuilder, Codec};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use super::node::{Node, offset, produce, produce_batch, reason};

fn batch(codec: Codec, value: &[u8]) -> Vec<u8> {
    let mut builder = BatchBuilder::new();
    builder.add(1, None, Some(value), []).unwrap();
    builder.finish(codec, None).unwrap().to_vec()
}

fn patched(mut batch: Vec<u8>, at: usize, byte: u8) -> Bytes {
    batch[at] = byte;
    batch.into()
}

/// Byte of the batch header that holds the codec, and the first byte of records.
const ATTRIBUTES: usize = 22;
const RECORDS: usize = 61;

async fn refused(node: &Node, request: v1::ProduceRequest) -> (Code, String) {
    let status = node.producer().produce(request).await.unwrap_err();
    assert!(!status.message().is_empty());
    (status.code(), reason(&status))
}

#[tokio::test]
async fn produce_refusals_leave_the_log_unchanged() {
    let node = Node::start().await;
    node.create("t", 2).await;
    node.fill(3).await;
    let good = batch(Codec::None, b"value");
    let with_crc = |mut batch: Vec<u8>| {
        let crc = crc32c_of(&batch[21..]);
        batch[17..21].copy_from_slice(&crc.to_be_bytes());
        Bytes::from(batch)
    };
    let unknown_codec = with_crc(patched(good.clone(), ATTRIBUTES, 6).to_vec());
    let records: Vec<String> = (0..1001).map(|n| n.to_string()).collect();
    let without_partition = |request: v1::ProduceRequest| v1::ProduceRequest { partition: None, ..request };
    let topic = |name: &str| v1::ProduceRequest { topic: name.into(), ..produce(&["x"]) };
    let bomb = batch(Codec::Zstd, &vec![0; 15 << 20]);
    let bombs = {
        let mut builder = BatchBuilder::new();
        for _ in 0..2 {
            builder.add(1, None, Some(&vec![0; 10 << 20]), []).unwrap();
        }
        builder.finish(Codec::Zstd, None).unwrap()
    };
    let in_microseconds = {
        let mut builder = BatchBuilder::new();
        builder.add(1_795_910_400_000_000, None, Some(b"value"), []).unwrap();
        builder.finish(Codec::None, None).unwrap()
    };
    assert!(bomb.len() < 1 << 20 && bombs.len() < 1 << 20);
    let cases = [
        ("UNKNOWN_TOPIC", topic("absent")),
        ("UNKNOWN_PARTITION", v1::ProduceRequest { partition: Some(2), ..produce(&["x"]) }),
        ("INVALID_REQUEST", produce(&[""; 0])),
        ("INVALID_REQUEST", v1::ProduceRequest { payload: None, ..produce(&["x"]) }),
        ("INVALID_REQUEST", without_partition(produce_batch(good.clone().into()))),
        ("UNKNOWN_CODEC", v1::ProduceRequest { codec: 9, ..produce(&["x"]) }),
        ("UNKNOWN_CODEC", produce_batch(unknown_codec)),
        ("CORRUPT_BATCH", produce_batch(patched(good.clone(), RECORDS + 2, 0xff))),
        ("INVALID_BATCH", produce_batch(Bytes::from_static(b"not a batch"))),
        ("INVALID_BATCH", produce_batch(good[..good.len() - 1].to_vec().into())),
        ("INVALID_TIMESTAMP", produce_batch(in_microseconds)),
        ("BATCH_TOO_LARGE", produce_batch(batch(Codec::None, &vec![0; 5 << 20]).into())),
        ("BATCH_TOO_LARGE", produce(&records)),
        ("DECOMPRESSED_TOO_LARGE", produce_batch(bombs)),
        ("REQUEST_TOO_LARGE", produce_batch(batch(Codec::None, &vec![0; 9 << 20]).into())),
        ("UNKNOWN_PRODUCER", stamped(1, 0, 5)),
    ];
    for (expected, request) in cases {
        let (code, reason) = refused(&node, request).await;
        assert_eq!(reason, expected);
        assert!(code != Code::Internal && code != Code::Unknown, "{expected}: {code:?}");
    }
    assert_eq!(node.high_watermark().await, 3);
    node.producer().produce(produce_batch(good.into())).await.unwrap();
    assert_eq!(node.high_watermark().await, 4);
}

fn stamped(producer_id: u64, epoch: u32, sequence: u32) -> v1::ProduceRequest {
    v1::ProduceRequest { producer: Some(v1::ProducerStamp { producer_id, epoch, sequence }), ..produce(&["x"]) }
}

/// crc32c, one bit at a time (polynomial of RFC 3720): only to make wrong batches whose checksum is right.
fn crc32c_of(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 * (crc & 1))))
}

#[tokio::test]
async fn an_idempotent_retry_gets_the_original_offset_and_gaps_are_refused() {
    let node = Node::start().await;
    node.create("t", 1).await;
    let producer_id = node.producer().init_producer(v1::InitProducerRequest {}).await.unwrap().into_inner().producer_id;
    let send = async |sequence| node.producer().produce(stamped(producer_id, 0, sequence)).await;
    let first = send(0).await.unwrap().into_inner().results[0].clone();
    let again = send(0).await.unwrap().into_inner().results[0].clone();
    assert_eq!((first.offset, first.duplicate), (0, false));
    assert_eq!((again.offset, again.duplicate), (0, true));
    let gap = send(2).await.unwrap_err();
    assert_eq!(reason(&gap), "OUT_OF_ORDER_SEQUENCE");
    let details = gap.get_error_details();
    let metadata = &details.error_info().unwrap().metadata;
    assert_eq!((metadata["expected"].as_str(), metadata["got"].as_str()), ("1", "2"));
    node.producer().produce(stamped(producer_id, 1, 0)).await.unwrap();
    assert_eq!(reason(&send(1).await.unwrap_err()), "PRODUCER_FENCED");
    assert_eq!(node.high_watermark().await, 2);
}

async fn create(node: &Node, request: v1::CreateTopicRequest) -> Status {
    node.topics().create_topic(request).await.unwrap_err()
}

#[tokio::test]
async fn topic_refusals() {
    let node = Node::start().await;
    node.create("t", 2).await;
    let named = |name: &str| v1::CreateTopicRequest { name: name.into(), ..Default::default() };
    assert_eq!(reason(&create(&node, named("a/b")).await), "INVALID_NAME");
    assert_eq!(reason(&create(&node, named("")).await), "INVALID_NAME");
    assert_eq!(reason(&create(&node, named("t")).await), "TOPIC_EXISTS");
    for partitions in [0, 10_001, u32::MAX] {
        let status = create(&node, v1::CreateTopicRequest { partitions: Some(partitions), ..named("n") }).await;
        assert_eq!(reason(&status), "INVALID_CONFIG");
    }
    let status = create(&node, v1::CreateTopicRequest { replication_factor: Some(2), ..named("n") }).await;
    assert_eq!(reason(&status), "INVALID_CONFIG");
    let config = v1::TopicConfig { batch_bytes_max: Some(17 << 20), ..Default::default() };
    let status = create(&node, v1::CreateTopicRequest { config: Some(config), ..named("n") }).await;
    assert_eq!((reason(&status).as_str(), status.code()), ("INVALID_CONFIG", Code::InvalidArgument));

    let again = v1::CreateTopicRequest { partitions: Some(2), if_not_exists: true, ..named("t") };
    assert!(!node.topics().create_topic(again.clone()).await.unwrap().into_inner().created);
    let other = v1::CreateTopicRequest { partitions: Some(3), ..again };
    assert_eq!(reason(&create(&node, other).await), "TOPIC_EXISTS");
    let reset = v1::AlterTopicRequest { name: "t".into(), config: None, reset: vec!["colour".into()] };
    assert_eq!(reason(&node.topics().alter_topic(reset).await.unwrap_err()), "INVALID_CONFIG");
    let fewer = v1::AddPartitionsRequest { name: "t".into(), partitions: 2 };
    assert_eq!(reason(&node.topics().add_partitions(fewer).await.unwrap_err()), "INVALID_CONFIG");
    let absent = v1::DeleteTopicRequest { name: "absent".into(), if_exists: false };
    assert_eq!(reason(&node.topics().delete_topic(absent).await.unwrap_err()), "UNKNOWN_TOPIC");
    let metadata = v1::GetMetadataRequest { topics: vec!["absent".into()] };
    assert_eq!(reason(&node.cluster().get_metadata(metadata).await.unwrap_err()), "UNKNOWN_TOPIC");
    let often = v1::GetMetadataRequest { topics: vec!["t".into(); 1000] };
    assert_eq!(node.cluster().get_metadata(often).await.unwrap().into_inner().topics.len(), 1);
}

#[tokio::test]
async fn group_refusals_and_lag() {
    let node = Node::start().await;
    node.create("t", 1).await;
    node.fill(10).await;
    let commit = |group: &str, offset| v1::CommitRequest { group: group.into(), topic: "t".into(), offset, ..Default::default() };
    node.groups().commit(commit("g", 4)).await.unwrap();
    assert_eq!(reason(&node.groups().commit(commit("g", 11)).await.unwrap_err()), "OFFSET_OUT_OF_RANGE");
    assert_eq!(reason(&node.groups().commit(commit("", 1)).await.unwrap_err()), "INVALID_NAME");
    let fence = Some(v1::Fence { epoch: 3, member_id: "m".into() });
    let fenced = v1::CommitRequest { fence, ..commit("g", 5) };
    assert_eq!(reason(&node.groups().commit(fenced).await.unwrap_err()), "FENCED");
    let long = v1::CommitRequest { metadata: "x".repeat(4097), ..commit("g", 5) };
    assert_eq!(reason(&node.groups().commit(long).await.unwrap_err()), "INVALID_REQUEST");
    let committed = v1::CommittedRequest { group: "g".into(), topic: "t".into(), partitions: vec![], topic_id: None };
    let committed = node.groups().committed(committed).await.unwrap().into_inner().offsets[0].clone();
    assert_eq!((committed.offset, committed.lag, committed.high_watermark), (Some(4), 6, 10));
}

#[tokio::test]
async fn fetch_refusals_and_deadlines() {
    let node = Node::start().await;
    node.create("t", 1).await;
    node.fill(3).await;
    let fetch = |position| v1::FetchRequest { topic: "t".into(), position, ..Default::default() };
    let status = node.consumer().fetch(fetch(offset(4))).await.unwrap_err();
    assert_eq!((reason(&status).as_str(), status.code()), ("OFFSET_OUT_OF_RANGE", Code::OutOfRange));
    assert_eq!(status.get_error_details().error_info().unwrap().metadata["high_watermark"], "3");
    assert_eq!(reason(&node.consumer().fetch(fetch(None)).await.unwrap_err()), "INVALID_REQUEST");

    let wait_max = Some(super::super::convert::wire_duration(std::time::Duration::from_secs(3600)));
    let mut waiting = Request::new(v1::FetchRequest { wait_max, ..fetch(offset(3)) });
    // Only in the metadata: the client itself must not give up first.
    waiting.metadata_mut().insert("grpc-timeout", "200m".parse().unwrap());
    let status = node.consumer().fetch(waiting).await.unwrap_err();
    assert_eq!((reason(&status).as_str(), status.code()), ("DEADLINE_EXCEEDED", Code::DeadlineExceeded));
}
