//! Clients that take what they can: connections that say nothing, requests that do not end, answers that nobody reads.
//! The server stays within its limits, and serves everybody else meanwhile.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bytes::Bytes;
use flotilla_client::Code;
use flotilla_proto::internal::v1::IntroduceRequest;
use flotilla_proto::internal::v1::peer_client::PeerClient;
use flotilla_proto::v1;
use flotilla_proto::v1::cluster_client::ClusterClient;
use flotilla_proto::v1::consumer_client::ConsumerClient;
use flotilla_tests::read;
use flotilla_tests::refusal;
use flotilla_tests::server::Server;
use futures::future::join_all;
use h2::client::SendRequest;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::http::Request;
use tonic::transport::Channel;

const TOPIC: &str = "target";
const CONNECTIONS_MAX: usize = 20;
/// A connection that is not closed by then stays.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

async fn channel(server: &Server) -> Channel {
    Channel::from_shared(format!("http://{}", server.address())).unwrap().connect().await.unwrap()
}

fn silent(address: &str, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| TcpStream::connect(address).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_lock_nobody_out_and_take_no_descriptors() {
    let dir = tempfile::tempdir().unwrap();
    let connections_max = CONNECTIONS_MAX.to_string();
    let mut server = Server::started(dir.path(), &["--connections-max", &connections_max]);
    let before = server.open_files();
    let mut silent_ones = silent(&server.address(), 10 * CONNECTIONS_MAX);
    silent_ones.extend(silent(&server.http_address(), 10 * CONNECTIONS_MAX));
    let client = server.client().await;
    read::create_topic(&client, TOPIC, 1).await;
    assert_eq!(flotilla_tests::history::send(&client, TOPIC, 1, 0..100).await.unwrap().acked(), 100);
    assert!(server.get("/readyz").unwrap().starts_with("HTTP/1.1 200"));
    // Those that gave way, and those that may be other nodes', are closed in a moment; a few of each port stay, and a
    // topic's files.
    let began = Instant::now();
    loop {
        let open = server.open_files() - before;
        if open < 2 * CONNECTIONS_MAX + 20 {
            break;
        }
        assert!(began.elapsed() < CLOSE_TIMEOUT, "{open} more descriptors are open than before");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    assert!(server.is_running());
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_say_nothing_in_time_are_closed() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::started(dir.path(), &[]);
    let silent = silent(&server.address(), 1).into_iter();
    let half = [(server.address(), "PRI * HTTP/2.0\r\n"), (server.http_address(), "GET /livez HTTP/1.1\r\nHost: ")];
    let half = half.map(|(address, words)| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(words.as_bytes()).unwrap();
        stream
    });
    for mut stream in silent.chain(half) {
        stream.set_read_timeout(Some(CLOSE_TIMEOUT)).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0, "the server hangs up");
    }
}

/// A connection with a stream that stays open until both of this are dropped.
async fn busy(server: &Server) -> (mpsc::Sender<v1::ConsumeRequest>, tonic::Streaming<v1::ConsumeResponse>) {
    let latest = Some(v1::Position { at: Some(v1::position::At::Latest(v1::Latest {})) });
    let open = v1::ConsumeOpen {
        topic: TOPIC.into(),
        partitions: vec![v1::PartitionPosition { partition: 0, position: latest, stop_offset: None }],
        credit: Some(v1::Credit { records: 1, bytes: 1 }),
        ..v1::ConsumeOpen::default()
    };
    let open = v1::ConsumeRequest { request: Some(v1::consume_request::Request::Open(open)) };
    let (asks, receiver) = mpsc::channel(1);
    asks.send(open).await.unwrap();
    let mut pushes =
        ConsumerClient::new(channel(server).await).consume(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    pushes.message().await.unwrap();
    (asks, pushes)
}

#[tokio::test(flavor = "multi_thread")]
async fn busy_clients_leave_room_for_other_nodes() {
    let dir = tempfile::tempdir().unwrap();
    let connections_max = CONNECTIONS_MAX.to_string();
    let server = Server::started(dir.path(), &["--connections-max", &connections_max]);
    read::create_topic(&server.client().await, TOPIC, 1).await;
    let mut streams = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        streams.push(busy(&server).await);
    }
    let refused = ClusterClient::new(channel(&server).await).describe_cluster(v1::DescribeClusterRequest {}).await;
    refusal::check("one client more", refused, "OVERLOADED");
    let node = PeerClient::new(channel(&server).await).introduce(IntroduceRequest::default()).await;
    assert!(node.as_ref().map_or_else(tonic::Status::code, |_| tonic::Code::Ok) != tonic::Code::ResourceExhausted, "{node:?}");
    streams.pop();
    // The server may not have heard yet that a stream is over; the client tries again.
    server.client().await.describe_cluster(v1::DescribeClusterRequest {}).await.unwrap();
}

/// The date of an answer is the one thing in it that a clock before 1970 would turn into a panic.
#[tokio::test(flavor = "multi_thread")]
async fn answers_carry_no_date() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::started(dir.path(), &[]);
    let page = server.get("/livez").unwrap().to_lowercase();
    assert!(page.contains("\r\ncontent-length:") && !page.contains("\r\ndate:"), "{page}");
    let mut cluster = ClusterClient::new(channel(&server).await);
    let answer = cluster.describe_cluster(v1::DescribeClusterRequest {}).await.unwrap();
    assert!(answer.metadata().get("date").is_none(), "{answer:?}");
}

/// Requests that are never complete, each of this size.
const UNFINISHED: usize = 12;
const UNFINISHED_BYTES: usize = 31 << 20;
/// Far less than they have together.
const RECEIVE_BYTES_MAX: &str = "64MiB";
/// Twice as much as the server takes with that, and less than it would take with all of them.
const RESIDENT_BYTES_MAX: u64 = 320 << 20;

/// Sends all of a request but its last byte, as fast as it is taken. The gRPC status that the server answers.
async fn never_ending(requests: SendRequest<Bytes>) -> Code {
    let mut requests = requests.ready().await.unwrap();
    let head = Request::post("http://flotilla/flotilla.v1.Producer/Produce").header("content-type", "application/grpc");
    let (answer, mut body) = requests.send_request(head.body(()).unwrap(), false).unwrap();
    let mut prefix = vec![0];
    prefix.extend((UNFINISHED_BYTES as u32).to_be_bytes());
    body.send_data(prefix.into(), false).unwrap();
    let send = async {
        let mut left = UNFINISHED_BYTES - 1;
        while left > 0 {
            body.reserve_capacity(left.min(1 << 20));
            let Some(Ok(capacity)) = futures::future::poll_fn(|context| body.poll_capacity(context)).await else { return };
            let bytes = capacity.min(left);
            if body.send_data(vec![0; bytes].into(), false).is_err() {
                return;
            }
            left -= bytes;
        }
    };
    let (answer, ()) = futures::future::join(answer, send).await;
    Code::from_bytes(answer.unwrap().headers()["grpc-status"].as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_do_not_end_take_bounded_memory_and_give_way() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::started(dir.path(), &["--receive-bytes-max", RECEIVE_BYTES_MAX]);
    let client = server.client().await;
    read::create_topic(&client, TOPIC, 1).await;
    let stream = tokio::net::TcpStream::connect(server.address()).await.unwrap();
    let (requests, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let attack = join_all((0..UNFINISHED).map(|_| never_ending(requests.clone())));
    let answers = tokio::spawn(attack);
    let mut sent = 0;
    while !answers.is_finished() {
        sent += 1;
        assert_eq!(flotilla_tests::history::send(&client, TOPIC, sent, 0..10).await.unwrap().acked(), 10, "others are served");
    }
    let answers = answers.await.unwrap();
    let count = |code| answers.iter().filter(|answer| **answer == code).count();
    let (gave_way, stalled) = (count(Code::ResourceExhausted), count(Code::Aborted));
    assert!(gave_way >= UNFINISHED / 2 && gave_way + stalled == UNFINISHED, "{answers:?}");
    let peak = server.resident_bytes_peak();
    println!(
        "{gave_way} of {UNFINISHED} unfinished requests gave way, the others were given up; {sent} x 10 records sent; {} MiB resident at most",
        peak >> 20
    );
    assert!(peak < RESIDENT_BYTES_MAX, "{peak} bytes resident");
    connection.abort();
    assert!(server.is_running());
}
