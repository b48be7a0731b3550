//! `flotilla topic delete-records`.

use flotilla_client::api;
use serde_json::json;

use crate::cli::exit::CliError;
use crate::cli::global::Global;
use crate::cli::output::print;
use crate::units::parse_number;

/// Arguments of `flotilla topic delete-records`.
#[derive(Debug, clap::Args)]
pub struct DeleteRecordsArgs {
    /// Name of the topic
    name: String,
    /// The partition
    #[arg(long, value_name = "N", value_parser = parse_number::<u32>)]
    partition: u32,
    /// The first offset to keep
    #[arg(long, value_name = "OFFSET", value_parser = parse_number::<u64>)]
    before_offset: u64,
}

pub async fn run(args: DeleteRecordsArgs, global: &Global) -> Result<(), CliError> {
    let request =
        api::DeleteRecordsRequest { topic: args.name.clone(), partition: args.partition, before_offset: args.before_offset };
    let log_start_offset = global.client().await?.delete_records(request).await?.log_start_offset;
    let shown = json!({ "topic": args.name, "partition": args.partition, "log_start_offset": log_start_offset });
    print(global.output, &shown, |_, _| {
        format!("partition {} of {} starts at offset {log_start_offset}", args.partition, args.name)
    })
}
