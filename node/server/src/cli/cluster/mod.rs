//! `flotilla cluster`: what the cluster consists of, and whether all is well.

mod health;
mod status;
mod verify;

use clap::Subcommand;

use super::exit::CliError;
use super::global::Global;

/// Arguments of `flotilla cluster`.
#[derive(Debug, clap::Args)]
pub struct ClusterArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show the controller's leader, the nodes, and how the partitions stand
    Status,
    /// Say what is wrong; the exit code is 0 if nothing is, 1 if something is, 5 if no node answers
    Health,
    /// Compare what the replicas have applied; the exit code is 0 if all are equal, 1 if one is not or cannot be compared
    Verify,
}

/// Runs the verb.
///
/// # Errors
/// If the cluster does not answer, or is not healthy where that is the question.
pub async fn run(args: ClusterArgs, global: &Global) -> Result<(), CliError> {
    match args.verb {
        Verb::Status => status::run(global).await,
        Verb::Health => health::run(global).await,
        Verb::Verify => verify::run(global).await,
    }
}
