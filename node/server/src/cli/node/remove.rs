//! `flotilla node remove`.

use std::time::Duration;

use flotilla_client::{Client, api};
use serde_json::json;

use super::view::stuck;
use crate::cli::exit::CliError;
use crate::cli::global::Global;
use crate::cli::output::{note, print};
use crate::cli::wait::{Seen, until};
use crate::units::{parse_duration, parse_number};

/// Arguments of `flotilla node remove`.
#[derive(Debug, clap::Args)]
pub struct RemoveArgs {
    /// Id of the node
    #[arg(value_parser = parse_number::<u64>)]
    node: u64,
    /// Do not wait until the node is gone
    #[arg(long)]
    no_wait: bool,
    /// How long to wait: all that the node holds is copied to others first
    #[arg(long, default_value = "30m", value_parser = parse_duration, value_name = "DURATION", conflicts_with = "no_wait")]
    timeout: Duration,
}

pub async fn run(args: RemoveArgs, global: &Global) -> Result<(), CliError> {
    let (client, node_id) = (global.client().await?, args.node);
    client.remove_node(api::RemoveNodeRequest { node_id }).await?;
    if !args.no_wait {
        let what = format!("node {node_id} is gone");
        let gone = until(&what, args.timeout, async || look(&client, node_id).await).await;
        if matches!(gone, Err(CliError::Interrupted)) {
            note(format_args!("node {node_id} goes on leaving; flotilla node undrain {node_id} takes it back"));
        }
        gone?;
    }
    let removed = !args.no_wait;
    print(global.output, &json!({ "node_id": node_id, "removed": removed }), |_, _| match removed {
        true => format!("node {node_id} is removed: its id is never used again"),
        false => format!("node {node_id} is leaving"),
    })
}

async fn look(client: &Client, node_id: u64) -> Result<Seen<()>, CliError> {
    let cluster = client.describe_cluster(api::DescribeClusterRequest {}).await?;
    let Some(node) = cluster.nodes.iter().find(|node| node.node_id == node_id) else { return Ok(Seen::Done(())) };
    let holds = || format!("node {node_id} still holds {} replicas", node.replicas);
    Ok(Seen::NotYet(stuck(&cluster, node).unwrap_or_else(holds)))
}
