//! A node's life: open the data, serve until told to stop, finish what is in flight, close.
//!
//! Everything that a test wants to replace comes from outside: configuration, listeners, and when to stop.

mod options;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use flotilla_broker::{Broker, OpenError, RealDisk};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::config::Config;
use crate::grpc::{self, Limits, Shared};
use crate::telemetry::http::{self, Pages, Phase};
use crate::telemetry::metrics::Metrics;

/// Why a node did not start, or did not go on.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address} (setting {setting}): {error}; stop what uses it, or choose another address")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Which setting names it.
        setting: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// A setting does not go with the others.
    #[error("setting {setting}: {why}")]
    Setting {
        /// Which one.
        setting: &'static str,
        /// What is wrong, and what would be right.
        why: String,
    },
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

/// The ports of a node.
#[derive(Debug)]
pub struct Listeners {
    grpc: TcpListener,
    http: TcpListener,
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

async fn listen(address: SocketAddr, setting: &'static str) -> Result<(TcpListener, SocketAddr), ServerError> {
    let failed = |error| ServerError::Listen { address, setting, error };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// Runs a node until `stop` is cancelled or its storage fails.
///
/// # Errors
/// See [`ServerError`].
pub async fn run(config: &Config, listeners: Listeners, stop: CancellationToken) -> Result<(), ServerError> {
    let (grpc, http) = (listeners.grpc_address(), listeners.http_address);
    let options = options::broker(config, grpc)?;
    let metrics = Arc::new(Metrics::new());
    let (phase, watched) = watch::channel(Phase::Starting);
    let pages = Pages { phase: watched, metrics: metrics.clone() };
    // From the first moment to the last, so that one can see a slow start and a slow stop.
    let _http = AbortOnDropHandle::new(tokio::spawn(http::serve(listeners.http, pages)));

    let broker = Broker::open(options, Arc::new(RealDisk)).await?;
    metrics.watch(broker.clone());
    phase.send_replace(Phase::Ready);
    let cluster = broker.cluster_id();
    tracing::info!(%grpc, %http, data_dir = %config.data_dir.display(), %cluster, "ready");

    let draining = CancellationToken::new();
    let shared = Shared { broker: broker.clone(), metrics, limits: Limits::from(config), draining: draining.clone() };
    let mut serving = tokio::spawn(grpc::serve(shared, listeners.grpc, draining.clone().cancelled_owned()));
    let ended = tokio::select! {
        () = stop.cancelled() => Ok(()),
        reason = broker.failure().wait() => Err(ServerError::Storage(reason)),
        served = &mut serving => Err(ServerError::Grpc(cause(served))),
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
