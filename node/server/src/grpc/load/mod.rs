//! What all clients together may make the node hold: bytes of requests that are not complete or not answered, and bytes of
//! answers that are not read.

mod budget;
mod framing;
mod intake;
mod messages;
mod nature;
mod outgo;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::http::{Request, Response};
use futures::future::{FutureExt, Map};
use tokio::sync::{Semaphore, SemaphorePermit};
use tonic::body::Body;
use tower::Service;

pub use budget::{Budget, Handover, Lot};
pub use framing::framed;
use intake::{Incoming, Intake};
pub use messages::Messages;
use nature::Nature;
use outgo::Outgoing;
pub use outgo::{AROUND_STREAM_BYTES, PIECE_BYTES};

use crate::net::Slot;

/// Of a client that sends while others wait for it to be done.
const SEND_GRACE: Duration = Duration::from_secs(2);
/// Of a client that reads while others wait for it to be done.
const READ_GRACE: Duration = Duration::from_secs(5);

/// A request up to this size takes no more than a call does anyway, and there is a limit to calls.
const SMALL_BYTES: usize = 8 << 10;

/// Reads at once: enough to keep a disk busy. Each goes on in a thread of its own, which keeps some of the memory it has used.
const READS_MAX: usize = 8;

/// How often it is looked at who gives way.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// What clients make the node hold, and what other nodes do: neither takes the others' room. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Load {
    /// Of the calls of clients, also of those that another node passes on.
    pub clients: Directions,
    /// Of what nodes ask of each other.
    peers: Directions,
    reads: Arc<Semaphore>,
}

/// Both directions.
#[derive(Debug, Clone)]
pub struct Directions {
    /// Bytes of requests.
    pub received: Arc<Budget>,
    /// Bytes of answers.
    pub sent: Arc<Budget>,
}

impl Load {
    /// With as many bytes in each direction.
    pub fn new(receive_bytes_max: u64, send_bytes_max: u64) -> Self {
        let directions = || Directions {
            received: Arc::new(Budget::new(receive_bytes_max, SEND_GRACE)),
            sent: Arc::new(Budget::new(send_bytes_max, READ_GRACE)),
        };
        Self { clients: directions(), peers: directions(), reads: Arc::new(Semaphore::new(READS_MAX)) }
    }

    /// Waits for a turn to read stored records, until what is returned is dropped.
    pub async fn reading(&self) -> Option<SemaphorePermit<'_>> {
        // Never closed.
        self.reads.acquire().await.ok()
    }

    /// The service as a connection gets it.
    pub fn counting<S>(&self, inner: S, connection: Arc<Slot>) -> Loaded<S> {
        Loaded { inner, load: self.clone(), connection }
    }

    /// Looks after those who hold bytes. Never returns.
    pub async fn keep(&self) -> Infallible {
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            for Directions { received, sent } in [&self.clients, &self.peers] {
                received.look(Instant::now());
                sent.look(Instant::now());
            }
        }
    }
}

/// A service whose calls are counted, for one connection.
#[derive(Debug, Clone)]
pub struct Loaded<S> {
    inner: S,
    load: Load,
    connection: Arc<Slot>,
}

type Answer = Result<Response<Body>, Infallible>;

impl<S> Service<Request<Body>> for Loaded<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Unpin,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Map<S::Future, Box<dyn FnOnce(Answer) -> Answer + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let internal = request.uri().path().starts_with(super::connection::INTERNAL);
        let Directions { received, sent } = if internal { &self.load.peers } else { &self.load.clients };
        let (intake, sent) = (Intake::new(received), sent.clone());
        let (nature, connection) = (Nature::of(request.uri().path()), self.connection.clone());
        let request = request.map(|body| Body::new(Incoming::new(body, intake.clone())));
        let answered = move |answer: Answer| {
            intake.answered();
            answer.map(|mut answer| {
                let made_of = answer.extensions_mut().remove::<Handover>();
                let messages = answer.extensions_mut().remove::<Messages>();
                let counted = |body| Body::new(Outgoing::new((body, made_of), nature, connection, &sent));
                answer.map(|body| counted(messages.map_or(body, Messages::into_body)))
            })
        };
        self.inner.call(request).map(Box::new(answered))
    }
}
