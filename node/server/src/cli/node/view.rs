//! Nodes as they are shown.

use flotilla_client::{Error, api};
use serde::Serialize;

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
                api::NodeState::Draining if node.leaders == 0 => "drained",
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

/// Why a node that is to leave cannot: those that stay are too few for its replicas.
pub fn stuck(cluster: &api::DescribeClusterResponse, node: &api::Node) -> Option<String> {
    let leaving = node.state() == api::NodeState::Leaving && node.replicas > 0;
    let active = cluster.nodes.iter().filter(|node| node.state() == api::NodeState::Active).count();
    let needed = cluster.replicas_max as usize;
    (leaving && active < needed).then(|| {
        format!(
            "node {0} cannot leave: some partitions have {needed} replicas, active nodes are only {active}; start another node, take \
             drained ones back, or keep this one with flotilla node undrain {0}",
            node.node_id
        )
    })
}
