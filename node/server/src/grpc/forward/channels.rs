//! Connections to other nodes: opened when first needed, shared by all requests, dropped when they break.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::OnceCell;
use tonic::transport::{Channel, Endpoint};

/// A node that cannot be connected to within this is as good as gone: a leader is elected in less.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// A node that stands still keeps its connections open; after about this long its answers are not waited for any more.
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
        let slot = self.slot(node_id, address);
        match slot.get_or_try_init(|| connect(address)).await {
            Ok(channel) => Ok(Connection { node_id, channel: channel.clone(), slot: slot.clone() }),
            Err(reason) => Err(format!("cannot connect to node {node_id} at {address}: {reason}")),
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

    fn slot(&self, node_id: u64, address: &str) -> Arc<OnceCell<Channel>> {
        let mut open = self.lock();
        if let Some(slot) = open.get(&node_id).filter(|slot| slot.address == address) {
            return slot.channel.clone();
        }
        let slot = Slot { address: address.to_owned(), channel: Arc::default() };
        open.insert(node_id, slot.clone());
        slot.channel
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Slot>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn connect(address: &str) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| error.to_string())?;
    let endpoint = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(1 << 20)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT);
    endpoint.connect().await.map_err(|error| innermost(&error))
}

/// The innermost cause says more than "transport error".
pub fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
