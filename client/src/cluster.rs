//! Which cluster a client uses: that of the first node that answered. Nodes of another one are never used, whoever named
//! their address.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use flotilla_proto::v1::cluster_client::ClusterClient;
use flotilla_proto::{CLUSTER_ID, v1};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Status, transport};

use crate::client::timed;
use crate::error::Error;

/// A channel to a node of the client's cluster, every request on which names the cluster.
pub(crate) type Channel = InterceptedService<transport::Channel, Named>;

/// Names the cluster in each request, so that no other serves it.
#[derive(Debug, Clone)]
pub(crate) struct Named(MetadataValue<Ascii>);

impl Interceptor for Named {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert(CLUSTER_ID, self.0.clone());
        Ok(request)
    }
}

type Tell = Box<dyn Fn(&Error) + Send + Sync>;

/// The cluster of a client, and what it met besides.
#[derive(Default)]
pub(crate) struct Clusters {
    known: Mutex<Known>,
    tell: OnceLock<Tell>,
}

#[derive(Debug, Default)]
struct Known {
    own: Option<Arc<str>>,
    /// By address: other clusters whose nodes answered there.
    foreign: HashMap<String, String>,
}

impl Clusters {
    /// The cluster's id, once a node has answered.
    pub fn own(&self) -> Option<Arc<str>> {
        self.lock().own.clone()
    }

    /// Calls `tell` once for each address at which a node of another cluster answers. Only the first call counts.
    pub fn tell_foreign(&self, tell: Tell) {
        // The client has one owner who says this.
        let _ = self.tell.set(tell);
    }

    /// Whether a node at `address` that belongs to cluster `found` may be used; how requests to it name the cluster.
    ///
    /// # Errors
    /// If it belongs to another one.
    pub fn admit(&self, address: &str, found: &str) -> Result<Named, Error> {
        let named = MetadataValue::try_from(found).ok().filter(|_| !found.is_empty());
        let named = named.ok_or_else(|| Error::Protocol(format!("{address} does not say which cluster it belongs to")))?;
        let mut known = self.lock();
        let expected = known.own.get_or_insert_with(|| found.into()).to_string();
        if expected == found {
            known.foreign.remove(address);
            return Ok(Named(named));
        }
        let is_new = known.foreign.insert(address.to_owned(), found.to_owned()).is_none_or(|before| before != found);
        drop(known);
        let error = Error::WrongCluster { address: address.to_owned(), expected, found: found.to_owned() };
        if is_new {
            tracing::warn!("{error}");
            if let Some(tell) = self.tell.get() {
                tell(&error);
            }
        }
        Err(error)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Clusters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lock().fmt(f)
    }
}

/// The cluster that the node at the other end belongs to, in its own words.
///
/// # Errors
/// If it does not answer, or not yet.
pub(crate) async fn cluster_of(channel: transport::Channel, address: &str, timeout: Duration) -> Result<String, Error> {
    let mut stub = ClusterClient::new(channel);
    let asking = async {
        let metadata = stub.get_metadata(timed(v1::GetMetadataRequest::default(), timeout)).await?.into_inner();
        if !metadata.cluster_id.is_empty() {
            return Ok(metadata.cluster_id);
        }
        // It is older than that answer.
        let described = stub.describe_cluster(timed(v1::DescribeClusterRequest::default(), timeout)).await?;
        Ok(described.into_inner().cluster_id)
    };
    match tokio::time::timeout(timeout, asking).await {
        Ok(answer) => answer.map_err(|status| Error::of_answer(status, address)),
        Err(_) => Err(Error::Timeout(timeout)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn the_first_that_answers_decides_and_each_other_one_is_told_of_once() {
        let (clusters, told) = (Clusters::default(), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&told);
        clusters.tell_foreign(Box::new(move |_| _ = counted.fetch_add(1, Ordering::Relaxed)));
        clusters.admit("a:1", "one").unwrap();
        assert_eq!(clusters.own().as_deref(), Some("one"));
        for _ in 0..3 {
            let error = clusters.admit("b:1", "two").unwrap_err();
            let said = error.to_string();
            assert!(["b:1", "cluster one", "cluster two", "--advertise"].iter().all(|word| said.contains(word)), "{said}");
            assert!(!error.is_retriable() && !error.outcome_unknown());
        }
        assert_eq!(told.load(Ordering::Relaxed), 1);
        // Whoever forwarded the address has corrected it, and then not.
        clusters.admit("b:1", "one").unwrap();
        clusters.admit("b:1", "two").unwrap_err();
        assert_eq!(told.load(Ordering::Relaxed), 2);
        assert!(matches!(clusters.admit("c:1", ""), Err(Error::Protocol(_))));
    }
}
