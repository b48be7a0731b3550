//! The command line: nouns and verbs, one file each. Data goes to stdout, everything else to stderr.

mod completions;
mod config;
mod server;

use std::io;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::runtime::Runtime;

use crate::config::ConfigError;
use crate::server::ServerError;

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

/// Why a command failed, and the code that the process ends with.
struct Failed {
    message: String,
    code: u8,
}

impl Failed {
    const FAILURE: u8 = 1;
    const USAGE: u8 = 2;
}

impl From<ServerError> for Failed {
    fn from(error: ServerError) -> Self {
        Self { message: error.to_string(), code: Self::FAILURE }
    }
}

impl From<ConfigError> for Failed {
    fn from(error: ConfigError) -> Self {
        Self { message: error.to_string(), code: Self::USAGE }
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self { message: error.to_string(), code: Self::FAILURE }
    }
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let line = Line::parse();
    let ended = Runtime::new().map_err(Failed::from).and_then(|runtime| runtime.block_on(run(line)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed { message, code }) => {
            eprintln!("error: {message}");
            ExitCode::from(code)
        }
    }
}

async fn run(line: Line) -> Result<(), Failed> {
    match line.command {
        Command::Server(args) => {
            let (config, _) = args.load()?;
            server::run(&config).await?;
        }
        Command::Config(config::ConfigCommand::Print(args)) => config::print(&args)?,
        Command::Completions(args) => completions::run::<Line>(&args)?,
    }
    Ok(())
}
