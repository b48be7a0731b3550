//! `flotilla node`: one file for each verb, and how nodes are shown.

mod drain;
mod list;
mod remove;
mod undrain;
pub mod view;

use clap::Subcommand;

use super::exit::CliError;
use super::global::Global;

/// Arguments of `flotilla node`.
#[derive(Debug, clap::Args)]
pub struct NodeArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List all nodes
    List,
    /// Move all leaders off a node, before a restart or maintenance
    Drain(drain::DrainArgs),
    /// Let a node that was drained, or is leaving, lead and take replicas again
    Undrain(undrain::UndrainArgs),
    /// Move everything off a node, then forget it for ever; replaces a dead node, too
    Remove(remove::RemoveArgs),
}

/// Runs the verb.
///
/// # Errors
/// What the cluster refuses, and when it does not answer.
pub async fn run(args: NodeArgs, global: &Global) -> Result<(), CliError> {
    match args.verb {
        Verb::List => list::run(global).await,
        Verb::Drain(args) => drain::run(args, global).await,
        Verb::Undrain(args) => undrain::run(args, global).await,
        Verb::Remove(args) => remove::run(args, global).await,
    }
}
