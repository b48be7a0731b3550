//! Several server processes that are one cluster.

use std::path::Path;
use std::time::{Duration, Instant};

use flotilla_client::{Client, ClientOptions, api};

use crate::server::Server;

const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Nodes 1, 2, …, each with all of them as seeds. Dropping it kills them.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Server>,
}

impl Cluster {
    /// `count` nodes below `dir`, ready, with `args` besides who and where they are.
    ///
    /// # Panics
    /// If one does not become ready.
    pub fn started(dir: &Path, count: usize, args: &[&str]) -> Self {
        Self::with(dir, count, args, |_, _| Vec::new())
    }

    /// As [`started`](Cluster::started), with more arguments for some: `own` gets a node's id and address.
    ///
    /// # Panics
    /// If one does not become ready.
    pub fn with(dir: &Path, count: usize, args: &[&str], mut own: impl FnMut(u64, &str) -> Vec<String>) -> Self {
        let mut nodes: Vec<Server> = (1..=count).map(|id| Server::new(&dir.join(format!("n{id}")), args)).collect();
        let seeds = nodes.iter().map(Server::address).collect::<Vec<_>>().join(",");
        for (node, id) in nodes.iter_mut().zip(1..) {
            let own = own(id, &node.address());
            node.add_args(&["--node-id", &u64::to_string(&id), "--seeds", &seeds]);
            node.add_args(&own.iter().map(String::as_str).collect::<Vec<_>>());
            node.launch();
        }
        nodes.iter_mut().for_each(|node| node.ready().unwrap());
        Self { nodes }
    }

    /// The node with this id.
    ///
    /// # Panics
    /// If there is none.
    pub fn node(&mut self, id: u64) -> &mut Server {
        &mut self.nodes[id as usize - 1]
    }

    /// Where the nodes are, as `--addr` takes it.
    #[must_use]
    pub fn addresses(&self) -> String {
        self.nodes.iter().map(Server::address).collect::<Vec<_>>().join(",")
    }

    /// Waits until no partition of a node is down.
    ///
    /// # Panics
    /// If that does not come within `patience`.
    pub async fn wait_none_down(&mut self, id: u64, patience: Duration) {
        let began = Instant::now();
        let none = |metrics: String| metrics.lines().any(|line| line.trim_end() == "flotilla_partitions_down 0");
        while !self.node(id).get("/metrics").is_some_and(none) {
            assert!(began.elapsed() < patience, "node {id} has partitions that are down after {patience:?}");
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// A client that knows all nodes.
    ///
    /// # Panics
    /// If none can be reached.
    pub async fn client(&self) -> Client {
        Client::connect(self.nodes.iter().map(Server::address), ClientOptions::default()).await.unwrap()
    }

    /// Waits until each partition of `topic` has a leader, and every replica is in sync.
    ///
    /// # Panics
    /// If that does not come within `patience`.
    pub async fn wait_in_sync(&self, topic: &str, patience: Duration) {
        let client = self.client().await;
        let began = Instant::now();
        loop {
            let described = client.describe_topic(api::DescribeTopicRequest { name: topic.to_owned() }).await;
            let whole =
                |partition: &api::Partition| partition.leader.is_some() && partition.in_sync.len() == partition.replicas.len();
            let state = match described {
                Ok(described) if described.partitions.iter().all(whole) => return,
                other => format!("{other:?}"),
            };
            assert!(began.elapsed() < patience, "{topic} is not in sync after {patience:?}: {state}");
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}
