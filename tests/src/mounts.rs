//! File systems of a test's own, and what a test says that cannot have one.

use std::io::Write;

/// The harness has the same file: these tests need nothing else of it, and do not wait until it is built.
#[path = "../../chaos/src/mounts.rs"]
mod shared;

pub use shared::Mount;

/// Says, past the capture of test output, that a test did not run.
pub fn skip(test: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
}
