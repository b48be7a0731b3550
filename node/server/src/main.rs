//! The `flotilla` binary: server, command line client and tools in one.

mod cli;
mod config;
mod grpc;
mod net;
mod server;
mod telemetry;
mod units;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::main()
}
