//! Open connections, by address: opened when first needed, forgotten when they break, tried in turn when one is down.
//!
//! An address may lead to a node of another cluster. So each connection is asked whose node it is ([`crate::cluster`])
//! before it is used, and every request on it names the cluster.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hyper_util::client::legacy::connect::HttpConnector;
use tonic::transport::Endpoint;

use crate::client::ClientOptions;
use crate::cluster::{Channel, Clusters, cluster_of};
use crate::error::Error;
use crate::line::{self, Line};

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
    clusters: Clusters,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    open: HashMap<String, (Channel, Line)>,
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
        Self { inner: Arc::new(Inner { bootstrap, options, clusters: Clusters::default(), state: Mutex::default() }) }
    }

    /// Which cluster the client uses, and which nodes it met that belong to another one.
    pub fn clusters(&self) -> &Clusters {
        &self.inner.clusters
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
        let mut worst = Error::Unreachable { addresses: String::new(), reason: "no address given".to_owned() };
        let mut waiting = addresses.iter().cloned();
        let mut dialling = FuturesUnordered::new();
        dialling.extend(waiting.next().map(|address| self.dial(address)));
        while !dialling.is_empty() {
            tokio::select! {
                Some((_, dialled)) = dialling.next() => match dialled {
                    Ok(connection) => return Ok(connection),
                    Err(error) if rank(&error) >= rank(&worst) => worst = error,
                    Err(_) => {}
                },
                () = tokio::time::sleep(PATIENCE), if waiting.len() > 0 => {}
            }
            dialling.extend(waiting.next().map(|address| self.dial(address)));
        }
        Err(match worst {
            Error::Unreachable { reason, .. } => Error::Unreachable { addresses: addresses.join(", "), reason },
            other => other,
        })
    }

    fn opened(&self, address: &str) -> Option<Connection> {
        let mut state = self.lock();
        let (channel, line) = state.open.get(address)?.clone();
        if !line.is_open() {
            state.open.remove(address);
            return None;
        }
        Some(Connection { address: address.to_owned(), channel })
    }

    fn is_down(&self, address: &str) -> bool {
        self.lock().failed_at.get(address).is_some_and(|failed_at| failed_at.elapsed() < DOWN_FOR)
    }

    async fn dial(&self, address: String) -> (String, Result<Connection, Error>) {
        let opened = self.open(&address).await;
        let mut state = self.lock();
        let dialled = match opened {
            Ok((channel, line)) => {
                state.failed_at.remove(&address);
                state.open.insert(address.clone(), (channel.clone(), line));
                Ok(Connection { address: address.clone(), channel })
            }
            Err(error) => {
                state.failed_at.insert(address.clone(), Instant::now());
                Err(error)
            }
        };
        drop(state);
        (address, dialled)
    }

    /// A connection to a node of the client's cluster. Nothing else was sent on it.
    async fn open(&self, address: &str) -> Result<(Channel, Line), Error> {
        let unreachable = |reason| Error::Unreachable { addresses: address.to_owned(), reason };
        let endpoint = self.endpoint(address).map_err(unreachable)?;
        let (channel, line) = line::connect(endpoint, self.connector()).await.map_err(unreachable)?;
        let timeout = self.inner.options.connect_timeout;
        let cluster_id = cluster_of(channel.clone(), address, timeout).await.map_err(|error| match error {
            Error::ConnectionLost { reason } | Error::NotSent { reason } => unreachable(reason),
            late if late.outcome_unknown() => {
                Error::NotSent { reason: format!("{address} takes connections, but has not answered within {timeout:?}") }
            }
            refused => refused,
        })?;
        let named = self.inner.clusters.admit(address, &cluster_id)?;
        Ok((Channel::new(channel, named), line))
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

/// Which of several addresses says best what is wrong: one that may serve later, then one that never will.
fn rank(error: &Error) -> u8 {
    match error {
        Error::Unreachable { .. } => 0,
        error if error.is_retriable() => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use flotilla_proto::v1;
    use flotilla_proto::v1::cluster_client::ClusterClient;
    use flotilla_proto::v1::cluster_server::{Cluster, ClusterServer};
    use tokio::net::TcpListener;
    use tokio_stream::wrappers::TcpListenerStream;
    use tonic::transport::Server;
    use tonic::{Request, Response, Status};

    use super::*;

    /// A node of this cluster that does nothing else but say so: in answers of today, or as old ones did.
    struct Node {
        cluster_id: &'static str,
        old: bool,
    }

    #[tonic::async_trait]
    impl Cluster for Node {
        async fn describe_cluster(
            &self,
            _: Request<v1::DescribeClusterRequest>,
        ) -> Result<Response<v1::DescribeClusterResponse>, Status> {
            let cluster_id = self.cluster_id.to_owned();
            Ok(Response::new(v1::DescribeClusterResponse { cluster_id, ..Default::default() }))
        }

        async fn get_metadata(&self, _: Request<v1::GetMetadataRequest>) -> Result<Response<v1::GetMetadataResponse>, Status> {
            let cluster_id = if self.old { String::new() } else { self.cluster_id.to_owned() };
            Ok(Response::new(v1::GetMetadataResponse { cluster_id, ..Default::default() }))
        }

        async fn verify_replicas(
            &self,
            _: Request<v1::VerifyReplicasRequest>,
        ) -> Result<Response<v1::VerifyReplicasResponse>, Status> {
            Err(Status::unimplemented("not here"))
        }
    }

    async fn node(cluster_id: &'static str, old: bool) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = Server::builder().add_service(ClusterServer::new(Node { cluster_id, old }));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        address
    }

    /// Nobody has this port, and nobody gets it by chance.
    const GONE: &str = "127.0.0.1:1";

    fn connections(addresses: &[&str]) -> Connections {
        Connections::new(addresses.iter().map(|&address| address.to_owned()).collect(), ClientOptions::default())
    }

    #[tokio::test]
    async fn whoever_answers_serves_in_place_of_the_one_that_is_preferred() {
        let here = node("one", false).await;
        let connections = connections(&[GONE, &here]);
        assert_eq!(connections.get(None).await.unwrap().address, here);
        assert_eq!(connections.get(Some(GONE)).await.unwrap().address, here);
        assert_eq!(connections.candidates(), [here.as_str(), GONE], "what failed comes last");
        connections.forget(&here);
        assert_eq!(connections.get(Some(&here)).await.unwrap().address, here, "there is no other");
    }

    #[tokio::test]
    async fn nodes_that_the_cluster_names_are_tried_too() {
        let here = node("one", false).await;
        let connections = connections(&[GONE]);
        let error = connections.get(None).await.unwrap_err();
        assert!(error.to_string().contains(GONE), "{error}");
        connections.learn([here.clone()].into_iter());
        assert_eq!(connections.get(None).await.unwrap().address, here);
        assert_eq!(connections.count(), 2);
    }

    #[tokio::test]
    async fn a_node_of_another_cluster_is_not_used_however_old_it_is() {
        for old in [false, true] {
            let (here, elsewhere) = (node("one", old).await, node("two", old).await);
            let connections = connections(&[&here]);
            assert_eq!(connections.get(None).await.unwrap().address, here);
            connections.learn([elsewhere.clone()].into_iter());
            assert_eq!(connections.get(Some(&elsewhere)).await.unwrap().address, here);
            assert!(!connections.is_open_or_soon(&elsewhere));
            connections.forget(&here);
            connections.lock().open.clear();
            let only = Connections { inner: Arc::clone(&connections.inner) };
            let error = only.first_of(vec![elsewhere.clone(), GONE.to_owned()]).await.unwrap_err();
            let said = error.to_string();
            assert!(matches!(error, Error::WrongCluster { .. }) && said.contains(&elsewhere), "{said}");
        }
    }

    #[tokio::test]
    async fn a_connection_that_ended_is_opened_anew_and_looked_at() {
        let (here, elsewhere) = (node("one", false).await, node("two", false).await);
        let forward = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = forward.local_addr().unwrap().to_string();
        let connections = connections(&[&address]);
        let (first, passing) = tokio::join!(connections.get(None), pass(&forward, here));
        let mut before = ClusterClient::new(first.unwrap().channel);
        passing.abort();
        assert!(passing.await.unwrap_err().is_cancelled());
        while connections.opened(&address).is_some() {
            tokio::task::yield_now().await;
        }
        let unsent = before.get_metadata(v1::GetMetadataRequest::default()).await.unwrap_err();
        assert!(matches!(Error::from(unsent), Error::NotSent { .. }));
        let (second, _passing) = tokio::join!(connections.get(None), pass(&forward, elsewhere));
        assert!(matches!(second.unwrap_err(), Error::WrongCluster { .. }));
    }

    /// Passes the next connection on.
    async fn pass(forward: &TcpListener, to: String) -> tokio::task::JoinHandle<()> {
        let (mut client, _) = forward.accept().await.unwrap();
        tokio::spawn(async move {
            let mut server = tokio::net::TcpStream::connect(to).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        })
    }

    #[tokio::test]
    async fn an_address_that_does_not_answer_does_not_hold_up_the_next() {
        let here = node("one", false).await;
        // It takes connections, and nothing else.
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = silent.local_addr().unwrap().to_string();
        let options = ClientOptions { connect_timeout: Duration::from_secs(600), ..ClientOptions::default() };
        let connections = Connections::new(vec![address.clone(), here.clone()], options);
        assert_eq!(connections.get(Some(&address)).await.unwrap().address, here);
    }
}
