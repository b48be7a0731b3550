//! `flotilla bench floors`: what the disk and gRPC on this machine can do without a broker between, so that a broker's
//! figures can be compared with the limits of the same machine in the same minute.

mod disk;
mod grpc;

use std::path::PathBuf;

use serde::Serialize;

use crate::cli::exit::CliError;
use crate::cli::global::Global;
use crate::cli::output::{print, table};
use crate::units::{format_size, parse_number};

/// Arguments of `flotilla bench floors`.
#[derive(Debug, clap::Args)]
pub struct FloorsArgs {
    /// Directory on the disk to measure; a file in it is written and removed
    #[arg(long, value_name = "DIR", required_unless_present = "serve_echo")]
    dir: Option<PathBuf>,
    /// Writes of each size
    #[arg(long, default_value_t = 200, value_name = "N", value_parser = parse_number::<u32>)]
    writes: u32,
    /// Seconds for each gRPC measurement
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = parse_number::<u64>)]
    seconds: u64,
    /// Be the other end of the gRPC measurement
    #[arg(long, hide = true)]
    serve_echo: bool,
}

#[derive(Debug, Serialize)]
struct Floors {
    disk: Vec<disk::DiskFloor>,
    grpc: Vec<grpc::GrpcFloor>,
}

pub async fn run(args: FloorsArgs, global: &Global) -> Result<(), CliError> {
    if args.serve_echo {
        return grpc::serve().await;
    }
    let (dir, writes) = (args.dir.unwrap_or_default(), args.writes.max(1));
    let disk = tokio::task::spawn_blocking(move || disk::measure(&dir, writes));
    let disk = disk.await.map_err(|error| CliError::Failed(error.to_string()))??;
    let grpc = grpc::measure(std::time::Duration::from_secs(args.seconds.max(1))).await?;
    print(global.output, &Floors { disk, grpc }, text)
}

fn text(floors: &Floors, _wide: bool) -> String {
    let disk = floors.disk.iter().map(|floor| {
        vec![
            floor.what.to_owned(),
            format_size(floor.bytes as u64),
            format!("{:.2}", floor.median_ms),
            format!("{:.2}", floor.p99_ms),
            format!("{:.1}", floor.mb_per_second),
        ]
    });
    let disk = table(&["DISK", "SIZE", "MEDIAN MS", "P99 MS", "MB/S"], &disk.collect::<Vec<_>>());
    let grpc = floors.grpc.iter().map(|floor| {
        vec![
            floor.what.to_owned(),
            format_size(floor.message_bytes as u64),
            floor.concurrency.to_string(),
            format!("{:.0}", floor.messages_per_second),
            format!("{:.1}", floor.mb_per_second),
        ]
    });
    let grpc = table(&["GRPC", "MESSAGE", "AT ONCE", "MESSAGES/S", "MB/S"], &grpc.collect::<Vec<_>>());
    format!("{disk}\n{grpc}")
}
