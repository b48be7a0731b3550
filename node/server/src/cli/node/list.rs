//! `flotilla node list`.

use flotilla_client::api;

use super::view::{NodeView, node_table};
use crate::cli::exit::CliError;
use crate::cli::global::Global;
use crate::cli::output::print;

pub async fn run(global: &Global) -> Result<(), CliError> {
    let nodes = global.client().await?.describe_cluster(api::DescribeClusterRequest {}).await?.nodes;
    let nodes: Vec<NodeView> = nodes.into_iter().map(NodeView::from).collect();
    print(global.output, &nodes, |nodes, _| node_table(nodes))
}
