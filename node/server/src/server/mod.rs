//! A node's life: open the data, serve until told to stop, finish what is in flight, close.
//!
//! Everything that a test wants to replace comes from outside: configuration, listeners, and when to stop.

mod draining;
mod options;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flotilla_broker::{Broker, BrokerOptions, Home, Member, Newcomer, OpenError, RealDisk};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::config::Config;
use crate::grpc::{self, Directory, Gateway, Limits, Shared};
use crate::telemetry::http::{self, Pages, Phase};
use crate::telemetry::metrics::Metrics;

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
        "storage failed: {0}; nothing was acknowledged since. See to the disk and start the node again, it recovers from there"
    )]
    Storage(String),
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

/// Runs a node until `stop` is cancelled or its storage fails.
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
    let pages = Pages { phase: watched, metrics: metrics.clone() };
    // From the first moment to the last, so that one can see a slow start and a slow stop.
    let _http = AbortOnDropHandle::new(tokio::spawn(http::serve(again(&listeners.http)?, pages)));

    let Some(member) = member(options.clone(), &listeners, &stop).await? else { return Ok(()) };
    let broker = Broker::open(options, member, Arc::new(RealDisk)).await?;
    metrics.watch(broker.clone());
    let draining = CancellationToken::new();
    let (ready, watched) = watch::channel(false);
    let limits = Limits::from(config);
    let gateway = Gateway::new(cluster(&broker), limits.peer_message_bytes_max());
    let shared = Shared { broker: broker.clone(), metrics, gateway, limits, draining: draining.clone(), ready: watched };
    let mut serving = tokio::spawn(grpc::serve(shared, again(&listeners.grpc)?, draining.clone().cancelled_owned()));
    let ended = tokio::select! {
        () = stop.cancelled() => Ok(()),
        reason = broker.failure().wait() => Err(ServerError::Storage(reason)),
        served = &mut serving => Err(ServerError::Grpc(cause(served))),
        failed = ready_member(&broker, &ready, &phase, (grpc, http), config) => Err(failed.into()),
    };
    phase.send_replace(Phase::Stopping);
    draining.cancel();
    if !serving.is_finished() {
        tracing::info!("stopping: finishing what is in flight");
        drain(&mut serving, config.drain_timeout).await;
    }
    broker.close().await;
    tracing::info!("stopped");
    ended
}

/// The node's membership of a cluster, which it may have to find or found first. `None`: it was told to stop before.
async fn member(options: BrokerOptions, listeners: &Listeners, stop: &CancellationToken) -> Result<Option<Member>, ServerError> {
    let found = tokio::task::spawn_blocking(move || Home::find(&options)).await;
    let newcomer = match found.map_err(io::Error::other).map_err(OpenError::from)?? {
        Home::Member(member) => return Ok(Some(member)),
        Home::Newcomer(newcomer) => newcomer,
    };
    match join(newcomer, listeners, stop).await {
        Err(ServerError::Open(OpenError::Stopped)) => Ok(None),
        joined => joined.map(Some),
    }
}

async fn join(newcomer: Newcomer, listeners: &Listeners, stop: &CancellationToken) -> Result<Member, ServerError> {
    if newcomer.is_alone() {
        return Ok(newcomer.join(stop).await?);
    }
    let joined = CancellationToken::new();
    let serving = grpc::serve_newcomer(newcomer.peer_service(), again(&listeners.grpc)?, joined.clone().cancelled_owned());
    let serving = tokio::spawn(serving);
    let member = newcomer.join(stop).await;
    // Whoever waits for the answer that this node has become a member gets it.
    joined.cancel();
    if let Err(error) = serving.await.map_err(io::Error::other).map_err(OpenError::from)? {
        return Err(ServerError::Grpc(error.into()));
    }
    Ok(member?)
}

/// Makes the node ready and then waits for ever. Returns only why it cannot become ready.
async fn ready_member(
    broker: &Broker,
    ready: &watch::Sender<bool>,
    phase: &watch::Sender<Phase>,
    (grpc, http): (SocketAddr, SocketAddr),
    config: &Config,
) -> OpenError {
    if let Err(error) = broker.wait_ready().await {
        return error;
    }
    ready.send_replace(true);
    phase.send_replace(Phase::Ready);
    let cluster = broker.cluster_id();
    tracing::info!(%grpc, %http, data_dir = %config.data_dir.display(), %cluster, "ready");
    match draining::follow(broker, phase).await {}
}

/// Records carry this clock's time, and answers over HTTP a date, which cannot be before 1970.
fn check_clock(now: SystemTime) -> Result<(), ServerError> {
    if now < UNIX_EPOCH { Err(ServerError::Clock) } else { Ok(()) }
}

type Serving = tokio::task::JoinHandle<Result<(), Box<dyn std::error::Error + Send + Sync>>>;

/// Waits for open calls and streams, but not for ever: a client may never read.
async fn drain(serving: &mut Serving, patience: Duration) {
    if tokio::time::timeout(patience, &mut *serving).await.is_err() {
        tracing::warn!(?patience, "some streams did not end in time: closing their connections");
        serving.abort();
    }
}

fn cause(
    served: Result<Result<(), Box<dyn std::error::Error + Send + Sync>>, tokio::task::JoinError>,
) -> Box<dyn std::error::Error + Send + Sync> {
    match served {
        Ok(Ok(())) => "it ended by itself".into(),
        Ok(Err(error)) => error,
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
