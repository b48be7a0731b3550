//! The seam to the network: who dials, and how. A simulation or TLS puts its own [`Dialer`] here.

use std::fmt;
use std::io;
use std::time::Duration;

use futures::future::BoxFuture;
use tonic::transport::{Channel, Endpoint};

/// A connection that is not there after this time is given up.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
/// Bytes on their way that a stream's reader has not taken yet: several of the largest entries.
const STREAM_WINDOW_BYTES: u32 = 16 << 20;
/// The same for all streams of a connection.
const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;
/// Longest HTTP/2 frame that is accepted, in bytes: the default of 16 KiB costs a header for every one.
const FRAME_BYTES_MAX: u32 = 1 << 20;

/// Opens connections to other nodes.
pub trait Dialer: fmt::Debug + Send + Sync + 'static {
    /// A new connection.
    ///
    /// # Errors
    /// If nobody answers there.
    fn dial(&self, endpoint: Endpoint) -> BoxFuture<'static, io::Result<Channel>>;

    /// A connection that is made when it is used first, and again whenever it broke.
    fn dial_lazily(&self, endpoint: Endpoint) -> Channel;
}

/// Dials over TCP, in the clear.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpDialer;

/// How every connection to a peer's Raft groups at `address` (host:port) is set up, whatever it runs over.
///
/// # Errors
/// `InvalidInput` if `address` is none.
pub fn endpoint(address: &str) -> io::Result<Endpoint> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"));
    let endpoint = endpoint.map_err(|error| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("{address} is no address of a node (host:port): {error}"))
    })?;
    Ok(endpoint
        .connect_timeout(CONNECT_PATIENCE)
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX))
}

impl Dialer for TcpDialer {
    fn dial(&self, endpoint: Endpoint) -> BoxFuture<'static, io::Result<Channel>> {
        Box::pin(async move { endpoint.connect().await.map_err(io::Error::other) })
    }

    fn dial_lazily(&self, endpoint: Endpoint) -> Channel {
        endpoint.connect_lazy()
    }
}
