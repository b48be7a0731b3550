//! `flotilla partition cancel-move`.

use flotilla_client::api;

use super::Of;
use super::view::{answered, node_list};
use crate::cli::exit::CliError;
use crate::cli::global::Global;
use crate::cli::output::print;

/// Arguments of `flotilla partition cancel-move`.
#[derive(Debug, clap::Args)]
pub struct CancelMoveArgs {
    #[command(flatten)]
    of: Of,
}

pub async fn run(args: CancelMoveArgs, global: &Global) -> Result<(), CliError> {
    let Of { topic, partition } = args.of;
    let request = api::CancelMoveRequest { topic: topic.clone(), partition };
    let stays = answered(global.client().await?.cancel_move(request).await?.partition)?;
    print(global.output, &stays, |stays, _| {
        format!("partition {partition} of topic {topic} stays on nodes {}", node_list(&stays.partition.replicas))
    })
}
