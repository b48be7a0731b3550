//! Open connections, by address: opened when first needed, forgotten when they break, tried in turn when one is down.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use flotilla_proto::corked::Corked;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hyper_util::client::legacy::connect::HttpConnector;
use tonic::transport::{Channel, Endpoint};
use tower::ServiceExt;

use crate::client::ClientOptions;
use crate::error::{Error, innermost};

/// An address that does not answer by then is not waited for alone any more: the next is tried beside it.
const PATIENCE: Duration = Duration::from_millis(150);
/// An address that failed is tried last for this long.
const DOWN_FOR: Duration = Duration::from_secs(1);
/// A node that stands still, or vanished without closing its connections, is noticed within 3 s.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// The pool of one client. Cheap to clone; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Connections {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// As given by the user, in that order.
    bootstrap: Vec<String>,
    options: ClientOptions,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    open: HashMap<String, Channel>,
    /// When addresses failed.
    failed_at: HashMap<String, Instant>,
    /// What the cluster says where its nodes are.
    known: Vec<String>,
    /// Being opened in the background.
    dialing: HashSet<String>,
}

/// A connection, and whose it is.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    pub address: String,
    pub channel: Channel,
}

impl Connections {
    pub fn new(bootstrap: Vec<String>, options: ClientOptions) -> Self {
        Self { inner: Arc::new(Inner { bootstrap, options, state: Mutex::default() }) }
    }

    /// A connection to `preferred`, or else to the first of all addresses that answers: any node serves any request.
    pub async fn get(&self, preferred: Option<&str>) -> Result<Connection, Error> {
        if let Some(open) = preferred.and_then(|address| self.opened(address)) {
            return Ok(open);
        }
        let preferred = preferred.filter(|address| !self.is_down(address));
        let others = self.candidates();
        let open = others.iter().find_map(|address| self.opened(address));
        match (preferred, open) {
            (None, Some(open)) => Ok(open),
            // The others wait a moment for the one that is preferred.
            (Some(address), Some(open)) => {
                let dialled = tokio::time::timeout(PATIENCE, self.dial(address.to_owned())).await;
                Ok(dialled.ok().and_then(|(_, dialled)| dialled.ok()).unwrap_or(open))
            }
            (preferred, None) => {
                let others = others.into_iter().filter(|address| Some(address.as_str()) != preferred);
                self.first_of(preferred.map(str::to_owned).into_iter().chain(others).collect()).await
            }
        }
    }

    /// Drops a connection that broke, so that the next request tries other addresses first.
    pub fn forget(&self, address: &str) {
        let mut state = self.lock();
        state.open.remove(address);
        state.failed_at.insert(address.to_owned(), Instant::now());
    }

    /// Takes in where the cluster's nodes are.
    pub fn learn(&self, addresses: impl Iterator<Item = String>) {
        self.lock().known = addresses.collect();
    }

    /// How many addresses there are to try.
    pub fn count(&self) -> usize {
        self.candidates().len()
    }

    /// Whether there is a connection to this address. If not, one is opened in the background, so that there may be soon.
    pub fn is_open_or_soon(&self, address: &str) -> bool {
        if self.opened(address).is_some() {
            return true;
        }
        if !self.is_down(address) && self.lock().dialing.insert(address.to_owned()) {
            let (connections, address) = (self.clone(), address.to_owned());
            tokio::spawn(async move {
                let (address, _) = connections.dial(address).await;
                connections.lock().dialing.remove(&address);
            });
        }
        false
    }

    /// Every address, those that failed lately last.
    fn candidates(&self) -> Vec<String> {
        let known = self.lock().known.clone();
        let mut seen = HashSet::new();
        let all = self.inner.bootstrap.iter().cloned().chain(known).filter(|address| seen.insert(address.clone()));
        let (down, mut up): (Vec<String>, Vec<String>) = all.partition(|address| self.is_down(address));
        up.extend(down);
        up
    }

    /// Tries one address after the other, without waiting long for any of them.
    async fn first_of(&self, addresses: Vec<String>) -> Result<Connection, Error> {
        let mut reason = "no address given".to_owned();
        let mut waiting = addresses.iter().cloned();
        let mut dialling = FuturesUnordered::new();
        dialling.extend(waiting.next().map(|address| self.dial(address)));
        while !dialling.is_empty() {
            tokio::select! {
                Some((_, dialled)) = dialling.next() => match dialled {
                    Ok(connection) => return Ok(connection),
                    Err(error) => reason = error,
                },
                () = tokio::time::sleep(PATIENCE), if waiting.len() > 0 => {}
            }
            dialling.extend(waiting.next().map(|address| self.dial(address)));
        }
        Err(Error::Unreachable { addresses: addresses.join(", "), reason })
    }

    fn opened(&self, address: &str) -> Option<Connection> {
        let channel = self.lock().open.get(address)?.clone();
        Some(Connection { address: address.to_owned(), channel })
    }

    fn is_down(&self, address: &str) -> bool {
        self.lock().failed_at.get(address).is_some_and(|failed_at| failed_at.elapsed() < DOWN_FOR)
    }

    async fn dial(&self, address: String) -> (String, Result<Connection, String>) {
        let opening = async {
            let endpoint = self.endpoint(&address)?;
            let connector = self.connector().map_response(Corked::new);
            endpoint.connect_with_connector(connector).await.map_err(|error| innermost(&error))
        };
        let opened = opening.await;
        let mut state = self.lock();
        let dialled = match opened {
            Ok(channel) => {
                state.failed_at.remove(&address);
                state.open.insert(address.clone(), channel.clone());
                Ok(Connection { address: address.clone(), channel })
            }
            Err(reason) => {
                state.failed_at.insert(address.clone(), Instant::now());
                Err(reason)
            }
        };
        drop(state);
        (address, dialled)
    }

    fn endpoint(&self, address: &str) -> Result<Endpoint, String> {
        let options = &self.inner.options;
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|_| format!("{address:?} is not an address: write host:port"))?;
        Ok(endpoint
            .connect_timeout(options.connect_timeout)
            .initial_stream_window_size(options.stream_window_bytes)
            .initial_connection_window_size(options.connection_window_bytes)
            .max_frame_size(1 << 20)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT))
    }

    /// As an endpoint of tonic makes its own.
    fn connector(&self) -> HttpConnector {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(self.inner.options.connect_timeout));
        connector
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use tokio::net::TcpListener;

    use super::*;

    /// An address that takes connections, and one that refuses them.
    async fn addresses() -> (TcpListener, String, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        // Nobody has this port, and nobody gets it by chance.
        (listener, address, "127.0.0.1:1".to_owned())
    }

    #[tokio::test]
    async fn whoever_answers_serves_in_place_of_the_one_that_is_preferred() {
        let (_listener, here, gone) = addresses().await;
        let connections = Connections::new(vec![gone.clone(), here.clone()], ClientOptions::default());
        assert_eq!(connections.get(None).await.unwrap().address, here);
        assert_eq!(connections.get(Some(&gone)).await.unwrap().address, here);
        assert_eq!(connections.candidates(), [here.clone(), gone.clone()], "what failed comes last");
        connections.forget(&here);
        assert_eq!(connections.get(Some(&here)).await.unwrap().address, here, "there is no other");
    }

    #[tokio::test]
    async fn nodes_that_the_cluster_names_are_tried_too() {
        let (_listener, here, gone) = addresses().await;
        let connections = Connections::new(vec![gone.clone()], ClientOptions::default());
        let error = connections.get(None).await.unwrap_err();
        assert!(error.to_string().contains(&gone), "{error}");
        connections.learn([here.clone()].into_iter());
        assert_eq!(connections.get(None).await.unwrap().address, here);
        assert_eq!(connections.count(), 2);
    }

    #[tokio::test]
    async fn an_address_that_does_not_answer_does_not_hold_up_the_next() {
        let (_listener, here, _) = addresses().await;
        // A listener whose queue is full answers nobody (a backlog of 0 holds one connection).
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let silent = socket.listen(1).unwrap();
        let address = silent.local_addr().unwrap();
        let mut held = Vec::new();
        while let Ok(Ok(stream)) = tokio::time::timeout(PATIENCE, tokio::net::TcpStream::connect(address)).await {
            held.push(stream);
        }
        let options = ClientOptions { connect_timeout: Duration::from_secs(600), ..ClientOptions::default() };
        let connections = Connections::new(vec![address.to_string(), here.clone()], options);
        assert_eq!(connections.get(Some(&address.to_string())).await.unwrap().address, here);
    }
}
