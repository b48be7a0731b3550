//! Environment variables that choose the size of a run.

use std::path::PathBuf;
use std::str::FromStr;

/// The number in environment variable `name`, or `default` where it is not set.
///
/// # Panics
/// If the variable holds something else than a number: a run of another size than asked for would be taken for it.
#[must_use]
pub fn number(name: &str, default: u64) -> u64 {
    parsed(name).unwrap_or(default)
}

/// The folder whose `*.log` files are used instead of generated lines (`FLOTILLA_LOG_FILES`).
#[must_use]
pub fn log_files() -> Option<PathBuf> {
    parsed("FLOTILLA_LOG_FILES")
}

/// The seed of random decisions (`FLOTILLA_SEED`), where one is given.
#[must_use]
pub fn seed() -> Option<u64> {
    parsed("FLOTILLA_SEED")
}

fn parsed<T: FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    match text.parse() {
        Ok(value) => Some(value),
        Err(_) => panic!("{name}={text} is not understood"),
    }
}
