//! The command line: nouns and verbs, one file each. Data goes to stdout, everything else to stderr.

mod bench;
mod cluster;
mod completions;
mod config;
mod consume;
mod dev;
mod exit;
mod global;
mod group;
mod health;
mod node;
mod outage;
mod output;
mod partition;
mod produce;
mod reopen;
mod server;
mod signals;
mod topic;
mod wait;

use std::process::ExitCode;

use clap::{Command as Clap, CommandFactory, FromArgMatches, Parser, Subcommand};
use tokio::runtime::Runtime;

use crate::config::ConfigError;
use crate::server::ServerError;
use exit::CliError;
use global::Global;

#[derive(Debug, Parser)]
#[command(name = "flotilla", version, about = "A message broker: replicated logs with durable acknowledgements")]
#[command(propagate_version = true)]
struct Line {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    global: Global,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node
    Server(server::ServerArgs),
    /// Create, list, describe, alter and delete topics
    Topic(topic::TopicArgs),
    /// Write records, one a line
    Produce(produce::ProduceArgs),
    /// Read records
    Consume(consume::ConsumeArgs),
    /// Commit offsets of consumer groups, and show them
    Group(group::GroupArgs),
    /// Show the cluster, and whether all is well
    Cluster(cluster::ClusterArgs),
    /// List, drain and remove nodes
    Node(node::NodeArgs),
    /// See where partitions are, and move them
    Partition(partition::PartitionArgs),
    /// Say whether the node on this machine takes requests: exit code 0 if it does
    Health(health::HealthArgs),
    /// Run a throw-away cluster on this machine
    Dev(dev::DevArgs),
    /// Measure
    Bench(bench::BenchArgs),
    /// Look at the server's configuration
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Print a completion script for a shell
    Completions(completions::CompletionsArgs),
}

impl From<ServerError> for CliError {
    fn from(error: ServerError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        Self::Usage(error.to_string())
    }
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let mut command = take_negative_numbers(Line::command());
    let parsed = command.try_get_matches_from_mut(std::env::args_os()).and_then(|matches| Line::from_arg_matches(&matches));
    let line = parsed.unwrap_or_else(|error| error.format(&mut command).exit());
    let runtime = Runtime::new().map_err(CliError::io("cannot start threads"));
    match runtime.and_then(|runtime| runtime.block_on(run(line))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::note(format_args!("error: {error}"));
            ExitCode::from(error.exit_code())
        }
    }
}

/// `--partitions -1` is a wrong number, and shall be called that, rather than an unknown flag.
fn take_negative_numbers(command: Clap) -> Clap {
    let takes = |arg: clap::Arg| if arg.get_action().takes_values() { arg.allow_negative_numbers(true) } else { arg };
    command.mut_args(takes).mut_subcommands(take_negative_numbers)
}

async fn run(Line { command, global }: Line) -> Result<(), CliError> {
    // A server says it in its log; completions are read by a shell that starts.
    if !matches!(command, Command::Server(_) | Command::Completions(_)) {
        server::ServerArgs::misspelt().for_each(output::note);
    }
    match command {
        Command::Server(args) => {
            args.tie_to_starter().map_err(CliError::io("cannot end with the process that started this one"))?;
            let (config, _) = args.load()?;
            Ok(server::run(&args, &config).await?)
        }
        Command::Topic(args) => topic::run(args, &global).await,
        Command::Produce(args) => produce::run(args, &global).await,
        Command::Consume(args) => consume::run(args, &global).await,
        Command::Group(args) => group::run(args, &global).await,
        Command::Cluster(args) => cluster::run(args, &global).await,
        Command::Node(args) => node::run(args, &global).await,
        Command::Partition(args) => partition::run(args, &global).await,
        Command::Health(args) => health::run(&args, global.output).await,
        Command::Dev(args) => dev::run(args, &global).await,
        Command::Bench(args) => bench::run(args, &global).await,
        Command::Config(config::ConfigCommand::Print(args)) => config::print(&args, global.output),
        Command::Completions(args) => completions::run::<Line>(&args),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::take_negative_numbers(super::Line::command()).debug_assert();
    }
}
