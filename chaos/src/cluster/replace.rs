//! A node that leaves for good, and a new one in its place.

use std::io;
use std::time::Duration;

use flotilla_client::{Client, ClientOptions, Error, api};
use tokio::time::Instant;

use super::{Cluster, Node, POLL_INTERVAL};

/// Everything has moved by then, or it hangs.
const PATIENCE: Duration = Duration::from_secs(180);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

impl Cluster {
    /// Starts a new node, waits until it belongs to the cluster, has `leaving` leave, waits until everything has moved away
    /// from it, and ends its process.
    ///
    /// # Errors
    /// If any of this does not happen.
    pub async fn replace(&mut self, leaving: u64) -> io::Result<()> {
        let id = self.nodes.iter().map(Node::id).max().unwrap_or(0) + 1;
        let seeds = self.addresses(0).1;
        let ports = self.draw_ports(id).map_err(io::Error::other)?;
        self.add_node(id, ports, &seeds).map_err(io::Error::other)?;
        if let Some(node) = self.node(id) {
            node.start()?;
        }
        self.wait_ready(PATIENCE).await.map_err(io::Error::other)?;
        let staying = self.nodes.iter().filter(|node| node.id() != leaving).map(Node::address);
        let options = ClientOptions { request_timeout: ANSWER_TIMEOUT, ..ClientOptions::default() };
        let client = Client::connect(staying, options).await.map_err(io::Error::other)?;
        client.remove_node(api::RemoveNodeRequest { node_id: leaving }).await.map_err(io::Error::other)?;
        self.until_gone(&client, leaving).await?;
        let gone = self.nodes.iter().position(|node| node.id() == leaving);
        let Some(mut gone) = gone.map(|index| self.nodes.remove(index)) else { return Ok(()) };
        match gone.stop().await {
            Some(unclean) => Err(io::Error::other(unclean)),
            None => Ok(()),
        }
    }

    async fn until_gone(&self, client: &Client, leaving: u64) -> io::Result<()> {
        let began = Instant::now();
        loop {
            let last = match client.describe_cluster(api::DescribeClusterRequest {}).await {
                Ok(cluster) => match cluster.nodes.iter().find(|node| node.node_id == leaving) {
                    None => return Ok(()),
                    Some(node) => format!("it holds {} replicas and leads {}", node.replicas, node.leaders),
                },
                Err(error @ Error::Closed) => return Err(io::Error::other(error)),
                Err(error) => error.to_string(),
            };
            if began.elapsed() > PATIENCE {
                return Err(io::Error::other(format!("node {leaving} has not left after {PATIENCE:?}: {last}")));
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}
