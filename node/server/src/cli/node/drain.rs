//! `flotilla node drain`.

use std::time::Duration;

use flotilla_client::{Client, api};

use super::view::{NodeView, answered};
use crate::cli::exit::CliError;
use crate::cli::global::Global;
use crate::cli::output::print;
use crate::cli::wait::{Seen, until};
use crate::units::parse_duration;

/// Arguments of `flotilla node drain`.
#[derive(Debug, clap::Args)]
pub struct DrainArgs {
    /// Id of the node
    node: u64,
    /// Do not wait until the node leads nothing
    #[arg(long)]
    no_wait: bool,
    /// How long to wait
    #[arg(long, default_value = "60s", value_parser = parse_duration, value_name = "DURATION", conflicts_with = "no_wait")]
    timeout: Duration,
}

pub async fn run(args: DrainArgs, global: &Global) -> Result<(), CliError> {
    let client = global.client().await?;
    let answer = client.drain_node(api::DrainNodeRequest { node_id: args.node }).await?;
    if args.no_wait {
        return print(global.output, &answered(answer.node)?, |node, _| format!("node {} is draining", node.node_id));
    }
    let what = format!("node {} leads nothing", args.node);
    let drained = until(&what, args.timeout, async || seen(args.node, find(&client, args.node).await?)).await?;
    print(global.output, &drained, |node, _| format!("node {} is drained: it leads nothing", node.node_id))
}

/// The node that answers may hear of the new state a moment after the controller has it.
/// How a node stands; none if it does not belong to the cluster.
async fn find(client: &Client, node_id: u64) -> Result<Option<api::Node>, CliError> {
    let nodes = client.describe_cluster(api::DescribeClusterRequest {}).await?.nodes;
    Ok(nodes.into_iter().find(|node| node.node_id == node_id))
}

fn seen(node_id: u64, node: Option<api::Node>) -> Result<Seen<NodeView>, CliError> {
    let Some(node) = node else {
        return Err(CliError::Failed(format!("node {node_id} does not belong to the cluster any more")));
    };
    let told = matches!(node.state(), api::NodeState::Draining | api::NodeState::Leaving);
    Ok(match node.leaders {
        0 if told => Seen::Done(node.into()),
        0 => Seen::NotYet(format!("node {node_id} is not draining yet")),
        leaders => Seen::NotYet(format!("node {node_id} still leads {leaders} partitions")),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn a_node_is_drained_when_it_knows_and_leads_nothing() {
        let node =
            |state: api::NodeState, leaders| api::Node { node_id: 2, state: state.into(), leaders, ..api::Node::default() };
        let drained = |node| matches!(seen(2, Some(node)).unwrap(), Seen::Done(_));
        assert!(drained(node(api::NodeState::Draining, 0)));
        assert!(!drained(node(api::NodeState::Draining, 1)));
        assert!(!drained(node(api::NodeState::Active, 0)), "the answer is older than the command");
        assert!(seen(2, None).unwrap_err().to_string().contains("node 2"));
    }
}
