//! What gRPC on loopback does with Flotilla's own messages when the server answers at once and stores nothing.
//!
//! The server is a process of its own, as a node is: within one process, callers and server hand over to each other
//! without the kernel, and that is not what any client of a node can have.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::time::{Duration, Instant};

use bytes::Bytes;
use flotilla_client::api;
use flotilla_proto::v1::producer_client::ProducerClient;
use flotilla_proto::v1::producer_server::{Producer, ProducerServer};
use futures::StreamExt;
use futures::stream::BoxStream;
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

use crate::cli::exit::CliError;
use crate::cli::output::{Output, print};

const UNARY_BYTES: usize = 1024;
const UNARY_CONCURRENCY: [usize; 2] = [1, 64];
const STREAM_BYTES: [usize; 4] = [1 << 10, 16 << 10, 64 << 10, 256 << 10];
/// Messages of a stream that are not answered yet.
const STREAM_IN_FLIGHT: usize = 32;
const WINDOW_BYTES: u32 = 16 << 20;

/// One row.
#[derive(Debug, Serialize)]
pub struct GrpcFloor {
    pub what: &'static str,
    pub message_bytes: usize,
    pub concurrency: usize,
    pub messages_per_second: f64,
    pub mb_per_second: f64,
}

/// Measures unary calls and streams for `time` each.
pub async fn measure(time: Duration) -> Result<Vec<GrpcFloor>, CliError> {
    let failed = |error: &dyn std::fmt::Display| CliError::Failed(format!("gRPC on loopback: {error}"));
    // Killed when it is dropped.
    let (_server, address) = start_server().await.map_err(CliError::io("gRPC on loopback"))?;
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| failed(&error))?;
    let channel = endpoint
        .tcp_nodelay(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .connect()
        .await
        .map_err(|error| failed(&error))?;
    let mut floors = Vec::new();
    for concurrency in UNARY_CONCURRENCY {
        let calls = unary(&channel, concurrency, time).await.map_err(|status| failed(&status))?;
        floors.push(GrpcFloor::new("unary echo", UNARY_BYTES, concurrency, calls, time));
    }
    for bytes in STREAM_BYTES {
        let messages = stream(&channel, bytes, time).await.map_err(|status| failed(&status))?;
        floors.push(GrpcFloor::new("stream, each message answered", bytes, STREAM_IN_FLIGHT, messages, time));
    }
    Ok(floors)
}

/// This program again, as [`serve`].
async fn start_server() -> io::Result<(Child, SocketAddr)> {
    let mut server = Command::new(std::env::current_exe()?)
        .args(["bench", "floors", "--serve-echo"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let stdout = server.stdout.take().ok_or_else(|| io::Error::other("no output"))?;
    let line = BufReader::new(stdout).lines().next_line().await?.unwrap_or_default();
    let address = line.parse().map_err(|_| io::Error::other(format!("the echo server said {line:?}")))?;
    Ok((server, address))
}

/// Prints the address on which it listens, then answers until its standard input ends.
pub async fn serve() -> Result<(), CliError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(CliError::io("loopback"))?;
    let address = listener.local_addr().map_err(CliError::io("loopback"))?;
    print(Output::Text, &(), |(), _| address.to_string())?;
    let served = Server::builder()
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_frame_size(1 << 20)
        .add_service(ProducerServer::new(Echo))
        .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), async {
            let _ = tokio::io::stdin().read_to_end(&mut Vec::new()).await;
        });
    served.await.map_err(|error| CliError::Failed(format!("gRPC on loopback: {error}")))
}

impl GrpcFloor {
    fn new(what: &'static str, message_bytes: usize, concurrency: usize, messages: u64, time: Duration) -> Self {
        let messages_per_second = messages as f64 / time.as_secs_f64();
        let mb_per_second = messages_per_second * message_bytes as f64 / 1e6;
        Self { what, message_bytes, concurrency, messages_per_second, mb_per_second }
    }
}

fn request(payload: &Bytes, correlation_id: u64) -> api::ProduceRequest {
    let payload = Some(api::produce_request::Payload::Batch(payload.clone()));
    api::ProduceRequest { topic: "floors".to_owned(), partition: Some(0), payload, correlation_id, ..Default::default() }
}

/// Calls made in `time` by as many callers.
async fn unary(channel: &Channel, concurrency: usize, time: Duration) -> Result<u64, Status> {
    let until = Instant::now() + time;
    let payload = Bytes::from(vec![1; UNARY_BYTES]);
    let mut callers = JoinSet::new();
    for _ in 0..concurrency {
        let (mut stub, payload) = (ProducerClient::new(channel.clone()), payload.clone());
        callers.spawn(async move {
            let mut calls = 0;
            while Instant::now() < until {
                stub.produce(request(&payload, calls)).await?;
                calls += 1;
            }
            Ok::<u64, Status>(calls)
        });
    }
    let mut calls = 0;
    while let Some(ended) = callers.join_next().await {
        calls += ended.map_err(|error| Status::internal(error.to_string()))??;
    }
    Ok(calls)
}

/// Messages answered in `time` over one stream.
async fn stream(channel: &Channel, bytes: usize, time: Duration) -> Result<u64, Status> {
    let payload = Bytes::from(vec![1; bytes]);
    let (requests, receiver) = mpsc::channel(STREAM_IN_FLIGHT);
    let mut stub = ProducerClient::new(channel.clone());
    for number in 0..STREAM_IN_FLIGHT as u64 {
        // There is room for exactly these.
        let _ = requests.try_send(request(&payload, number));
    }
    let mut answers = stub.produce_stream(ReceiverStream::new(receiver)).await?.into_inner();
    let until = Instant::now() + time;
    let mut messages = 0;
    while Instant::now() < until && answers.message().await?.is_some() {
        messages += 1;
        if requests.send(request(&payload, messages)).await.is_err() {
            break;
        }
    }
    Ok(messages)
}

/// Answers at once.
struct Echo;

impl Echo {
    fn answer(request: &api::ProduceRequest) -> api::ProduceResponse {
        let results = vec![api::ProduceResult { partition: 0, offset: request.correlation_id, ..Default::default() }];
        api::ProduceResponse { correlation_id: request.correlation_id, results }
    }
}

#[tonic::async_trait]
impl Producer for Echo {
    type ProduceStreamStream = BoxStream<'static, Result<api::ProduceResponse, Status>>;

    async fn produce(&self, request: Request<api::ProduceRequest>) -> Result<Response<api::ProduceResponse>, Status> {
        Ok(Response::new(Self::answer(request.get_ref())))
    }

    async fn produce_stream(
        &self,
        request: Request<Streaming<api::ProduceRequest>>,
    ) -> Result<Response<Self::ProduceStreamStream>, Status> {
        let answers = request.into_inner().map(|request| request.map(|request| Self::answer(&request)));
        Ok(Response::new(answers.boxed()))
    }

    async fn init_producer(&self, _: Request<api::InitProducerRequest>) -> Result<Response<api::InitProducerResponse>, Status> {
        Ok(Response::new(api::InitProducerResponse::default()))
    }
}
