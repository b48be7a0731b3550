//! The command line. Reports go to stdout, everything else to stderr. Exit codes: 0 every promise held, 1 one was broken,
//! 2 usage, 3 the run is void, 4 it did not come about.

mod run;
mod sim;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

const USAGE: u8 = 2;
const NOT_RUN: u8 = 4;

#[derive(Debug, Parser)]
#[command(name = "flotilla-chaos", version, about = "Provokes faults in a Flotilla cluster and checks that every promise held")]
struct Line {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a cluster of real processes, write, read, do harm, check
    Run(run::RunArgs),
    /// Simulate a cluster in one process: the same seed makes the same run
    Sim(sim::SimArgs),
}

/// Why a command did not come to a verdict.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Run(#[from] flotilla_chaos::run::RunError),
    #[error("the simulation itself failed: {0}")]
    Simulation(String),
    #[error("{0}")]
    Io(String),
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let ended = match Line::parse().command {
        Command::Run(args) => {
            let runtime = tokio::runtime::Runtime::new();
            let runtime = runtime.map_err(|error| CliError::Io(format!("cannot start threads: {error}")));
            runtime.and_then(|runtime| runtime.block_on(run::run(args)))
        }
        Command::Sim(args) => sim::run(args),
    };
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(if matches!(error, CliError::Usage(_)) { USAGE } else { NOT_RUN })
        }
    }
}
