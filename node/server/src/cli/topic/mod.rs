//! `flotilla topic`: one file for each verb, and how topics are shown.

mod alter;
mod create;
mod delete;
mod delete_records;
mod describe;
mod list;
mod view;

use clap::Subcommand;

use super::exit::CliError;
use super::global::Global;

/// Arguments of `flotilla topic`.
#[derive(Debug, clap::Args)]
pub struct TopicArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Create a topic
    Create(create::CreateArgs),
    /// List all topics
    List,
    /// Show a topic and its partitions
    Describe(describe::DescribeArgs),
    /// Change a topic's configuration, or add partitions
    Alter(alter::AlterArgs),
    /// Delete a topic and its records
    Delete(delete::DeleteArgs),
    /// Delete a partition's records before an offset
    DeleteRecords(delete_records::DeleteRecordsArgs),
}

/// Runs the verb.
///
/// # Errors
/// What the cluster refuses, and when it does not answer.
pub async fn run(args: TopicArgs, global: &Global) -> Result<(), CliError> {
    match args.verb {
        Verb::Create(args) => create::run(args, global).await,
        Verb::List => list::run(global).await,
        Verb::Describe(args) => describe::run(args, global).await,
        Verb::Alter(args) => alter::run(args, global).await,
        Verb::Delete(args) => delete::run(args, global).await,
        Verb::DeleteRecords(args) => delete_records::run(args, global).await,
    }
}
