//! `flotilla node undrain`.

use flotilla_client::api;

use super::view::answered;
use crate::cli::exit::CliError;
use crate::cli::global::Global;
use crate::cli::output::print;
use crate::units::parse_number;

/// Arguments of `flotilla node undrain`.
#[derive(Debug, clap::Args)]
pub struct UndrainArgs {
    /// Id of the node
    #[arg(value_parser = parse_number::<u64>)]
    node: u64,
}

pub async fn run(args: UndrainArgs, global: &Global) -> Result<(), CliError> {
    let answer = global.client().await?.undrain_node(api::UndrainNodeRequest { node_id: args.node }).await?;
    print(global.output, &answered(answer.node)?, |node, _| format!("node {} is {}", node.node_id, node.state))
}
