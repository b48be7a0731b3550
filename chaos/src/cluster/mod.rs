//! A cluster of real processes on this machine, each with its own directory and ports.

mod lan;
mod node;
mod ports;
mod power;
mod replace;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use flotilla_client::{Client, ClientOptions, Error, api};
use tokio::time::Instant;

pub use lan::{End, Lan};
pub use node::Node;
use node::NodeOptions;
pub use ports::Ports;
use power::PowerDisk;
pub use power::can_cut_power;

const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// What a cluster consists of.
#[derive(Debug, Clone, Default)]
pub struct ClusterOptions {
    /// The `flotilla` binary.
    pub binary: PathBuf,
    /// Holds every node's data and log.
    pub dir: PathBuf,
    /// How many nodes.
    pub nodes: u64,
    /// Arguments of `flotilla server` besides identity, directory, addresses and seeds.
    pub server_args: Vec<String>,
    /// The program (this one) under whose watch the nodes' file system calls are, if they are; see [`trap`](crate::trap).
    pub watcher: Option<PathBuf>,
    /// Where the nodes' ports come from, if all of them are on the loopback interface,
    pub ports: Ports,
    /// and not on a network of their own.
    pub network: Option<Arc<Lan>>,
    /// Whether each node has a disk of its own that can lose its power.
    pub own_disks: bool,
}

/// Why there is no cluster.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// A node cannot be started.
    #[error("node {id} cannot be started with {}: {error}", .binary.display())]
    Start {
        /// The node.
        id: u64,
        /// What should have run.
        binary: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// All ports are taken.
    #[error("no port is free on the loopback interface")]
    NoPort,
    /// A node's network or disk cannot be made.
    #[error("node {id} cannot have a place of its own: {why}")]
    NoPlace {
        /// The node.
        id: u64,
        /// What the system said.
        why: String,
    },
    /// It did not come up.
    #[error("the cluster is not ready after {waited:?} (last: {last}); the end of each log:\n{logs}")]
    NotReady {
        /// How long it was waited for.
        waited: Duration,
        /// What was missing.
        last: String,
        /// What the nodes logged.
        logs: String,
    },
}

/// Nodes that know each other. Dropping it kills them.
#[derive(Debug)]
pub struct Cluster {
    options: ClusterOptions,
    nodes: Vec<Node>,
}

impl Cluster {
    /// Starts every node; [`wait_ready`](Cluster::wait_ready) waits until they are one.
    ///
    /// # Errors
    /// If one cannot be started.
    pub fn start(options: &ClusterOptions) -> Result<Self, ClusterError> {
        let mut cluster = Self::prepare(options)?;
        for node in &mut cluster.nodes {
            let started = node.start();
            started.map_err(|error| ClusterError::Start { id: node.id(), binary: options.binary.clone(), error })?;
        }
        Ok(cluster)
    }

    /// The same, and no node is started yet.
    ///
    /// # Errors
    /// If there are no ports.
    pub fn prepare(options: &ClusterOptions) -> Result<Self, ClusterError> {
        let mut cluster = Self { options: options.clone(), nodes: Vec::new() };
        let mut addresses = Vec::new();
        for id in 1..=options.nodes {
            addresses.push((id, cluster.draw_ports(id)?));
        }
        let seeds: Vec<String> = addresses.iter().map(|(_, (listen, _))| listen.to_string()).collect();
        for (id, ports) in addresses {
            cluster.add_node(id, ports, &seeds)?;
        }
        Ok(cluster)
    }

    /// Where a node listens, for gRPC and for HTTP.
    fn draw_ports(&self, id: u64) -> Result<(SocketAddr, SocketAddr), ClusterError> {
        match &self.options.network {
            Some(network) => network.join(id).map_err(|why| ClusterError::NoPlace { id, why }),
            None => self.options.ports.next().zip(self.options.ports.next()).ok_or(ClusterError::NoPort),
        }
    }

    fn add_node(&mut self, id: u64, (listen, http): (SocketAddr, SocketAddr), seeds: &[String]) -> Result<(), ClusterError> {
        let ClusterOptions { binary, dir, server_args, watcher, network, own_disks, .. } = self.options.clone();
        let mut args = server_args;
        if seeds.len() > 1 {
            args.extend(["--seeds".to_owned(), seeds.join(",")]);
        }
        let disk =
            if own_disks { Some(PowerDisk::make(&dir, id).map_err(|why| ClusterError::NoPlace { id, why })?) } else { None };
        let data_dir = disk.as_ref().map_or_else(|| dir.join(format!("node-{id}")), PowerDisk::data_dir);
        let mut prefix =
            network.map_or_else(Vec::new, |network| network.inside(id)).into_iter().map(Into::into).collect::<Vec<_>>();
        if let Some(watcher) = &watcher {
            prefix.extend([watcher.into(), "trapped".into(), "--".into()]);
        }
        let log = dir.join(format!("node-{id}.log"));
        let options = NodeOptions { id, binary, prefix, data_dir, log, listen, http, args, is_watched: watcher.is_some() };
        self.nodes.push(Node::new(options, disk));
        Ok(())
    }

    /// The nodes, by id.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node with this id.
    pub fn node(&mut self, id: u64) -> Option<&mut Node> {
        self.nodes.iter_mut().find(|node| node.id() == id)
    }

    /// The addresses of all nodes, beginning with the `first`-th (counted round), and the id of that one: clients with
    /// different numbers come through different nodes.
    #[must_use]
    pub fn addresses(&self, first: usize) -> (u64, Vec<String>) {
        let first = first % self.nodes.len().max(1);
        let in_turn = || self.nodes.iter().cycle().skip(first).take(self.nodes.len());
        (in_turn().next().map_or(0, Node::id), in_turn().map(Node::address).collect())
    }

    /// Waits until every node is ready, knows all others and has a controller.
    ///
    /// # Errors
    /// If that does not come within `timeout`, or a node ends.
    pub async fn wait_ready(&mut self, timeout: Duration) -> Result<(), ClusterError> {
        let began = Instant::now();
        loop {
            let (crashed, missing) = (self.crashed().join("\n"), self.missing().await);
            if missing.is_none() && crashed.is_empty() {
                return Ok(());
            }
            if began.elapsed() >= timeout || !crashed.is_empty() {
                let tails = self.nodes.iter().map(|node| format!("node {}:\n{}", node.id(), node.log_tail()));
                let last = if crashed.is_empty() { missing.unwrap_or_default() } else { crashed };
                return Err(ClusterError::NotReady { waited: began.elapsed(), last, logs: tails.collect() });
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    async fn missing(&self) -> Option<String> {
        for node in &self.nodes {
            match self.described_by(node).await {
                Err(error) => return Some(format!("node {}: {error}", node.id())),
                Ok(cluster) => {
                    let (known, wanted) = (cluster.nodes.len(), self.nodes.len());
                    let offline = cluster.nodes.iter().filter(|other| wanted > 1 && !other.online).count();
                    if known != wanted || offline > 0 || cluster.controller_leader.is_none() {
                        let leader = cluster.controller_leader;
                        return Some(format!(
                            "node {} knows {known} of {wanted} nodes, {offline} of them offline, controller leader {leader:?}",
                            node.id()
                        ));
                    }
                }
            }
        }
        None
    }

    async fn described_by(&self, node: &Node) -> Result<api::DescribeClusterResponse, Error> {
        let second = Duration::from_secs(1);
        let options = ClientOptions { connect_timeout: second, request_timeout: second, ..ClientOptions::default() };
        let client = Client::connect([node.address()], options).await?;
        client.describe_cluster(api::DescribeClusterRequest {}).await
    }

    /// What happened to nodes that ended although nobody ended them.
    pub fn crashed(&mut self) -> Vec<String> {
        self.nodes.iter_mut().filter_map(Node::crashed).collect()
    }

    /// Asks all nodes to end and waits for it. What was not clean.
    pub async fn stop(&mut self) -> Vec<String> {
        let mut unclean = self.crashed();
        for node in &mut self.nodes {
            unclean.extend(node.stop().await);
        }
        unclean
    }
}
