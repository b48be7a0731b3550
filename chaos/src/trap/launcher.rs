//! Starts a program whose calls are watched: `flotilla-chaos trapped -- PROGRAM ARGUMENTS`.
//!
//! It installs the filter, makes one watched call, which stands still until [`Trap::attach`](super::Trap::attach) answers
//! (so nothing is missed), and becomes the program. The filter outlives every `exec` of it.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::calls::CALLS;
use super::kernel;

/// Becomes the program. Returns only why it could not.
#[must_use]
pub fn become_program(line: &[OsString]) -> io::Error {
    let Some((program, args)) = line.split_first() else { return io::ErrorKind::InvalidInput.into() };
    let installed = install();
    let _listener = match installed {
        Ok(listener) => listener,
        Err(error) => return error,
    };
    if let Err(error) = std::fs::metadata("/") {
        return error;
    }
    Command::new(program).args(args).exec()
}

fn install() -> io::Result<std::os::fd::OwnedFd> {
    // Without it only root may install a filter.
    rustix::thread::set_no_new_privs(true)?;
    let numbers: Vec<i64> = CALLS.iter().map(|call| call.number).collect();
    kernel::install(&numbers)
}
