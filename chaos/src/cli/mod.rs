//! The command line. Reports go to stdout, everything else to stderr. Exit codes: 0 every promise held, 1 one was broken,
//! 2 usage, 3 the run is void, 4 it did not come about.

mod check;
mod place;
#[cfg(feature = "planted")]
mod planted;
mod run;
mod sim;
mod sweep;

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use flotilla_chaos::report::Verdict;
use flotilla_chaos::trap;

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
    /// Make one error, or a kill, at each system call of a node, one after the other
    Sweep(sweep::SweepArgs),
    /// Become a program whose file system calls wait for whoever watches them: for this program itself
    #[command(hide = true)]
    Trapped {
        /// The program and its arguments
        #[arg(last = true, required = true, value_name = "PROGRAM")]
        line: Vec<OsString>,
    },
    /// Judge a recorded history
    Check(check::CheckArgs),
    /// Show a recorded history on one page
    Report(check::ReportArgs),
    /// Plant bugs, and show that each is found
    #[cfg(feature = "planted")]
    Planted(planted::PlantedArgs),
}

/// Why a command did not come to a verdict.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Run(#[from] flotilla_chaos::run::RunError),
    #[error(transparent)]
    Sweep(#[from] flotilla_chaos::sweep::SweepError),
    #[error("the simulation itself failed: {0}")]
    Simulation(String),
    #[error("{0}")]
    Io(String),
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let ended = match Line::parse().command {
        Command::Run(args) => on_threads(run::run(args)),
        Command::Sweep(args) => on_threads(sweep::run(args)),
        Command::Sim(args) => sim::run(&args),
        Command::Check(args) => check::check(&args),
        Command::Report(args) => check::report(&args),
        #[cfg(feature = "planted")]
        Command::Planted(args) => planted::run(&args),
        Command::Trapped { line } => {
            let refused = trap::launcher::become_program(&line);
            Err(CliError::Io(format!("{} cannot be started under watch: {refused}", line.join(OsStr::new(" ")).display())))
        }
    };
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(if matches!(error, CliError::Usage(_)) { USAGE } else { NOT_RUN })
        }
    }
}

fn on_threads(command: impl Future<Output = Result<u8, CliError>>) -> Result<u8, CliError> {
    let runtime = tokio::runtime::Runtime::new();
    let runtime = runtime.map_err(|error| CliError::Io(format!("cannot start threads: {error}")));
    runtime.and_then(|runtime| runtime.block_on(command))
}

/// The node's binary that lies beside this program.
fn beside() -> Result<PathBuf, CliError> {
    let own = std::env::current_exe().map_err(|error| CliError::Io(format!("this program's path: {error}")))?;
    let path = own.with_file_name("flotilla");
    if path.is_file() {
        Ok(path)
    } else {
        Err(CliError::Usage(format!("{} is missing: say where the binary is with --flotilla PATH", path.display())))
    }
}

/// Reads a number of seconds or milliseconds: `10s`, `500ms`, `0.5s`.
fn seconds(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 0.001),
        None => (text.strip_suffix('s').unwrap_or(text), 1.0),
    };
    let value = number.parse::<f64>().map(|number| number * unit).ok();
    let duration = value.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).filter(|duration| !duration.is_zero());
    duration.ok_or_else(|| format!("{text:?} is not a duration: write such as 10s or 500ms"))
}

fn code(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Pass => 0,
        Verdict::Fail => 1,
        Verdict::Void => 3,
    }
}

/// To stdout; whoever closed it wants no more.
fn print(text: &str) -> Result<(), CliError> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CliError::Io(format!("stdout: {error}"))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        assert_eq!(seconds("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(seconds("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(seconds("1.5"), Ok(Duration::from_millis(1_500)));
        for wrong in ["", "s", "0s", "-1s", "1h", "1e300s"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
