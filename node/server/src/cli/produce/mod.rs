//! `flotilla produce`: one record a line, from stdin or a file, to its end.

mod pauses;

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, IsTerminal, Read};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use flotilla_client::{Codec, Producer, ProducerOptions, Record};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::sync::mpsc;

use super::exit::CliError;
use super::global::Global;
use super::output::{Output, print};
use crate::units::{parse_duration, parse_size};
use pauses::Pauses;

/// Bytes read from the input at once.
const CHUNK_BYTES: usize = 1 << 20;
/// Chunks that wait for the producer.
const CHUNKS_MAX: usize = 4;
/// A longer time without an acknowledgement is worth a line.
const PAUSE_SHOWN_MIN: Duration = Duration::from_millis(100);

/// Arguments of `flotilla produce`.
#[derive(Debug, clap::Args)]
pub struct ProduceArgs {
    /// Name of the topic
    topic: String,
    /// Read this file instead of stdin
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// What stands before the first occurrence of this in a line is the record's key; a line without it has no key
    #[arg(long, value_name = "TEXT")]
    key_separator: Option<String>,
    /// A header for every record, name=value; may be repeated
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = parse_header)]
    headers: Vec<(String, String)>,
    /// Write to this partition [default: by key; without keys, one after the other]
    #[arg(long, value_name = "N")]
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
    /// How long to retry before a record is given up
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
            delivery_timeout: self.delivery_timeout,
            buffer_bytes: defaults.buffer_bytes.max(batch_bytes.saturating_mul(8).min(u32::MAX as usize)),
            ..defaults
        }
    }
}

fn parse_header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is not a header: write name=value"))?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Produces every line.
///
/// # Errors
/// If the input cannot be read, or not every record was acknowledged.
pub async fn run(args: ProduceArgs, global: &Global) -> Result<(), CliError> {
    let (input, bytes_total) = open(&args)?;
    let producer = global.client().await?.producer(&args.topic, args.batching.options()).await?;
    let progress = progress_bar(bytes_total);
    let started = Instant::now();
    let sent = Cell::new(0);
    let (mut pauses, mut lines) = (Pauses::new(&producer, &sent), Lines::new(&args, &producer, &sent));
    let read = tokio::select! {
        read = lines.send_all(input, &progress) => read,
        _ = tokio::signal::ctrl_c() => Err(CliError::Interrupted),
        never = pauses.watch() => match never {},
    };
    let (sent, sent_bytes) = (sent.get(), lines.bytes);
    // After the first Ctrl-C, what was read is still written; the second ends that, too.
    let flushed = tokio::select! {
        flushed = producer.flush() => flushed.map_err(CliError::from),
        _ = tokio::signal::ctrl_c() => Err(CliError::Interrupted),
        never = pauses.watch() => match never {},
    };
    progress.finish_and_clear();
    report(global, &producer, sent, sent_bytes, started.elapsed(), pauses.longest())?;
    flushed.and(read)?;
    match producer.stats().acked_records {
        acked if acked == sent => Ok(()),
        acked => Err(CliError::Failed(format!("{} of {sent} records were not acknowledged", sent.saturating_sub(acked)))),
    }
}

fn report(global: &Global, producer: &Producer, sent: u64, bytes: u64, took: Duration, pause: Duration) -> Result<(), CliError> {
    let stats = producer.stats();
    let seconds = took.as_secs_f64().max(1e-9);
    let (records_rate, mb_rate) = (stats.acked_records as f64 / seconds, bytes as f64 / 1e6 / seconds);
    let pending = sent.saturating_sub(stats.acked_records + stats.failed_records + stats.unknown_records);
    eprintln!(
        "{} records acknowledged, {:.1} MB in {seconds:.2} s: {records_rate:.0} records/s, {mb_rate:.1} MB/s",
        stats.acked_records,
        bytes as f64 / 1e6,
    );
    if pause >= PAUSE_SHOWN_MIN {
        eprintln!("longest time without an acknowledgement: {} ms", pause.as_millis());
    }
    let unknown = stats.unknown_records + pending;
    if stats.failed_records + unknown > 0 {
        eprintln!("{} records not written, {unknown} with unknown outcome", stats.failed_records);
    }
    if !matches!(global.output, Output::Json | Output::Yaml) {
        return Ok(());
    }
    let shown = json!({
        "records": sent, "acked_records": stats.acked_records, "failed_records": stats.failed_records,
        "unknown_records": unknown, "bytes": bytes, "sent_bytes": stats.acked_bytes, "batches": stats.acked_batches,
        "retried_batches": stats.retried_batches, "seconds": seconds,
        "records_per_second": records_rate, "mb_per_second": mb_rate, "longest_pause_ms": pause.as_secs_f64() * 1e3,
    });
    print(global.output, &shown, |_, _| String::new())
}

/// The input, and its size where it is known.
fn open(args: &ProduceArgs) -> Result<(Box<dyn Read + Send>, Option<u64>), CliError> {
    let Some(path) = &args.file else {
        return Ok((Box::new(io::stdin()), None));
    };
    let file = File::open(path).map_err(CliError::io(path.display().to_string()))?;
    let bytes = file.metadata().ok().filter(|metadata| metadata.is_file()).map(|metadata| metadata.len());
    Ok((Box::new(file), bytes))
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

/// Cuts the input into records and hands them to the producer.
struct Lines<'a> {
    producer: &'a Producer,
    key_separator: Option<&'a [u8]>,
    headers: Vec<(&'a str, Option<&'a [u8]>)>,
    partition: Option<u32>,
    records: &'a Cell<u64>,
    bytes: u64,
}

impl<'a> Lines<'a> {
    fn new(args: &'a ProduceArgs, producer: &'a Producer, records: &'a Cell<u64>) -> Self {
        let separator = args.key_separator.as_deref().filter(|separator| !separator.is_empty());
        Self {
            producer,
            key_separator: separator.map(str::as_bytes),
            headers: args.headers.iter().map(|(name, value)| (name.as_str(), Some(value.as_bytes()))).collect(),
            partition: args.partition,
            records,
            bytes: 0,
        }
    }

    async fn send_all(&mut self, input: Box<dyn Read + Send>, progress: &ProgressBar) -> Result<(), CliError> {
        let mut chunks = read_in_thread(input);
        let mut line = Vec::new();
        while let Some(chunk) = chunks.recv().await {
            let chunk = chunk.map_err(CliError::io("the input"))?;
            let mut rest = chunk.as_slice();
            // `read_until` on a slice does not fail.
            while rest.read_until(b'\n', &mut line).unwrap_or(0) > 0 {
                if line.last() == Some(&b'\n') {
                    line.pop();
                    self.send(&line).await?;
                    line.clear();
                }
            }
            progress.inc(chunk.len() as u64);
            progress.set_message(format!("{} records", self.records.get()));
        }
        if line.is_empty() { Ok(()) } else { self.send(&line).await }
    }

    async fn send(&mut self, line: &[u8]) -> Result<(), CliError> {
        let (key, value) = match self.key_separator.and_then(|separator| split_once(line, separator)) {
            Some((key, value)) => (Some(key), value),
            None => (None, line),
        };
        let record = Record { partition: self.partition, key, value: Some(value), headers: &self.headers, timestamp_ms: None };
        self.producer.enqueue(record).await?;
        self.records.set(self.records.get() + 1);
        self.bytes += line.len() as u64;
        Ok(())
    }
}

fn split_once<'a>(line: &'a [u8], separator: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = line.windows(separator.len()).position(|window| window == separator)?;
    Some((line.get(..at)?, line.get(at + separator.len()..)?))
}

/// Reads in a thread of its own: a read from a terminal or a pipe cannot be taken back, and must not hold up the end of
/// the process.
fn read_in_thread(mut input: Box<dyn Read + Send>) -> mpsc::Receiver<io::Result<Vec<u8>>> {
    let (chunks, receiver) = mpsc::channel(CHUNKS_MAX);
    std::thread::spawn(move || {
        loop {
            let mut chunk = vec![0; CHUNK_BYTES];
            let read = match input.read(&mut chunk) {
                Ok(0) => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read.map(|bytes| {
                    chunk.truncate(bytes);
                    chunk
                }),
            };
            let failed = read.is_err();
            if chunks.blocking_send(read).is_err() || failed {
                return;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn the_first_separator_ends_the_key() {
        assert_eq!(split_once(b"key: value: more", b": "), Some((&b"key"[..], &b"value: more"[..])));
        assert_eq!(split_once(b"=v", b"="), Some((&b""[..], &b"v"[..])));
        assert_eq!(split_once(b"none", b"="), None);
        assert_eq!(split_once(b"", b"="), None);
    }

    #[test]
    fn headers_have_a_name_and_a_value() {
        assert_eq!(parse_header("a=b=c").unwrap(), ("a".to_owned(), "b=c".to_owned()));
        assert!(parse_header("a").unwrap_err().contains("name=value"));
    }

    #[tokio::test]
    async fn the_input_arrives_whole() {
        let input: Vec<u8> = (0..3 * CHUNK_BYTES + 17).map(|at| (at % 251) as u8).collect();
        let mut chunks = read_in_thread(Box::new(io::Cursor::new(input.clone())));
        let mut read = Vec::new();
        while let Some(chunk) = chunks.recv().await {
            read.extend(chunk.unwrap());
        }
        assert_eq!(read, input);
    }
}
