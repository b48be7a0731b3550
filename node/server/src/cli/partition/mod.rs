//! `flotilla partition`: one file for each verb, and how partitions are shown.

mod cancel_move;
mod list;
mod move_replicas;
mod recover;
mod transfer_leader;
pub mod view;

use clap::Subcommand;

use super::exit::CliError;
use super::global::Global;

/// Arguments of `flotilla partition`.
#[derive(Debug, clap::Args)]
pub struct PartitionArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List partitions: leader, replicas, who is in sync, moves
    List(list::ListArgs),
    /// Give a partition other replicas, while it is in use
    Move(move_replicas::MoveArgs),
    /// Leave a partition's replicas as they were before its move
    CancelMove(cancel_move::CancelMoveArgs),
    /// Make another replica the leader
    TransferLeader(transfer_leader::TransferLeaderArgs),
    /// Begin a damaged partition without other replicas again from what can be read of it
    Recover(recover::RecoverArgs),
}

/// A partition on the command line.
#[derive(Debug, clap::Args)]
struct Of {
    /// Name of the topic
    topic: String,
    /// Number of the partition
    partition: u32,
}

/// Runs the verb.
///
/// # Errors
/// What the cluster refuses, and when it does not answer.
pub async fn run(args: PartitionArgs, global: &Global) -> Result<(), CliError> {
    match args.verb {
        Verb::List(args) => list::run(args, global).await,
        Verb::Move(args) => move_replicas::run(args, global).await,
        Verb::CancelMove(args) => cancel_move::run(args, global).await,
        Verb::TransferLeader(args) => transfer_leader::run(args, global).await,
        Verb::Recover(args) => recover::run(args, global).await,
    }
}
