//! `flotilla partition transfer-leader`.

use flotilla_client::api;
use serde_json::json;

use super::Of;
use crate::cli::exit::CliError;
use crate::cli::global::Global;
use crate::cli::output::print;
use crate::units::parse_number;

/// Arguments of `flotilla partition transfer-leader`.
#[derive(Debug, clap::Args)]
pub struct TransferLeaderArgs {
    #[command(flatten)]
    of: Of,
    /// Id of the node that shall lead [default: the partition's first replica]
    #[arg(long, value_name = "NODE", value_parser = parse_number::<u64>)]
    to: Option<u64>,
}

pub async fn run(args: TransferLeaderArgs, global: &Global) -> Result<(), CliError> {
    let Of { topic, partition } = args.of;
    let request = api::TransferLeaderRequest { topic: topic.clone(), partition, node_id: args.to };
    let leader = global.client().await?.transfer_leader(request).await?.leader;
    let shown = json!({ "topic": topic, "partition": partition, "leader": leader });
    print(global.output, &shown, |_, _| format!("node {leader} leads partition {partition} of topic {topic}"))
}
