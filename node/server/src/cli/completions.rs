//! `flotilla completions`: prints a script that completes Flotilla's commands in a shell.

use std::io::{self, Write};

use clap::CommandFactory;
use clap_complete::Shell;

use super::exit::CliError;

/// Arguments of `flotilla completions`.
#[derive(Debug, clap::Args)]
pub struct CompletionsArgs {
    /// The shell to write for
    shell: Shell,
}

/// Prints the script.
///
/// # Errors
/// When stdout cannot be written; a closed pipe is no error.
pub fn run<Line: CommandFactory>(args: &CompletionsArgs) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Line::command(), "flotilla", &mut script);
    match io::stdout().write_all(&script) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(CliError::io("stdout")),
    }
}
