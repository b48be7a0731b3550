//! `flotilla topic delete`.

use flotilla_client::api;
use serde_json::json;

use crate::cli::exit::CliError;
use crate::cli::global::Global;
use crate::cli::output::print;

/// Arguments of `flotilla topic delete`.
#[derive(Debug, clap::Args)]
pub struct DeleteArgs {
    /// Name of the topic
    name: String,
    /// Succeed if there is no such topic
    #[arg(long)]
    if_exists: bool,
}

pub async fn run(args: DeleteArgs, global: &Global) -> Result<(), CliError> {
    let request = api::DeleteTopicRequest { name: args.name.clone(), if_exists: args.if_exists };
    let deleted = global.client().await?.delete_topic(request).await?.deleted;
    print(global.output, &json!({ "name": args.name, "deleted": deleted }), |_, _| {
        if deleted { format!("topic {} deleted", args.name) } else { format!("there is no topic {}", args.name) }
    })
}
