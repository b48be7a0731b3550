//! Open connections, by address: opened when first needed, forgotten when they break, tried in turn when one is down.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

use crate::client::ClientOptions;
use crate::error::{Error, innermost};

/// The pool of one client.
#[derive(Debug)]
pub(crate) struct Connections {
    /// As given by the user, in that order.
    bootstrap: Vec<String>,
    options: ClientOptions,
    open: Mutex<HashMap<String, Channel>>,
}

/// A connection, and whose it is.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    pub address: String,
    pub channel: Channel,
}

impl Connections {
    pub fn new(bootstrap: Vec<String>, options: ClientOptions) -> Self {
        Self { bootstrap, options, open: Mutex::default() }
    }

    /// A connection to `preferred`, or else to the first of the client's addresses that answers: any node serves any
    /// request.
    pub async fn get(&self, preferred: Option<&str>) -> Result<Connection, Error> {
        let others = self.bootstrap.iter().map(String::as_str).filter(|address| Some(*address) != preferred);
        let candidates: Vec<&str> = preferred.into_iter().chain(others).collect();
        if preferred.is_none()
            && let Some(open) = candidates.iter().find_map(|address| self.opened(address))
        {
            return Ok(open);
        }
        let mut reason = "no address given".to_owned();
        for address in &candidates {
            if let Some(open) = self.opened(address) {
                return Ok(open);
            }
            match self.open(address).await {
                Ok(connection) => return Ok(connection),
                Err(error) => reason = error,
            }
        }
        Err(Error::Unreachable { addresses: candidates.join(", "), reason })
    }

    /// Drops a connection that broke, so that the next request opens a new one or tries another address.
    pub fn forget(&self, address: &str) {
        self.lock().remove(address);
    }

    fn opened(&self, address: &str) -> Option<Connection> {
        let channel = self.lock().get(address)?.clone();
        Some(Connection { address: address.to_owned(), channel })
    }

    async fn open(&self, address: &str) -> Result<Connection, String> {
        let endpoint = self.endpoint(address)?;
        let channel = endpoint.connect().await.map_err(|error| innermost(&error))?;
        self.lock().insert(address.to_owned(), channel.clone());
        Ok(Connection { address: address.to_owned(), channel })
    }

    fn endpoint(&self, address: &str) -> Result<Endpoint, String> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|_| format!("{address:?} is not an address: write host:port"))?;
        Ok(endpoint
            .connect_timeout(self.options.connect_timeout)
            .tcp_nodelay(true)
            .initial_stream_window_size(self.options.stream_window_bytes)
            .initial_connection_window_size(self.options.connection_window_bytes)
            .max_frame_size(1 << 20)
            // A peer that vanished without closing is noticed within 20 s.
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(10)))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Channel>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
