//! Scripts of commands and what the machines must answer: outcome, decision and rows.
//!
//! A script is made of blocks: a command line, `----`, the answer, an empty line. `FLOTILLA_REWRITE=1` writes the
//! answers anew; read the difference before you commit it, above all the bytes under `rows`: they are on disks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "../common/mod.rs"]
mod common;
mod controller;
mod partition;
mod script;

#[test]
fn partition_scripts() {
    script::run_all("partition_", partition::Session::default);
}

#[test]
fn controller_scripts() {
    script::run_all("controller_", controller::Session::default);
}
