//! What the end-to-end tests share: a server process, the history of what was sent, and the checkers of what is read.
//!
//! The tests drive the real binary on the real disk with the real client. README.md in this folder lists the environment
//! variables that run them at full size.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

pub mod batch;
pub mod cli;
pub mod cluster;
pub mod compose;
pub mod files;
pub mod history;
pub mod lines;
pub mod mounts;
pub mod ports;
pub mod proxy;
pub mod random;
pub mod read;
pub mod refusal;
pub mod server;
pub mod settings;
pub mod writers;
