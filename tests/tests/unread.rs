//! Answers that nobody reads: all that they make the node hold stays within `send_bytes_max`, whatever their clients allow it to
//! send; who reads is served; and what was written is not called refused.
//!
//! `FLOTILLA_UNREAD_READERS` (1,000).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};
use flotilla_client::{Assignment, Client, ConsumerOptions, Position, ProducerOptions, Record};
use flotilla_proto::v1;
use flotilla_proto::v1::consume_request::Request as Ask;
use flotilla_tests::server::Server;
use flotilla_tests::{read, settings};
use h2::client::{Connection, SendRequest};
use h2::{RecvStream, SendStream};
use prost::Message;
use tokio::net::{TcpSocket, TcpStream};
use tonic::codegen::http::Request;

const TOPIC: &str = "unread";
const PARTITIONS: u32 = 6;
const RECORDS: u64 = 64_000;
const RECORD_BYTES: usize = 1_000;
/// More than a reader gets at once where bytes are short.
const BATCH_BYTES: usize = 256 << 10;
const SEND_BYTES_MAX: u64 = 128 << 20;
/// What the client's system takes of each answer: the node's own takes some more.
const SOCKET_BYTES: u32 = 64 << 10;

/// A call whose request goes on and whose answer has begun.
type Call = (SendStream<Bytes>, RecvStream);

async fn connect(address: SocketAddr, window_bytes: u32) -> (SendRequest<Bytes>, Connection<TcpStream, Bytes>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(SOCKET_BYTES).unwrap();
    let stream = socket.connect(address).await.unwrap();
    let mut windows = h2::client::Builder::new();
    windows.initial_window_size(window_bytes).initial_connection_window_size(window_bytes);
    windows.handshake(stream).await.unwrap()
}

fn framed(message: &impl Message) -> Bytes {
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(message.encoded_len() as u32);
    message.encode(&mut framed).unwrap();
    framed.freeze()
}

async fn call(requests: SendRequest<Bytes>, path: &str, request: impl Message, is_last: bool) -> Call {
    let head = Request::post(format!("http://flotilla/flotilla.v1.{path}")).header("content-type", "application/grpc");
    let (answer, mut asks) = requests.ready().await.unwrap().send_request(head.body(()).unwrap(), false).unwrap();
    asks.send_data(framed(&request), is_last).unwrap();
    (asks, answer.await.unwrap().into_body())
}

/// A connection that nobody reads any more, with a call that is not over.
struct Unread {
    connection: Connection<TcpStream, Bytes>,
    _requests: SendRequest<Bytes>,
    call: Call,
}

impl Unread {
    /// A consume stream whose client has granted nothing yet, and reads that it is open.
    async fn open(address: SocketAddr, window_bytes: u32, encoding: v1::Encoding) -> Self {
        let (requests, mut connection) = connect(address, window_bytes).await;
        let call = async {
            let (asks, mut answer) = call(requests.clone(), "Consumer/Consume", open(encoding), false).await;
            answer.data().await.unwrap().unwrap();
            (asks, answer)
        };
        tokio::select! {
            ended = &mut connection => panic!("the connection ended: {ended:?}"),
            call = call => Self { connection, _requests: requests, call },
        }
    }

    /// Grants everything.
    async fn grant(&mut self) {
        let everything = v1::Credit { records: u64::MAX, bytes: u64::MAX };
        self.call.0.send_data(framed(&ask(Ask::Credit(everything))), false).unwrap();
        // It goes out, and what has come is read; nothing is read any more from then on.
        assert!(futures::poll!(&mut self.connection).is_pending());
    }
}

fn ask(request: Ask) -> v1::ConsumeRequest {
    v1::ConsumeRequest { request: Some(request) }
}

/// The first message of a stream that is to read everything.
fn open(encoding: v1::Encoding) -> v1::ConsumeRequest {
    let earliest = Some(v1::Position { at: Some(v1::position::At::Earliest(v1::Earliest {})) });
    let partition = |partition| v1::PartitionPosition { partition, position: earliest, stop_offset: None };
    let open = v1::ConsumeOpen {
        topic: TOPIC.into(),
        partitions: (0..PARTITIONS).map(partition).collect(),
        encoding: encoding.into(),
        ..v1::ConsumeOpen::default()
    };
    ask(Ask::Open(open))
}

async fn produce(client: &Client, records: u64) {
    let options = ProducerOptions { batch_bytes: BATCH_BYTES, ..ProducerOptions::default() };
    let producer = client.producer(TOPIC, options).await.unwrap();
    let value = vec![7; RECORD_BYTES];
    for _ in 0..records {
        producer.enqueue(Record::new(&value)).await.unwrap();
    }
    producer.close().await.unwrap();
}

/// Reads everything; how many records.
async fn consume(client: &Client) -> u64 {
    let options = ConsumerOptions { until_end: true, ..ConsumerOptions::default() };
    let mut consumer = client.consumer(TOPIC, Assignment::all(Position::Earliest), options).await.unwrap();
    let mut count = 0;
    while let Some(chunk) = consumer.next().await.unwrap() {
        count += chunk.records().map(Result::unwrap).count() as u64;
    }
    count
}

/// How much more the node holds for readers that do not read than for such as want nothing.
async fn growth(server: &mut Server, window_bytes: u32, encoding: v1::Encoding) -> u64 {
    let readers = settings::number("FLOTILLA_UNREAD_READERS", 1_000);
    assert!(server.stop().success());
    server.start();
    let client = server.client().await;
    assert_eq!(consume(&client).await, RECORDS);
    let address = server.address().parse().unwrap();
    let mut unread = Vec::new();
    for _ in 0..readers {
        unread.push(Unread::open(address, window_bytes, encoding).await);
    }
    // What the connections take is limited by their number.
    let before = server.resident_bytes();
    for reader in &mut unread {
        reader.grant().await;
    }
    assert_eq!(consume(&client).await, RECORDS, "who reads is served");
    let growth = server.resident_bytes_peak().saturating_sub(before);
    println!(
        "{readers} readers with windows of {} KiB, {encoding:?}: {} MiB, and {} MiB more at most",
        window_bytes >> 10,
        before >> 20,
        growth >> 20
    );
    growth
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_read_takes_no_more_than_it_may() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::started(dir.path(), &["--send-bytes-max", &SEND_BYTES_MAX.to_string()]);
    let client = server.client().await;
    read::create_topic(&client, TOPIC, PARTITIONS).await;
    produce(&client, RECORDS).await;
    drop(client);
    for (window_bytes, encoding) in [(WINDOW_BYTES, v1::Encoding::Records), ((1 << 31) - 1, v1::Encoding::Batches)] {
        let growth = growth(&mut server, window_bytes, encoding).await;
        assert!(growth <= SEND_BYTES_MAX / 4 * 5, "{growth} bytes more, with windows of {window_bytes} bytes");
    }
}

/// A send window that HTTP/2 has at first.
const WINDOW_BYTES: u32 = (64 << 10) - 1;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_whose_acknowledgement_waits_for_a_reader_was_written() {
    const RECORDS: u64 = 64_000;
    const OTHERS: usize = 40;
    let dir = tempfile::tempdir().unwrap();
    let server = Server::started(dir.path(), &["--send-bytes-max", "32MiB"]);
    let client = server.client().await;
    read::create_topic(&client, TOPIC, PARTITIONS).await;
    produce(&client, RECORDS).await;
    let address = server.address().parse().unwrap();
    let (requests, connection) = connect(address, WINDOW_BYTES).await;
    let connection = tokio::spawn(connection);
    // All that the connection may send goes to a stream that is not read.
    let (mut asks, mut pushes) = call(requests.clone(), "Consumer/Consume", open(v1::Encoding::Records), false).await;
    let everything = v1::Credit { records: u64::MAX, bytes: u64::MAX };
    asks.send_data(framed(&ask(Ask::Credit(everything))), false).unwrap();
    let (mut unread, mut taken) = (Vec::new(), 0);
    while taken < WINDOW_BYTES as usize {
        unread.push(pushes.data().await.unwrap().unwrap());
        taken = unread.iter().map(Bytes::len).sum();
    }
    let record = v1::Record { value: Some(Bytes::from_static(b"written")), ..v1::Record::default() };
    let produce = v1::ProduceRequest {
        topic: TOPIC.into(),
        partition: Some(0),
        payload: Some(v1::produce_request::Payload::Records(v1::Records { records: vec![record] })),
        ..v1::ProduceRequest::default()
    };
    let (_, mut answer) = call(requests, "Producer/Produce", produce, true).await;
    // Others are served only once somebody gives way.
    let mut others = Vec::new();
    for _ in 0..OTHERS {
        let mut other = Unread::open(address, WINDOW_BYTES, v1::Encoding::Records).await;
        other.grant().await;
        others.push(other);
    }
    assert_eq!(consume(&client).await, RECORDS + 1, "the record is there");
    pushes.flow_control().release_capacity(taken).unwrap();
    let read_on = async {
        while let Some(Ok(data)) = pushes.data().await {
            pushes.flow_control().release_capacity(data.len()).unwrap();
        }
        std::future::pending::<()>().await;
    };
    let answered = async {
        let mut answered = BytesMut::new();
        while let Some(data) = answer.data().await {
            answered.put(data.unwrap());
        }
        (v1::ProduceResponse::decode(&answered[5..]).unwrap(), answer.trailers().await.unwrap().unwrap())
    };
    let (answered, trailers) = tokio::select! {
        () = read_on => unreachable!(),
        answered = answered => answered,
    };
    assert!(answered.results[0].error.is_none() && answered.results[0].partition == 0, "{answered:?}");
    assert_eq!(trailers["grpc-status"], "0");
    connection.abort();
}
