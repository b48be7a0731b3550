//! The log over its real storage: openraft's suite, restarts, failures. `node.rs` is what they (and the tests of
//! snapshots) run on: one node over a simulated disk, whose power can be cut.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod errors;
mod failures;
mod groups;
mod losses;
pub(crate) mod node;
mod outages;
mod removals;
mod restarts;
mod suite;
mod tail;
