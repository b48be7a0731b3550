//! `flotilla bench`: how fast a cluster is, and how fast this machine could be at most.

mod consume;
mod cpu;
mod floors;
mod latency;
mod payload;
mod produce;
mod report;
mod topic;

use clap::Subcommand;

use super::exit::CliError;
use super::global::Global;

/// Arguments of `flotilla bench`.
#[derive(Debug, clap::Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// How many records a second are written durably
    Produce(produce::ProduceArgs),
    /// How many records a second are read
    Consume(consume::ConsumeArgs),
    /// How long a durable write takes at a given rate (open loop, from the intended send time)
    Latency(latency::LatencyArgs),
    /// What the disk and gRPC on this machine can do at most
    Floors(floors::FloorsArgs),
}

/// Runs the benchmark.
///
/// # Errors
/// What the cluster refuses, and when it does not answer.
pub async fn run(args: BenchArgs, global: &Global) -> Result<(), CliError> {
    match args.verb {
        Verb::Produce(args) => produce::run(args, global).await,
        Verb::Consume(args) => consume::run(args, global).await,
        Verb::Latency(args) => latency::run(args, global).await,
        Verb::Floors(args) => floors::run(args, global).await,
    }
}
