//! A node's life: open the data, serve until told to stop, finish what is in flight, close.
//!
//! Everything that a test wants to replace comes from outside: configuration, listeners, and when to stop.

mod draining;
mod failed;
mod options;
mod space;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flotilla_broker::{Broker, BrokerOptions, Home, Member, Newcomer, OpenError, Surroundings};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::config::Config;
use crate::grpc::{self, Directory, Gateway, Limits, Load, Shared};
use crate::net::{Capacity, ConnectionLimits};
use crate::telemetry::http::{self, Pages, Phase};
use crate::telemetry::metrics::Metrics;
pub use space::{DiskFull, Space};

/// What all connections together may send before it is read, besides a minimum for each.
const WINDOW_BYTES: u64 = 256 << 20;

/// Why a node did not start, or did not go on.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address} (setting {setting}): {error}; {}", listen_advice(.error))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Which setting names it.
        setting: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// The clock is where no date can be.
    #[error("the system's clock is before 1970: set it, then start the node again")]
    Clock,
    /// Signals cannot be received.
    #[error("cannot watch for signals: {0}")]
    Signals(io::Error),
    /// The data cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The gRPC server failed.
    #[error("the gRPC server failed: {0}")]
    Grpc(Box<dyn std::error::Error + Send + Sync>),
    /// A write or sync failed while the node ran.
    #[error(
        "storage failed: {0}; nothing was acknowledged since. See to the disk, its free space first: the node goes on from what is \
         on it"
    )]
    Storage(String),
}

/// How long a node that stops waits for others to take over what it leads.
const HAND_OVER_PATIENCE: Duration = Duration::from_secs(5);
/// How long answers that are already made may take to get out, once everything is closed.
const LAST_ANSWERS_PATIENCE: Duration = Duration::from_millis(500);

impl ServerError {
    /// Whether the disk is at fault, so that trying again later may help. `was_open`: the data was in use before.
    #[must_use]
    pub fn is_storage(&self, was_open: bool) -> bool {
        match self {
            Self::Storage(_) | Self::Open(OpenError::StorageFailed(_)) => true,
            Self::Open(_) => was_open,
            _ => false,
        }
    }
}

fn listen_advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "stop what uses it, or choose another port",
        io::ErrorKind::AddrNotAvailable => "use an address of this machine, or 0.0.0.0 for all of them",
        io::ErrorKind::PermissionDenied => "ports below 1024 need special rights: choose a higher one",
        _ => "choose another address",
    }
}

/// The ports of a node.
#[derive(Debug)]
pub struct Listeners {
    grpc: std::net::TcpListener,
    http: std::net::TcpListener,
    grpc_address: SocketAddr,
    http_address: SocketAddr,
}

impl Listeners {
    /// Listens where the configuration says; port 0 lets the system choose.
    ///
    /// # Errors
    /// If an address is taken or not allowed.
    pub async fn bind(config: &Config) -> Result<Self, ServerError> {
        let (grpc, grpc_address) = listen(config.listen, "listen").await?;
        let (http, http_address) = listen(config.http, "http").await?;
        Ok(Self { grpc, http, grpc_address, http_address })
    }

    /// Where the gRPC API is.
    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc_address
    }
}

async fn listen(address: SocketAddr, setting: &'static str) -> Result<(std::net::TcpListener, SocketAddr), ServerError> {
    let failed = |error| ServerError::Listen { address, setting, error };
    let listener = TcpListener::bind(address).await.and_then(TcpListener::into_std).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// A listener once more: connections that nobody has accepted yet stay in its queue.
fn again(listener: &std::net::TcpListener) -> Result<TcpListener, ServerError> {
    let again = listener.try_clone().and_then(TcpListener::from_std);
    again.map_err(|error| ServerError::Open(error.into()))
}

/// Runs a node until `stop` is cancelled, or its storage has failed and takes writes again.
///
/// # Errors
/// See [`ServerError`].
pub async fn run(config: &Config, listeners: Listeners, stop: CancellationToken) -> Result<(), ServerError> {
    run_in(config, listeners, stop, |broker| Arc::new(broker.clone())).await
}

/// As [`run`], in a cluster as `cluster` sees it.
///
/// # Errors
/// See [`ServerError`].
pub async fn run_in(
    config: &Config,
    listeners: Listeners,
    stop: CancellationToken,
    cluster: impl FnOnce(&Broker) -> Arc<dyn Directory>,
) -> Result<(), ServerError> {
    check_clock(SystemTime::now())?;
    let (grpc, http) = (listeners.grpc_address(), listeners.http_address);
    let options = options::broker(config, grpc);
    let metrics = Arc::new(Metrics::new());
    let (phase, watched) = watch::channel(Phase::Starting);
    let (impaired, watched_impaired) = watch::channel(None);
    let pages = Pages { phase: watched, impaired: watched_impaired, metrics: metrics.clone() };
    // From the first moment to the last, so that one can see a slow start and a slow stop.
    let connections = ConnectionLimits::new(config.connections_max);
    let _http = AbortOnDropHandle::new(tokio::spawn(http::serve(again(&listeners.http)?, pages, connections.http)));

    let capacity = Capacity::new(&connections, WINDOW_BYTES);
    let Some(member) = member(options.clone(), (&listeners, &capacity), &stop).await? else { return Ok(()) };
    let space = Arc::new(Space::new(config, &options).map_err(OpenError::from)?);
    let broker = tokio::select! {
        opened = Broker::open(options, member, Surroundings::real()) => opened?,
        // It may be waiting for other nodes.
        () = stop.cancelled() => return Ok(()),
    };
    metrics.watch(broker.clone());
    let draining = CancellationToken::new();
    let (ready, watched) = watch::channel(false);
    let limits = Limits::from(config);
    let load = Load::new(config.receive_bytes_max.0, config.send_bytes_max.0);
    let gateway = Gateway::new(cluster(&broker), limits.peer_message_bytes_max(), load.clients.received.clone());
    gateway.follow_links(broker.links());
    let _space = keep_space(space.clone(), broker.clone(), (metrics.clone(), impaired));
    let listener = again(&listeners.grpc)?;
    let (shown, until) = (metrics.clone(), draining.clone());
    let shared =
        Shared { broker: broker.clone(), metrics: shown, gateway, limits, load, space, draining: until.clone(), ready: watched };
    let mut serving = tokio::spawn(async move { grpc::serve(shared, &capacity, listener, until).await });
    let ended = tokio::select! {
        () = stop.cancelled() => Ok(()),
        reason = broker.failure().wait() => Err(ServerError::Storage(reason)),
        served = &mut serving => Err(ServerError::Grpc(cause(served))),
        left = ready_member(&broker, &ready, &phase, (grpc, http), config) => left.map_err(ServerError::from),
    };
    phase.send_replace(Phase::Stopping);
    if let Err(ServerError::Storage(_)) = ended {
        // What is in memory does not count any more. The other nodes take over at once.
        draining.cancel();
        broker.abandon().await;
        serving.abort();
        drop(listeners);
        failed::until_writable(&config.data_dir, &stop).await;
        return ended;
    }
    if ended.is_ok() {
        tracing::info!("stopping: handing over what this node leads, finishing what is in flight");
        broker.hand_over(HAND_OVER_PATIENCE).await;
    }
    draining.cancel();
    finish(&broker, serving, &metrics, config.drain_timeout).await;
    tracing::info!("stopped");
    ended
}

/// Lets calls and streams end, then closes the broker.
async fn finish(broker: &Broker, mut serving: JoinHandle<Served>, metrics: &Metrics, patience: Duration) {
    if !serving.is_finished() && tokio::time::timeout(patience, metrics.idle()).await.is_err() {
        tracing::warn!(?patience, "some streams did not end in time: closing their connections");
    }
    // With the links to other nodes the last of the calls end, but for those of clients that never read.
    broker.close().await;
    if !serving.is_finished() && tokio::time::timeout(LAST_ANSWERS_PATIENCE, &mut serving).await.is_err() {
        serving.abort();
    }
}

/// The node's membership of a cluster, which it may have to find or found first. `None`: it was told to stop before.
async fn member(
    options: BrokerOptions,
    port: (&Listeners, &Capacity),
    stop: &CancellationToken,
) -> Result<Option<Member>, ServerError> {
    let found = tokio::task::spawn_blocking(move || Home::find(&options, &Surroundings::real())).await;
    let newcomer = match found.map_err(io::Error::other).map_err(OpenError::from)?? {
        Home::Member(member) => return Ok(Some(member)),
        Home::Newcomer(newcomer) => newcomer,
    };
    match join(newcomer, port, stop).await {
        Err(ServerError::Open(OpenError::Stopped)) => Ok(None),
        joined => joined.map(Some),
    }
}

async fn join(
    newcomer: Newcomer,
    (listeners, capacity): (&Listeners, &Capacity),
    stop: &CancellationToken,
) -> Result<Member, ServerError> {
    if newcomer.is_alone() {
        return Ok(newcomer.join(stop).await?);
    }
    let (joined, capacity) = (CancellationToken::new(), capacity.clone());
    let peers = (newcomer.peer_service(), newcomer.waits_for());
    let (listener, until) = (again(&listeners.grpc)?, joined.clone());
    let serving = tokio::spawn(async move { grpc::serve_newcomer(peers, &capacity, listener, until).await });
    let member = newcomer.join(stop).await;
    // Whoever waits for the answer that this node has become a member gets it.
    joined.cancel();
    serving.await.map_err(io::Error::other).map_err(OpenError::from)?;
    Ok(member?)
}

/// Makes the node ready and then waits until it is removed from its cluster.
///
/// # Errors
/// Why it cannot become ready.
async fn ready_member(
    broker: &Broker,
    ready: &watch::Sender<bool>,
    phase: &watch::Sender<Phase>,
    (grpc, http): (SocketAddr, SocketAddr),
    config: &Config,
) -> Result<(), OpenError> {
    tokio::select! {
        ready = broker.wait_ready() => ready?,
        () = broker.removed() => return Err(OpenError::Removed { node_id: broker.node_id() }),
    }
    ready.send_replace(true);
    phase.send_replace(Phase::Ready);
    let cluster = broker.cluster_id();
    tracing::info!(%grpc, %http, data_dir = %config.data_dir.display(), %cluster, "ready");
    tokio::select! {
        never = draining::follow(broker, phase) => match never {},
        () = broker.removed() => {
            tracing::warn!(node_id = broker.node_id(), "this node was removed from its cluster: it ends, its data is of no use any more");
            Ok(())
        }
    }
}

/// Records carry this clock's time, and answers over HTTP a date, which cannot be before 1970.
fn check_clock(now: SystemTime) -> Result<(), ServerError> {
    if now < UNIX_EPOCH { Err(ServerError::Clock) } else { Ok(()) }
}

/// Looks after the disk's free space for as long as the handle lives.
fn keep_space(
    space: Arc<Space>,
    broker: Broker,
    (metrics, impaired): (Arc<Metrics>, watch::Sender<Option<String>>),
) -> AbortOnDropHandle<Infallible> {
    AbortOnDropHandle::new(tokio::spawn(async move { space.keep(&broker, &metrics, &impaired).await }))
}

type Served = Result<(), tonic_reflection::server::Error>;

fn cause(served: Result<Served, tokio::task::JoinError>) -> Box<dyn std::error::Error + Send + Sync> {
    match served {
        Ok(Ok(())) => "it ended by itself".into(),
        Ok(Err(error)) => error.into(),
        Err(panicked) => panicked.into(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn a_clock_before_1970_is_refused() {
        let second = Duration::from_secs(1);
        assert!(check_clock(UNIX_EPOCH - second).unwrap_err().to_string().contains("set it"));
        check_clock(UNIX_EPOCH).unwrap();
        check_clock(SystemTime::now()).unwrap();
    }
}
