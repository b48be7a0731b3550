//! The client: connections, cached metadata, and the one way in which a unary call is made, timed and retried.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flotilla_proto::v1;
use flotilla_proto::v1::cluster_client::ClusterClient;
use tokio::sync::watch;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::connections::{Connection, Connections};
use crate::error::Error;
use crate::metadata::{Limits, Metadata, TopicView};
use crate::outage::{Outage, Outages};
use crate::retry::Backoff;

/// Longest wait between two attempts.
pub(crate) const RETRY_BACKOFF_MAX: Duration = Duration::from_secs(2);
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
        let addresses: Vec<String> = addresses.into_iter().map(Into::into).collect();
        if addresses.is_empty() {
            return Err(Error::InvalidArgument("give at least one address of a node, as host:port".to_owned()));
        }
        let connections = Connections::new(addresses, options.clone());
        let client =
            Self { inner: Arc::new(Inner { connections, metadata: Metadata::default(), outages: Outages::default(), options }) };
        client.inner.connections.get(None).await?;
        client.fetch_metadata(Vec::new()).await?;
        Ok(client)
    }

    /// What the server accepts.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.inner.metadata.limits()
    }

    /// Whether the client's producers and consumers retry in vain at present, and since when.
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

    pub(crate) fn known_leader(&self, topic: &str, partition: u32) -> Option<Arc<str>> {
        self.inner.metadata.topic(topic)?.leader(partition)
    }

    pub(crate) fn options(&self) -> &ClientOptions {
        &self.inner.options
    }

    pub(crate) fn backoff(&self) -> Backoff {
        Backoff::new(self.limits().retry_backoff, RETRY_BACKOFF_MAX)
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
        let answer = self
            .call(Repeat::Safe, |channel, left| {
                let request = timed(v1::GetMetadataRequest { topics: topics.clone() }, left);
                async move { ClusterClient::new(channel).get_metadata(request).await }
            })
            .await?;
        self.inner.metadata.update(answer)
    }

    /// Makes a unary call within the request timeout, on one address after the other, with backoff.
    pub(crate) async fn call<T, F>(&self, repeat: Repeat, attempt: impl Fn(Channel, Duration) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let deadline = Instant::now() + self.inner.options.request_timeout;
        let mut backoff = self.backoff();
        loop {
            let error = match self.attempt(deadline, &attempt).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let repeatable = repeat == Repeat::Safe || !error.outcome_unknown();
            // A cluster that cannot be reached at all is reported at once: the user waits at a prompt.
            let hopeless = matches!(error, Error::Unreachable { .. });
            let wait = error.retry_after().unwrap_or_default().max(backoff.next());
            if hopeless || !repeatable || !error.is_retriable() || Instant::now() + wait >= deadline {
                return Err(error);
            }
            tokio::time::sleep(wait).await;
        }
    }

    async fn attempt<T, F>(&self, deadline: Instant, attempt: &impl Fn(Channel, Duration) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let connection = self.connection(None).await?;
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Error::Timeout(self.inner.options.request_timeout);
        let answer = tokio::time::timeout(left, attempt(connection.channel, left)).await.map_err(|_| timeout)?;
        answer.map(Response::into_inner).map_err(|status| {
            let error = Error::of_answer(status, &connection.address);
            if matches!(error, Error::ConnectionLost { .. }) {
                self.forget_connection(&connection.address);
            }
            error
        })
    }
}

/// A request that tells the server when to give up.
pub(crate) fn timed<T>(message: T, timeout: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}
