//! `flotilla produce`: one record a line, from stdin or a file, to its end.

mod lines;
mod pauses;
mod report;

use std::cell::Cell;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use flotilla_client::{Codec, Error, Producer, ProducerOptions};
use indicatif::{ProgressBar, ProgressStyle};

use super::exit::CliError;
use super::global::Global;
use super::output::{Output, count, note, print};
use super::signals::StopRequests;
use crate::units::{format_duration, parse_duration, parse_number, parse_size};
use lines::{Input, Lines};
use pauses::Pauses;
use report::Report;

/// Arguments of `flotilla produce`.
#[derive(Debug, clap::Args)]
pub struct ProduceArgs {
    /// Name of the topic
    topic: String,
    /// Read this file instead of stdin
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// What stands before the first occurrence of this in a line is the record's key; a line without it has no key
    #[arg(long, value_name = "TEXT", value_parser = parse_separator)]
    key_separator: Option<String>,
    /// A header for every record, name=value; may be repeated
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = parse_header)]
    headers: Vec<(String, String)>,
    /// Write to this partition [default: by key; without keys, one after the other]
    #[arg(long, value_name = "N", value_parser = parse_number::<u32>)]
    partition: Option<u32>,
    #[command(flatten)]
    batching: BatchingArgs,
}

/// How records are batched and retried.
#[derive(Debug, clap::Args)]
pub struct BatchingArgs {
    /// Compression: none, gzip, snappy, lz4 or zstd
    #[arg(long, default_value = "none", value_name = "CODEC")]
    compression: Codec,
    /// Bytes at which a batch is sent
    #[arg(long, default_value = "256KiB", value_parser = parse_size, value_name = "SIZE")]
    batch_bytes: u64,
    /// How long an unfilled batch waits
    #[arg(long, default_value = "5ms", value_parser = parse_duration, value_name = "DURATION")]
    linger: Duration,
    /// Do not number batches: retries may then store records twice
    #[arg(long)]
    no_idempotence: bool,
    /// How long to retry before a record is given up; nothing behind it is written then
    #[arg(long, default_value = "2m", value_parser = parse_duration, value_name = "DURATION")]
    delivery_timeout: Duration,
}

impl BatchingArgs {
    fn options(&self) -> ProducerOptions {
        let defaults = ProducerOptions::default();
        let batch_bytes = usize::try_from(self.batch_bytes).unwrap_or(usize::MAX);
        ProducerOptions {
            linger: self.linger,
            batch_bytes,
            codec: self.compression,
            idempotence: !self.no_idempotence,
            stop_at_loss: true,
            delivery_timeout: self.delivery_timeout,
            buffer_bytes: defaults.buffer_bytes.max(batch_bytes.saturating_mul(8).min(u32::MAX as usize)),
            ..defaults
        }
    }
}

fn parse_separator(text: &str) -> Result<String, String> {
    if text.is_empty() {
        Err("an empty text separates nothing: leave the flag away for records without keys".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

fn parse_header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| "not a header: write name=value".to_owned())?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Produces every line, up to the first that is lost.
///
/// # Errors
/// If the input cannot be read, or not every record was acknowledged.
pub async fn run(args: ProduceArgs, global: &Global) -> Result<(), CliError> {
    let input = Input::open(args.file.as_deref())?;
    let progress = progress_bar(input.bytes);
    let shown = progress.clone();
    let client = global.client_telling(move |line| shown.suspend(|| note(line))).await?;
    let producer = client.producer(&args.topic, args.batching.options()).await?;
    let partitions = client.topic(&args.topic).await?.partition_count;
    if let Some(partition) = args.partition.filter(|partition| *partition >= partitions) {
        return Err(Error::UnknownPartition { topic: args.topic, partition, last: partitions.saturating_sub(1) }.into());
    }
    let mut requests = StopRequests::all().map_err(CliError::io("cannot watch for signals"))?;
    let started = Instant::now();
    let sent = Cell::new(0);
    let (mut pauses, mut lines) = (Pauses::new(&producer, &sent), Lines::new(&args, &producer, &sent));
    let read = tokio::select! {
        read = lines.send_all(input, &progress) => read,
        // Why, the flush says.
        () = producer.stopped() => Ok(()),
        () = requests.next() => Err(CliError::Interrupted),
        never = pauses.watch() => match never {},
    };
    let (taken, refused) = (sent.get(), u64::from(lines.refused));
    let patience = Patience { taken, delivery_timeout: args.batching.delivery_timeout };
    let interrupted = matches!(read, Err(CliError::Interrupted));
    let flushed = tokio::select! {
        flushed = patience.flush(&producer, &mut requests, &progress, interrupted) => flushed,
        never = pauses.watch() => match never {},
    };
    progress.finish_and_clear();
    let in_order = !args.batching.no_idempotence && (partitions == 1 || args.partition.is_some());
    let (took, pause) = (started.elapsed(), pauses.longest());
    let report = Report { lines: taken + refused, refused, stats: producer.stats(), in_order, took, pause };
    let ended = flushed.and(read);
    note(report.text(ended.is_ok()).trim_end());
    if matches!(global.output, Output::Json | Output::Yaml) {
        print(global.output, &report.json(), |_, _| String::new())?;
    }
    match report.lost() {
        0 => ended,
        lost => ended.and(Err(CliError::Failed(format!("{} not acknowledged", count(lost, "record"))))),
    }
}

/// How long the last acknowledgements are waited for.
struct Patience {
    taken: u64,
    delivery_timeout: Duration,
}

impl Patience {
    /// Waits for what was handed over. The first Ctrl-C says so, also if it came before; the second ends the wait.
    async fn flush(
        &self,
        producer: &Producer,
        requests: &mut StopRequests,
        progress: &ProgressBar,
        mut interrupted: bool,
    ) -> Result<(), CliError> {
        if interrupted {
            self.say(producer, progress);
        }
        let mut flushed = std::pin::pin!(producer.flush());
        loop {
            tokio::select! {
                flushed = &mut flushed => return flushed.map_err(CliError::Lost),
                () = requests.next() => {
                    if std::mem::replace(&mut interrupted, true) {
                        return Err(CliError::Interrupted);
                    }
                    self.say(producer, progress);
                }
            }
        }
    }

    fn say(&self, producer: &Producer, progress: &ProgressBar) {
        let stats = producer.stats();
        let resolved = stats.acked_records + stats.failed_records + stats.unknown_records;
        let waiting = self.taken.saturating_sub(resolved);
        if waiting > 0 {
            let (waiting, at_most) = (count(waiting, "record"), format_duration(self.delivery_timeout));
            progress.suspend(|| {
                note(format_args!("waiting for {waiting} to be acknowledged, {at_most} at most; Ctrl-C again gives up"))
            });
        }
    }
}

fn progress_bar(bytes_total: Option<u64>) -> ProgressBar {
    if !io::stderr().is_terminal() || io::stdin().is_terminal() && bytes_total.is_none() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match bytes_total {
        Some(total) => (ProgressBar::new(total), "{bar:30} {percent}% {bytes} of {total_bytes} {bytes_per_sec} {msg}"),
        None => (ProgressBar::new_spinner(), "{spinner} {bytes} {bytes_per_sec} {msg}"),
    };
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn headers_have_a_name_and_a_value() {
        assert_eq!(parse_header("a=b=c").unwrap(), ("a".to_owned(), "b=c".to_owned()));
        assert!(parse_header("a").unwrap_err().contains("name=value"));
    }
}
