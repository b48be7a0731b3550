//! Holds clients' requests back until the node is a ready member of its cluster: its peers must reach it before.

use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::{Request, Response};
use futures::future::{BoxFuture, Either, FutureExt};
use tokio::sync::watch;
use tonic::Status;
use tower::{Layer, Service};

use super::problem::{Problem, Reason};

/// Calls of the public API; peers' calls and health pass.
const PUBLIC: &str = "/flotilla.v1.";
/// How long a request waits before it is refused, so that a client with other addresses tries those.
const PATIENCE: Duration = Duration::from_secs(2);

/// Wraps all services.
#[derive(Debug, Clone)]
pub struct Gate {
    /// Whether the node serves clients.
    pub ready: watch::Receiver<bool>,
}

/// A service behind the gate.
#[derive(Debug, Clone)]
pub struct Gated<S> {
    inner: S,
    gate: Gate,
}

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated { inner, gate: self.clone() }
    }
}

impl<S, Sent, Body> Service<Request<Sent>> for Gated<S>
where
    S: Service<Request<Sent>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    Sent: Send + 'static,
    Body: Default + Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, BoxFuture<'static, Result<Response<Body>, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Sent>) -> Self::Future {
        if *self.gate.ready.borrow() || !request.uri().path().starts_with(PUBLIC) {
            return Either::Left(self.inner.call(request));
        }
        // The clone goes on with what was polled ready; what stays behind is polled again.
        let fresh = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, fresh);
        let mut ready = self.gate.ready.clone();
        let wait = async move {
            let opened = tokio::time::timeout(PATIENCE, ready.wait_for(|ready| *ready)).await;
            let is_open = opened.is_ok_and(|opened| opened.is_ok());
            if is_open { inner.call(request).await } else { Ok(Status::from(not_ready()).into_http()) }
        };
        Either::Right(wait.boxed())
    }
}

fn not_ready() -> Problem {
    let message = "this node is not a ready member of its cluster yet: ask another node, or retry in a moment";
    Problem::new(Reason::Unavailable, message.to_owned())
}
