//! The client: connections, cached metadata, and the one way in which a unary call is made, timed and retried.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use flotilla_proto::v1::cluster_client::ClusterClient;
use flotilla_proto::{DIRECT, v1};
use tokio::sync::watch;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status};

use crate::cluster::Channel;
use crate::connections::{Connection, Connections};
use crate::error::{Error, causes};
use crate::metadata::{Limits, Metadata, TopicView};
use crate::outage::{Outage, Outages};
use crate::retry::Backoff;

/// Longest wait between two attempts.
pub(crate) const RETRY_BACKOFF_MAX: Duration = Duration::from_secs(2);
/// The same for batches and streams, which are few and must not stand still for longer than they have to.
const STREAM_BACKOFF_MAX: Duration = Duration::from_millis(500);
/// How old metadata may be while a request takes a longer way than it needs to.
const METADATA_AGE_MAX: Duration = Duration::from_secs(1);
/// How long one node may take to tell where the leaders are, if there are others to ask.
const METADATA_PATIENCE: Duration = Duration::from_secs(1);
/// A call that is not answered for this long is told of.
const SILENCE: Duration = Duration::from_secs(2);
/// What a message carries besides its batches: framing, names, positions.
const MESSAGE_OVERHEAD_BYTES: u64 = 1 << 20;

/// How a client connects. `Default` suits most.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Longest time for opening one connection. Default 5 s.
    pub connect_timeout: Duration,
    /// Longest time for one call with all its retries, and for the answer to one produced batch. Default 30 s.
    pub request_timeout: Duration,
    /// How much the server may send ahead on one stream, in bytes. Default 8 MiB.
    pub stream_window_bytes: u32,
    /// How much the server may send ahead on a connection, in bytes. Default 16 MiB.
    pub connection_window_bytes: u32,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            stream_window_bytes: 8 << 20,
            connection_window_bytes: 16 << 20,
        }
    }
}

/// A client of one cluster. Cheap to clone; clones share connections and metadata.
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    connections: Connections,
    metadata: Metadata,
    outages: Outages,
    options: ClientOptions,
}

/// Whether a call may be repeated when it is not known whether the first attempt took effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Reads, and writes that are the same twice.
    Safe,
    /// Only if the first attempt provably had no effect.
    IfNotDone,
}

impl Client {
    /// Connects to the first of `addresses` (`host:port`) that answers. Later, connections are opened again as needed,
    /// on any of them.
    ///
    /// # Errors
    /// If there is no address, or none answers.
    pub async fn connect<A>(addresses: A, options: ClientOptions) -> Result<Self, Error>
    where
        A: IntoIterator,
        A::Item: Into<String>,
    {
        let client = Self::unconnected(addresses, options)?;
        client.reach().await?;
        Ok(client)
    }

    /// A client that connects when it is first used, or by [`reach`](Client::reach): for those who want to watch
    /// [`outage`](Client::outage) meanwhile.
    ///
    /// # Errors
    /// If there is no address.
    pub fn unconnected<A>(addresses: A, options: ClientOptions) -> Result<Self, Error>
    where
        A: IntoIterator,
        A::Item: Into<String>,
    {
        let addresses: Vec<String> = addresses.into_iter().map(Into::into).collect();
        if addresses.is_empty() {
            return Err(Error::InvalidArgument("give at least one address of a node, as host:port".to_owned()));
        }
        let connections = Connections::new(addresses, options.clone());
        Ok(Self { inner: Arc::new(Inner { connections, metadata: Metadata::default(), outages: Outages::default(), options }) })
    }

    /// Connects to the first address that answers, and learns what the cluster is.
    ///
    /// # Errors
    /// If none answers.
    pub async fn reach(&self) -> Result<(), Error> {
        self.fetch_metadata(Vec::new()).await
    }

    /// UUID of the cluster, once a node has answered. Nodes that belong to another one are never used, whatever address
    /// they have.
    #[must_use]
    pub fn cluster_id(&self) -> Option<Arc<str>> {
        self.inner.connections.clusters().own()
    }

    /// Calls `tell` once for each address of the cluster at which a node of another one answers
    /// ([`Error::WrongCluster`]): the client goes on without it as long as others answer. Only the first call counts.
    pub fn tell_foreign_nodes(&self, tell: impl Fn(&Error) + Send + Sync + 'static) {
        self.inner.connections.clusters().tell_foreign(Box::new(tell));
    }

    /// What the server accepts.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.inner.metadata.limits()
    }

    /// Whether what the client does is retried in vain at present, or waits for long, and since when.
    #[must_use]
    pub fn outage(&self) -> watch::Receiver<Option<Outage>> {
        self.inner.outages.watch()
    }

    pub(crate) fn outages(&self) -> &Outages {
        &self.inner.outages
    }

    /// A topic's partitions and limits, from the cache if it is known already.
    ///
    /// # Errors
    /// If there is no such topic, or the cluster does not answer.
    pub async fn topic(&self, name: &str) -> Result<Arc<TopicView>, Error> {
        if let Some(view) = self.inner.metadata.topic(name) {
            return Ok(view);
        }
        self.refresh_topic(name).await
    }

    pub(crate) async fn refresh_topic(&self, name: &str) -> Result<Arc<TopicView>, Error> {
        self.inner.metadata.forget(name);
        self.fetch_metadata(vec![name.to_owned()]).await?;
        let view = self.inner.metadata.topic(name);
        view.ok_or_else(|| Error::Protocol(format!("metadata of topic {name} was asked for and is missing")))
    }

    /// Fetches a topic's metadata again in the background: a leader has moved.
    pub(crate) fn refresh_topic_soon(&self, name: &str) {
        if !self.inner.metadata.start_refresh(name) {
            return;
        }
        let (client, name) = (self.clone(), name.to_owned());
        tokio::spawn(async move {
            if let Err(error) = client.fetch_metadata(vec![name.clone()]).await {
                tracing::debug!(topic = name, %error, "metadata not refreshed");
            }
            client.inner.metadata.refreshed(&name);
        });
    }

    /// As [`refresh_topic_soon`](Client::refresh_topic_soon), unless it was fetched a moment ago.
    pub(crate) fn refresh_topic_if_old(&self, name: &str) {
        if self.inner.metadata.age(name).is_none_or(|age| age >= METADATA_AGE_MAX) {
            self.refresh_topic_soon(name);
        }
    }

    /// What an error says about who leads some partitions. Where it says nothing the leader is not known any more, and any
    /// node may be asked, which waits for the new one.
    pub(crate) fn learn_leader(&self, topic: &str, partitions: impl IntoIterator<Item = u32>, error: &Error) {
        if error.is_elsewhere() {
            let leader = error.metadata("leader_address").map(Arc::from);
            self.inner.metadata.set_leaders(topic, partitions, leader);
        }
    }

    /// As [`learn_leader`](Client::learn_leader), where the error does not say about which of the partitions it is.
    pub(crate) fn forget_leaders(&self, topic: &str, partitions: impl IntoIterator<Item = u32>, error: &Error) {
        if error.is_elsewhere() {
            self.inner.metadata.set_leaders(topic, partitions, None);
        }
    }

    /// Whether there is a connection to this address; if not, there may be soon.
    pub(crate) fn is_connected_or_soon(&self, address: &str) -> bool {
        self.inner.connections.is_open_or_soon(address)
    }

    pub(crate) fn known_leader(&self, topic: &str, partition: u32) -> Option<Arc<str>> {
        self.inner.metadata.topic(topic)?.leader(partition)
    }

    /// A topic as it was last seen, if it still is the one with this id.
    pub(crate) fn known_topic(&self, topic: &str, id: &str) -> Option<Arc<TopicView>> {
        self.inner.metadata.topic(topic).filter(|view| *view.id == *id)
    }

    pub(crate) fn options(&self) -> &ClientOptions {
        &self.inner.options
    }

    pub(crate) fn backoff(&self) -> Backoff {
        Backoff::new(self.limits().retry_backoff, RETRY_BACKOFF_MAX)
    }

    /// As [`backoff`](Client::backoff), for what must go on soon after a leader is back.
    pub(crate) fn retry_backoff(&self) -> Backoff {
        Backoff::new(self.limits().retry_backoff, STREAM_BACKOFF_MAX)
    }

    pub(crate) async fn connection(&self, preferred: Option<&str>) -> Result<Connection, Error> {
        self.inner.connections.get(preferred).await
    }

    pub(crate) fn forget_connection(&self, address: &str) {
        self.inner.connections.forget(address);
    }

    /// Largest message to accept from the server.
    pub(crate) fn message_bytes_max(&self) -> usize {
        let limits = self.limits();
        let bytes = limits.request_bytes_max.max(limits.batch_bytes_max).saturating_mul(2);
        usize::try_from(bytes.saturating_add(MESSAGE_OVERHEAD_BYTES)).unwrap_or(usize::MAX)
    }

    async fn fetch_metadata(&self, topics: Vec<String>) -> Result<(), Error> {
        // A node that stands still keeps its connections open: the others know more.
        let alone = self.inner.connections.count() < 2;
        let patience = if alone { self.inner.options.request_timeout } else { METADATA_PATIENCE };
        let fetch = |channel, left| {
            let request = timed(v1::GetMetadataRequest { topics: topics.clone() }, left);
            async move { ClusterClient::new(channel).get_metadata(request).await }
        };
        let answer = self.call_within(patience, Repeat::Safe, fetch).await?;
        self.inner.connections.learn(answer.nodes.iter().filter(|node| node.online).map(|node| node.address.clone()));
        self.inner.metadata.update(answer)
    }

    /// Makes a unary call within the request timeout, on one address after the other, with backoff.
    pub(crate) async fn call<T, F>(&self, repeat: Repeat, attempt: impl Fn(Channel, Duration) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.call_within(self.inner.options.request_timeout, repeat, attempt).await
    }

    /// As [`call`](Client::call); no single attempt takes longer than `patience`.
    async fn call_within<T, F>(
        &self,
        patience: Duration,
        repeat: Repeat,
        attempt: impl Fn(Channel, Duration) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let deadline = Instant::now() + self.inner.options.request_timeout;
        let mut backoff = self.backoff();
        let mut others = self.inner.connections.count().saturating_sub(1);
        let trouble = Trouble { outages: &self.inner.outages, met: AtomicBool::new(false) };
        loop {
            let error = match self.attempt(deadline, patience, &trouble, &attempt).await {
                Ok(answer) => {
                    trouble.over();
                    return Ok(answer);
                }
                Err(error) => error,
            };
            let repeatable = repeat == Repeat::Safe || !error.outcome_unknown();
            // A cluster that cannot be reached at all is reported at once: the user waits at a prompt.
            let hopeless = matches!(error, Error::Unreachable { .. });
            // Another node may answer at once.
            let lost = matches!(error, Error::ConnectionLost { .. } | Error::NotSent { .. } | Error::Timeout(_));
            let elsewhere = others > 0 && lost;
            others = others.saturating_sub(1);
            let wait = if elsewhere { Duration::ZERO } else { error.retry_after().unwrap_or_default().max(backoff.next()) };
            if hopeless || !repeatable || !error.is_retriable() || Instant::now() + wait >= deadline {
                return Err(error);
            }
            trouble.meet(&error);
            tokio::time::sleep(wait).await;
        }
    }

    async fn attempt<T, F>(
        &self,
        deadline: Instant,
        patience: Duration,
        trouble: &Trouble<'_>,
        attempt: &impl Fn(Channel, Duration) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut connection = pin!(self.connection(None));
        let connection = match tokio::time::timeout(SILENCE, &mut connection).await {
            Ok(connection) => connection,
            Err(_) => {
                trouble.meet(&Error::Timeout(SILENCE));
                connection.await
            }
        }?;
        let left = deadline.saturating_duration_since(Instant::now()).min(patience);
        let mut answer = pin!(attempt(connection.channel, left));
        let answer = match tokio::time::timeout(left.min(SILENCE), &mut answer).await {
            Err(_) if left > SILENCE => {
                trouble.meet(&Error::Timeout(SILENCE));
                tokio::time::timeout(left - SILENCE, answer).await
            }
            answer => answer,
        };
        let refused = |status| match timed_out(&status) {
            true => Error::Timeout(patience),
            false => Error::of_answer(status, &connection.address),
        };
        let answer = answer.map_err(|_| Error::Timeout(patience)).and_then(|answer| answer.map_err(refused));
        if matches!(answer, Err(Error::ConnectionLost { .. } | Error::NotSent { .. } | Error::Timeout(_))) {
            self.forget_connection(&connection.address);
        }
        answer.map(Response::into_inner)
    }
}

/// Whether the channel gave up at the request's deadline.
fn timed_out(status: &Status) -> bool {
    causes(status).any(|cause| cause.is::<tonic::TimeoutExpired>())
}

/// What one call has met, told to whoever watches the client's outages.
struct Trouble<'a> {
    outages: &'a Outages,
    met: AtomicBool,
}

impl Trouble<'_> {
    fn meet(&self, error: &Error) {
        self.outages.failed(error);
        self.met.store(true, Ordering::Relaxed);
    }

    /// The call succeeded. What others have met is not over for that.
    fn over(&self) {
        if self.met.load(Ordering::Relaxed) {
            self.outages.over();
        }
    }
}

/// A request that tells the server when to give up: in whole milliseconds, as the same text takes a byte in the headers of
/// all requests but the first.
pub(crate) fn timed<T>(message: T, timeout: Duration) -> Request<T> {
    let mut request = Request::new(message);
    let ms = timeout.as_nanos().div_ceil(1_000_000);
    request.set_timeout(Duration::from_millis(u64::try_from(ms).unwrap_or(u64::MAX)));
    request
}

/// A request for the node at `address`. If that is the one it is meant for (a leader), the node must not pass it on: it
/// says who leads if it does not, and the next request takes the shortest way again.
pub(crate) fn meant_for<T>(message: T, address: &str, leader: Option<&str>) -> Request<T> {
    let mut request = Request::new(message);
    if leader == Some(address) {
        request.metadata_mut().insert(DIRECT, MetadataValue::from_static("1"));
    }
    request
}
