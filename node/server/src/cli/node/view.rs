//! Nodes as they are shown.

use flotilla_client::{Client, Error, api};
use serde::Serialize;

use crate::cli::exit::CliError;
use crate::cli::output::table;

/// A node as it is shown.
#[derive(Debug, Serialize)]
pub struct NodeView {
    pub node_id: u64,
    pub address: String,
    /// Empty: unknown.
    pub rack: String,
    pub state: &'static str,
    pub online: bool,
    pub replicas: u32,
    pub leaders: u32,
    pub controller_voter: bool,
}

impl From<api::Node> for NodeView {
    fn from(node: api::Node) -> Self {
        Self {
            state: match node.state() {
                api::NodeState::Active => "active",
                api::NodeState::Draining => "draining",
                api::NodeState::Leaving => "leaving",
                api::NodeState::Unspecified => "unknown",
            },
            node_id: node.node_id,
            address: node.address,
            rack: node.rack,
            online: node.online,
            replicas: node.replicas,
            leaders: node.leaders,
            controller_voter: node.controller_voter,
        }
    }
}

impl NodeView {
    fn row(&self) -> Vec<String> {
        let rack = if self.rack.is_empty() { "-" } else { &self.rack };
        vec![
            self.node_id.to_string(),
            self.address.clone(),
            rack.to_owned(),
            self.state.to_owned(),
            if self.online { "yes" } else { "no" }.to_owned(),
            self.replicas.to_string(),
            self.leaders.to_string(),
            if self.controller_voter { "voter" } else { "learner" }.to_owned(),
        ]
    }
}

/// Nodes, one a line.
pub fn node_table(nodes: &[NodeView]) -> String {
    let rows: Vec<_> = nodes.iter().map(NodeView::row).collect();
    table(&["NODE", "ADDRESS", "RACK", "STATE", "ONLINE", "REPLICAS", "LEADERS", "CONTROLLER"], &rows)
}

/// The node that an answer must hold.
pub fn answered(node: Option<api::Node>) -> Result<NodeView, Error> {
    node.map(NodeView::from).ok_or_else(|| Error::Protocol("no node in the answer".to_owned()))
}

/// How a node stands; none if it does not belong to the cluster.
pub async fn find(client: &Client, node_id: u64) -> Result<Option<api::Node>, CliError> {
    let nodes = client.describe_cluster(api::DescribeClusterRequest {}).await?.nodes;
    Ok(nodes.into_iter().find(|node| node.node_id == node_id))
}
