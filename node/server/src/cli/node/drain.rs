//! `flotilla node drain`.

use std::time::Duration;

use flotilla_client::api;

use super::view::{NodeView, answered};
use crate::cli::exit::CliError;
use crate::cli::global::Global;
use crate::cli::output::{count, note, print};
use crate::cli::wait::{Seen, until};
use crate::units::{parse_duration, parse_number};

/// Arguments of `flotilla node drain`.
#[derive(Debug, clap::Args)]
pub struct DrainArgs {
    /// Id of the node
    #[arg(value_parser = parse_number::<u64>)]
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
    let look = async || seen(args.node, client.describe_cluster(api::DescribeClusterRequest {}).await?.nodes);
    let drained = until(&what, args.timeout, look).await;
    if matches!(drained, Err(CliError::Interrupted)) {
        note(format_args!("node {0} goes on draining; flotilla node undrain {0} takes it back", args.node));
    }
    print(global.output, &drained?, |node, _| format!("node {} is drained: it leads nothing", node.node_id))
}

/// The node that answers may hear of the new state a moment after the controller has it.
fn seen(node_id: u64, mut nodes: Vec<api::Node>) -> Result<Seen<NodeView>, CliError> {
    let Some(at) = nodes.iter().position(|node| node.node_id == node_id) else {
        return Err(CliError::Failed(format!("node {node_id} does not belong to the cluster any more")));
    };
    let node = nodes.swap_remove(at);
    let told = matches!(node.state(), api::NodeState::Draining | api::NodeState::Leaving);
    let takers = nodes.iter().any(|other| other.online && other.state() == api::NodeState::Active);
    Ok(match node.leaders {
        0 if told => Seen::Done(node.into()),
        0 => Seen::NotYet(format!("node {node_id} is not draining yet")),
        leaders => {
            let leaders = count(leaders, "partition");
            let why = if takers { "" } else { ", and no other node is online and active: start or undrain one" };
            Seen::NotYet(format!("node {node_id} still leads {leaders}{why}"))
        }
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
        let drained = |node| matches!(seen(2, vec![node]).unwrap(), Seen::Done(_));
        assert!(drained(node(api::NodeState::Draining, 0)));
        assert!(!drained(node(api::NodeState::Draining, 1)));
        assert!(!drained(node(api::NodeState::Active, 0)), "the answer is older than the command");
        assert!(seen(2, vec![]).unwrap_err().to_string().contains("node 2"));
    }

    #[test]
    fn who_waits_for_a_node_that_nobody_can_relieve_is_told_so() {
        let node = |node_id, state: api::NodeState, online| api::Node {
            node_id,
            state: state.into(),
            online,
            leaders: 3,
            ..api::Node::default()
        };
        let draining = || node(2, api::NodeState::Draining, true);
        let so_far = |other, online| match seen(2, vec![node(1, other, online), draining()]).unwrap() {
            Seen::NotYet(so_far) => so_far,
            Seen::Done(_) => panic!("it leads three"),
        };
        assert_eq!(so_far(api::NodeState::Active, true), "node 2 still leads 3 partitions");
        for (other, online) in [(api::NodeState::Draining, true), (api::NodeState::Active, false)] {
            assert!(so_far(other, online).ends_with("no other node is online and active: start or undrain one"));
        }
    }
}
