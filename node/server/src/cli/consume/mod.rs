//! `flotilla consume`: prints records, in a format of the user's choice or as JSON, one a line.

mod format;
mod position;

use std::io::{self, BufWriter, Stdout, Write};

use flotilla_client::{Assignment, Chunk, Consumer, ConsumerOptions, Position};
use futures::FutureExt;

use super::exit::CliError;
use super::global::Global;
use super::output::Output;
use crate::units::parse_number;
use format::Format;
use position::parse_position;

/// Bytes written to stdout at once.
const WRITE_BYTES: usize = 256 << 10;

/// Arguments of `flotilla consume`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "-o json prints one JSON object a line; a key or value that is not UTF-8 is shown as {\"base64\": \"…\"}. \
                        -o wide is as text, and -o yaml does not go with records."
)]
pub struct ConsumeArgs {
    /// Name of the topic
    topic: String,
    /// Only this partition; may be repeated [default: all]
    #[arg(long, value_name = "N", value_parser = parse_number::<u32>)]
    partition: Vec<u32>,
    /// Where to begin: earliest, latest, an offset, timestamp:2026-11-21T08:00:00Z, or a time ago such as -1h30m
    /// [default: latest; with --until-end earliest]
    #[arg(long, value_parser = parse_position, allow_hyphen_values = true, value_name = "POSITION")]
    from: Option<Position>,
    /// Stop at the end that each partition has now
    #[arg(long, conflicts_with = "follow")]
    until_end: bool,
    /// Go on with what comes (the default)
    #[arg(long)]
    follow: bool,
    /// Stop after this many records
    #[arg(long, value_name = "N", value_parser = parse_number::<u64>)]
    count: Option<u64>,
    /// How a record is printed: %t topic, %p partition, %o offset, %k key, %v value, %T timestamp, %h headers, %% percent;
    /// \n, \r, \t, \0 and \\ as in C [default: %v\n]
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,
}

/// Prints records until the end, the count or Ctrl-C.
///
/// # Errors
/// If the cluster refuses or cannot be reached, or stdout cannot be written. A closed pipe is no error, nor is Ctrl-C where there
/// is no end.
pub async fn run(args: ConsumeArgs, global: &Global) -> Result<(), CliError> {
    let from = args.from.unwrap_or(if args.until_end { Position::Earliest } else { Position::Latest });
    let assignment = match args.partition.as_slice() {
        [] => Assignment::all(from),
        some => Assignment::partitions(some.iter().copied(), from),
    };
    let format = match (global.output, args.format) {
        (Output::Text | Output::Wide, Some(format)) => format,
        (Output::Text | Output::Wide, None) => Format::default(),
        (Output::Json, None) => Format::json(),
        (Output::Json, Some(_)) => return Err(CliError::Usage("--format and -o json exclude each other: choose one".to_owned())),
        (Output::Yaml, _) => {
            return Err(CliError::Usage("records are printed as text or JSON: use -o json or --format".to_owned()));
        }
    };
    let ends = args.until_end || args.count.is_some();
    let options = ConsumerOptions { until_end: args.until_end, ..ConsumerOptions::default() };
    let client = global.client().await?;
    let consumer = client.consumer(&args.topic, assignment, options).await?;
    let printer =
        Printer { format, left: args.count.unwrap_or(u64::MAX), out: BufWriter::with_capacity(WRITE_BYTES, io::stdout()) };
    tokio::select! {
        printed = printer.print_all(consumer) => match printed {
            Err(CliError::Io { error, .. }) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            printed => printed,
        },
        _ = tokio::signal::ctrl_c() => match ends {
            // Not all that was asked for.
            true => Err(CliError::Interrupted),
            false => Ok(()),
        },
    }
}

struct Printer {
    format: Format,
    /// Records still to be printed.
    left: u64,
    out: BufWriter<Stdout>,
}

impl Printer {
    async fn print_all(mut self, mut consumer: Consumer) -> Result<(), CliError> {
        while self.left > 0 {
            let next = match consumer.next().now_or_never() {
                Some(next) => next,
                None => {
                    // Whoever follows sees everything before the wait.
                    self.out.flush().map_err(CliError::io("stdout"))?;
                    consumer.next().await
                }
            };
            match next? {
                Some(chunk) => self.print(&chunk)?,
                None => break,
            }
            // Without this, a chunk that is always ready would never let Ctrl-C in.
            tokio::task::consume_budget().await;
        }
        self.out.flush().map_err(CliError::io("stdout"))
    }

    fn print(&mut self, chunk: &Chunk) -> Result<(), CliError> {
        for record in chunk.records() {
            if self.left == 0 {
                return Ok(());
            }
            self.format.write(&mut self.out, chunk, &record?).map_err(CliError::io("stdout"))?;
            self.left -= 1;
        }
        Ok(())
    }
}
