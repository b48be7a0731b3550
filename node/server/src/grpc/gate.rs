//! What comes before any service: refuses clients' requests that are meant for another cluster, and holds the others back
//! until the node is a ready member of its own: its peers must reach it before.

use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::{HeaderMap, Request, Response};
use flotilla_proto::CLUSTER_ID;
use futures::future::{BoxFuture, Either, FutureExt};
use tokio::sync::watch;
use tonic::Status;
use tower::{Layer, Service};

use super::forward::Gateway;
use super::problem::{Problem, Reason};

/// Calls of the public API; peers' calls and health pass.
const PUBLIC: &str = "/flotilla.v1.";
/// How long a request waits before it is refused, so that a client with other addresses tries those.
const PATIENCE: Duration = Duration::from_secs(2);

/// Wraps all services.
#[derive(Clone)]
pub struct Gate {
    /// The cluster that the node belongs to, and who knows of its other nodes; `None`: it belongs to none yet.
    pub cluster: Option<(Arc<str>, Gateway)>,
    /// Whether the node serves clients.
    pub ready: watch::Receiver<bool>,
    /// What it waits for until then, in words.
    pub waits_for: Arc<dyn Fn() -> String + Send + Sync>,
}

type Answer<Body, Error> = Result<Response<Body>, Error>;

/// A service behind the gate.
#[derive(Clone)]
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
    type Future = Either<S::Future, Either<Ready<Answer<Body, S::Error>>, BoxFuture<'static, Answer<Body, S::Error>>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Sent>) -> Self::Future {
        let public = request.uri().path().starts_with(PUBLIC);
        if public && let Some(problem) = self.gate.meant_for_another(request.headers()) {
            return Either::Right(Either::Left(ready(Ok(Status::from(problem).into_http()))));
        }
        if !public || *self.gate.ready.borrow() {
            return Either::Left(self.inner.call(request));
        }
        // The clone goes on with what was polled ready; what stays behind is polled again.
        let fresh = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, fresh);
        let mut gate = self.gate.clone();
        let wait = async move {
            let opened = tokio::time::timeout(PATIENCE, gate.ready.wait_for(|ready| *ready)).await;
            let is_open = opened.is_ok_and(|opened| opened.is_ok());
            if is_open { inner.call(request).await } else { Ok(Status::from(gate.not_ready()).into_http()) }
        };
        Either::Right(Either::Right(wait.boxed()))
    }
}

impl Gate {
    /// The refusal of a request that names another cluster. One that names none is served.
    fn meant_for_another(&self, headers: &HeaderMap) -> Option<Problem> {
        let (meant, (own, _)) = (headers.get(CLUSTER_ID)?, self.cluster.as_ref()?);
        if meant.as_bytes() == own.as_bytes() {
            return None;
        }
        let meant = String::from_utf8_lossy(meant.as_bytes());
        let message = format!(
            "this node belongs to cluster {own}, and the request is meant for cluster {meant}: the address leads to the wrong \
             node; check --advertise of the nodes of cluster {meant}, and what forwards the address"
        );
        Some(Problem::new(Reason::WrongCluster, message).with("cluster_id", own).with("requested_cluster_id", meant))
    }

    /// What it still needs, in words.
    fn not_ready(&self) -> Problem {
        let waits_for = (self.waits_for)();
        let why = if waits_for.is_empty() { "it is starting" } else { &waits_for };
        let message =
            format!("this node is not a ready member of its cluster yet ({why}): ask another node, or retry in a moment");
        Problem::new(Reason::Unavailable, message)
    }
}
