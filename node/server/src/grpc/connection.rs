//! One connection of the gRPC port: HTTP/2 from its first bytes to its end, and the count of its open calls.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::{HeaderMap, Request, Response};
use bytes::Bytes;
use flotilla_proto::corked::Corked;
use futures::future::{Either, FutureExt, Map};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;
use tower::Service;

use super::load::PIECE_BYTES;
use super::problem::{Problem, Reason};
use crate::net::{Full, OpenCall, Slot, Window, greet};

/// Calls and streams open on one connection.
const STREAMS_MAX: u32 = 1_000;
/// A connection whose peer does not answer pings is dropped.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// What only nodes ask of each other.
pub const INTERNAL: &str = "/flotilla.internal.";

/// Serves a connection until its client or `shutdown` ends it, or it gives way to another.
pub async fn serve<S>(stream: TcpStream, slot: Arc<Slot>, window: Window, service: S, shutdown: CancellationToken)
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let calls = Calls { inner: service, slot: slot.clone() };
    tokio::select! {
        () = converse(stream, &window, calls, shutdown) => {}
        () = slot.gave_way() => {}
    }
}

async fn converse<S>(stream: TcpStream, window: &Window, calls: Calls<S>, shutdown: CancellationToken)
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    // Without it small answers wait for each other; nothing else depends on it.
    let _ = stream.set_nodelay(true);
    let greeted = tokio::select! {
        greeted = greet(stream) => greeted,
        () = shutdown.cancelled() => None,
    };
    let Some(stream) = greeted else { return };
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(window.stream_bytes())
        .initial_connection_window_size(window.connection_bytes())
        .max_frame_size(window.frame_bytes())
        .max_concurrent_streams(STREAMS_MAX)
        .max_send_buf_size(2 * PIECE_BYTES)
        .keep_alive_interval(KEEPALIVE)
        // Nobody needs it, and the clock may stand where no date can be.
        .auto_date_header(false)
        .serve_connection(Corked::new(TokioIo::new(stream)), TowerToHyperService::new(calls));
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
}

/// Counts the connection's calls, and refuses those for which it has no room.
#[derive(Clone)]
struct Calls<S> {
    inner: S,
    slot: Arc<Slot>,
}

type Answered<F> = Map<F, Box<dyn FnOnce(Result<Response<Body>, Infallible>) -> Result<Response<Body>, Infallible> + Send>>;

impl<S> Service<Request<Incoming>> for Calls<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<Answered<S::Future>, Ready<Result<Response<Body>, Infallible>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        match self.slot.call(is_peers(request.uri().path(), request.headers())) {
            Ok(open) => {
                let count = move |answer: Result<Response<Body>, Infallible>| {
                    answer.map(|answer| answer.map(|body| Body::new(Counted { body, _open: open })))
                };
                Either::Left(self.inner.call(request.map(Body::new)).map(Box::new(count)))
            }
            Err(full) => Either::Right(ready(Ok(Status::from(Problem::from(full)).into_http()))),
        }
    }
}

/// Whether a call is one that nodes make: their own, or a client's that they pass on.
fn is_peers(path: &str, headers: &HeaderMap) -> bool {
    path.starts_with(INTERNAL) || headers.contains_key(flotilla_proto::DIRECT)
}

impl From<Full> for Problem {
    fn from(full: Full) -> Self {
        Self::new(Reason::Overloaded, format!("{full}: use another node, or try again later"))
    }
}

/// An answer whose call is open until all of it is sent.
struct Counted {
    body: Body,
    _open: OpenCall,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
