//! The command line: nouns and verbs, one file each. Data goes to stdout, everything else to stderr.

mod completions;
mod config;
mod server;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "flotilla", version, about = "A message broker: replicated logs with durable acknowledgements")]
#[command(propagate_version = true)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node
    Server(server::ServerArgs),
    /// Look at the server's configuration
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Print a completion script for a shell
    Completions(completions::CompletionsArgs),
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let line = Line::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(async {
        match line.command {
            Command::Server(args) => {
                let (config, _) = args.load().map_err(|e| e.to_string())?;
                server::run(&config).await.map_err(|e| e.to_string())
            }
            Command::Config(_) => Ok(()),
            Command::Completions(args) => completions::run::<Line>(&args).map_err(|e| e.to_string()),
        }
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}
