//! Connections to other nodes: opened when first needed, shared by all requests, dropped when they break.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OnceCell, watch};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::{Channel, Endpoint, Uri};

/// A node that cannot be connected to within this is as good as gone: a leader is elected in less.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// A node that ends has sent its last answers before its links go down; they have this long to be read.
const LAST_ANSWERS: Duration = Duration::from_millis(500);
/// Where the link to a node is up and nothing else gets through, its answers are not waited for longer than this.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(2);
/// What a node may send ahead on one stream, and on a connection: a few large batches.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// The connections of one node to the others.
#[derive(Debug, Default)]
pub struct Channels {
    open: Mutex<HashMap<u64, Slot>>,
}

/// A connection, or one that is being opened: who comes meanwhile waits for the same one.
#[derive(Debug, Clone)]
struct Slot {
    address: String,
    channel: Arc<OnceCell<Channel>>,
    broken: CancellationToken,
}

/// A connection to a node.
#[derive(Debug, Clone)]
pub struct Connection {
    /// The node.
    pub node_id: u64,
    /// Ready to be called.
    pub channel: Channel,
    slot: Arc<OnceCell<Channel>>,
}

impl Channels {
    /// The connection to a node, opened if need be.
    ///
    /// # Errors
    /// Why there is none; nothing was sent then.
    pub async fn get(&self, node_id: u64, address: &str) -> Result<Connection, String> {
        let Slot { channel: slot, broken, .. } = self.slot(node_id, address);
        match slot.get_or_try_init(|| connect(address, broken)).await {
            Ok(channel) => Ok(Connection { node_id, channel: channel.clone(), slot: slot.clone() }),
            Err(reason) => Err(format!("cannot connect to node {node_id} at {address}: {reason}")),
        }
    }

    /// See [`super::Gateway::follow_links`].
    pub async fn follow_links<L>(self: Arc<Self>, mut links: watch::Receiver<BTreeMap<u64, L>>) {
        let mut up = BTreeSet::new();
        loop {
            let now: BTreeSet<u64> = links.borrow_and_update().keys().copied().collect();
            let gone: Vec<u64> = up.difference(&now).copied().collect();
            if !gone.is_empty() {
                tokio::time::sleep(LAST_ANSWERS).await;
                let back = links.borrow();
                gone.iter().filter(|node_id| !back.contains_key(node_id)).for_each(|node_id| self.break_off(*node_id));
            }
            up = now;
            if links.changed().await.is_err() {
                return;
            }
        }
    }

    /// Breaks the connection to a node whose link is down: one that stands still keeps its connections, and answers nothing.
    fn break_off(&self, node_id: u64) {
        if let Some(slot) = self.lock().remove(&node_id) {
            slot.broken.cancel();
        }
    }

    /// Drops a connection that broke, so that the next request opens a new one.
    pub fn forget(&self, connection: &Connection) {
        let mut open = self.lock();
        // Another request may have replaced it already.
        if open.get(&connection.node_id).is_some_and(|slot| Arc::ptr_eq(&slot.channel, &connection.slot)) {
            open.remove(&connection.node_id);
        }
    }

    fn slot(&self, node_id: u64, address: &str) -> Slot {
        let mut open = self.lock();
        if let Some(slot) = open.get(&node_id).filter(|slot| slot.address == address) {
            return slot.clone();
        }
        let slot = Slot { address: address.to_owned(), channel: Arc::default(), broken: CancellationToken::new() };
        open.insert(node_id, slot.clone());
        slot
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Slot>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn connect(address: &str, broken: CancellationToken) -> Result<Channel, String> {
    let at = address.to_owned();
    let open = tower::service_fn(move |_: Uri| {
        let (at, broken) = (at.clone(), broken.clone());
        async move {
            let stream = TcpStream::connect(at).await?;
            stream.set_nodelay(true)?;
            io::Result::Ok(TokioIo::new(Breakable { stream, broken: Box::pin(broken.cancelled_owned()) }))
        }
    });
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| error.to_string())?;
    let endpoint = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(1 << 20)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT);
    endpoint.connect_with_connector(open).await.map_err(|error| innermost(&error))
}

/// A connection that can be broken from here. It is read for as long as it is open, so reading is where it is noticed.
struct Breakable {
    stream: TcpStream,
    broken: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl AsyncRead for Breakable {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.broken.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the link to the node is down")));
        }
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Breakable {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// The innermost cause says more than "transport error".
pub fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use flotilla_proto::v1::GetMetadataRequest;
    use flotilla_proto::v1::cluster_client::ClusterClient;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn nobody_waits_for_a_node_that_keeps_its_connections_and_whose_link_is_down() {
        let (links, watched) = watch::channel(BTreeMap::from([(7, ()), (8, ())]));
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = silent.local_addr().unwrap().to_string();
        let channels = Arc::new(Channels::default());
        tokio::spawn(channels.clone().follow_links(watched));
        for node_id in [7, 8] {
            let connection = channels.get(node_id, &address).await.unwrap();
            let accepted = silent.accept().await.unwrap();
            let mut client = ClusterClient::new(connection.channel);
            let asking = tokio::spawn(async move { client.get_metadata(GetMetadataRequest::default()).await });
            links.send_modify(|up| _ = up.remove(&node_id));
            let status = asking.await.unwrap().unwrap_err();
            assert_eq!(innermost(&status), "the link to the node is down");
            drop(accepted);
            channels.get(node_id, &address).await.unwrap();
            silent.accept().await.unwrap();
        }
    }
}
