//! `flotilla bench produce`.

use std::time::{Duration, Instant};

use flotilla_client::{Client, Codec, Delivery, Producer, ProducerOptions, Record, api};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::cpu::CpuMeter;
use super::payload::Payloads;
use super::report::{Latencies, Report};
use super::topic::{BenchTopic, TopicArgs};
use crate::cli::exit::CliError;
use crate::cli::global::Global;
use crate::cli::output::print;
use crate::units::{parse_duration, parse_number, parse_size};

/// Latency samples of each producer that may wait for their acknowledgement.
const SAMPLES_WAITING_MAX: usize = 1024;
/// Batches of a producer that are being filled or on their way.
const BATCHES_BUFFERED: usize = 16;
/// What a record takes in memory besides its value, at most.
const RECORD_OVERHEAD_BYTES: usize = 160;
/// About how many latencies are measured in all.
const SAMPLES: u64 = 100_000;

/// What is written, and how it is batched.
#[derive(Debug, Clone, clap::Args)]
pub struct WriteArgs {
    /// Records to write
    #[arg(long, default_value_t = 1_000_000, value_name = "N", value_parser = parse_number::<u64>)]
    pub records: u64,
    /// Bytes of a record's value
    #[arg(long, default_value = "100", value_parser = parse_size, value_name = "SIZE")]
    pub size: u64,
    /// Bytes at which a batch is sent
    #[arg(long, default_value = "256KiB", value_parser = parse_size, value_name = "SIZE")]
    pub batch_bytes: u64,
    /// Producers writing at once
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = parse_number::<u64>)]
    pub producers: u64,
    /// Compression: none, gzip, snappy, lz4 or zstd
    #[arg(long, default_value = "none", value_name = "CODEC")]
    pub compression: Codec,
}

/// Arguments of `flotilla bench produce`.
#[derive(Debug, clap::Args)]
pub struct ProduceArgs {
    #[command(flatten)]
    write: WriteArgs,
    /// How records travel
    #[arg(long, value_enum, default_value_t, value_name = "MODE")]
    mode: Mode,
    /// Batches per partition on their way at once, for each producer [default: 5; with --mode stream 64]
    #[arg(long, value_name = "N", value_parser = parse_number::<usize>)]
    in_flight: Option<usize>,
    /// How long an unfilled batch waits
    #[arg(long, default_value = "5ms", value_parser = parse_duration, value_name = "DURATION")]
    linger: Duration,
    /// Connections that the producers share [default: as many as producers, at most 4]
    #[arg(long, value_name = "N", value_parser = parse_number::<u64>)]
    connections: Option<u64>,
    #[command(flatten)]
    topic: TopicArgs,
    /// Process id of a server on this machine, to measure its CPU time, too
    #[arg(long, value_name = "PID", value_parser = parse_number::<u32>)]
    server_pid: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
enum Mode {
    /// Many records in a batch, batches over a stream
    #[default]
    Batched,
    /// One record in a unary call, one call of a producer at a time
    Unary,
    /// One record in a message of a stream, many on their way
    Stream,
}

pub async fn run(args: ProduceArgs, global: &Global) -> Result<(), CliError> {
    if args.write.producers == 0 {
        return Err(CliError::Usage("--producers must be at least 1".to_owned()));
    }
    let client = global.client().await?;
    let topic = args.topic.create(&client).await?;
    let report = topic.run(&client, async |topic| measure(&args, global, topic).await).await?;
    print(global.output, &report, Report::text)
}

async fn measure(args: &ProduceArgs, global: &Global, topic: &BenchTopic) -> Result<Report, CliError> {
    let WriteArgs { records, size, producers, .. } = args.write;
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let mut clients = Vec::new();
    for _ in 0..args.connections.unwrap_or(producers.min(4)).max(1) {
        clients.push(global.client().await?);
    }
    let options = args.options();
    let mut work = JoinSet::new();
    let cpu = CpuMeter::start(args.server_pid);
    let started = Instant::now();
    for (number, client) in (0..producers).zip(clients.iter().cycle()) {
        let share = records / producers + u64::from(number < records % producers);
        let task = Task { client: client.clone(), topic: topic.name.clone(), partitions: topic.partitions, number, share, size };
        match args.mode {
            Mode::Unary => work.spawn(task.unary()),
            Mode::Batched | Mode::Stream => work.spawn(task.produce(options.clone(), (records / SAMPLES).max(1))),
        };
    }
    let mut latencies = Latencies::new()?;
    while let Some(ended) = work.join_next().await {
        let measured = ended.map_err(|error| CliError::Failed(format!("a producer ended: {error}")))?;
        latencies.add(&measured?);
    }
    let mode = match args.mode {
        Mode::Batched => "batched",
        Mode::Unary => "unary",
        Mode::Stream => "stream",
    };
    Ok(Report::new("produce", topic, records, size, started.elapsed())
        .with_cpu(&cpu)
        .with_latency(&latencies)
        .with("mode", mode)
        .with("producers", producers)
        .with("batch_bytes", args.write.batch_bytes)
        .with("compression", args.write.compression.name()))
}

impl ProduceArgs {
    fn options(&self) -> ProducerOptions {
        let stream = self.mode == Mode::Stream;
        let in_flight_max = self.in_flight.unwrap_or(if stream { 64 } else { 5 });
        // A partition remembers five batches of a producer.
        let options = ProducerOptions { idempotence: in_flight_max <= 5, in_flight_max, ..self.write.options() };
        if !stream {
            return ProducerOptions { linger: self.linger, ..options };
        }
        // Memory for as many records as are to be on their way, so that latency does not measure the client's queue.
        let batch_bytes = usize::try_from(self.write.size).unwrap_or(usize::MAX).saturating_add(RECORD_OVERHEAD_BYTES);
        let buffer_bytes = batch_bytes.saturating_mul(in_flight_max).min(u32::MAX as usize);
        ProducerOptions { batch_records_max: 1, linger: Duration::ZERO, batch_bytes, buffer_bytes, ..options }
    }
}

impl WriteArgs {
    pub fn options(&self) -> ProducerOptions {
        let batch_bytes = usize::try_from(self.batch_bytes).unwrap_or(usize::MAX);
        // Enough to keep several batches on their way; what waits beyond that would only be measured as latency.
        let buffer_bytes = batch_bytes.saturating_mul(BATCHES_BUFFERED).min(u32::MAX as usize);
        ProducerOptions { batch_bytes, codec: self.compression, buffer_bytes, ..ProducerOptions::default() }
    }
}

/// One producer's part.
struct Task {
    client: Client,
    topic: String,
    partitions: u32,
    number: u64,
    /// Records to write.
    share: u64,
    size: usize,
}

impl Task {
    async fn produce(self, options: ProducerOptions, every: u64) -> Result<Latencies, CliError> {
        let producer = self.client.producer(&self.topic, options).await?;
        let (samples, receiver) = mpsc::channel(SAMPLES_WAITING_MAX);
        let collector = tokio::spawn(collect(receiver));
        let written = self.write(&producer, every, samples).await;
        let closed = producer.close().await;
        written?;
        closed?;
        collector.await.map_err(|error| CliError::Failed(error.to_string()))?
    }

    async fn write(&self, producer: &Producer, every: u64, samples: mpsc::Sender<(Instant, Delivery)>) -> Result<(), CliError> {
        let mut payloads = Payloads::new(self.size, self.number + 1);
        for number in 0..self.share {
            let record = Record::new(payloads.next());
            if number % every == 0 {
                let sent = Instant::now();
                let delivery = producer.send(record).await?;
                samples.send((sent, delivery)).await.map_err(|_| CliError::Failed("a record failed".to_owned()))?;
            } else {
                producer.enqueue(record).await?;
            }
            if number % 256 == 0 {
                // So that the sending task gets its turn on a busy machine.
                tokio::task::consume_budget().await;
            }
        }
        Ok(())
    }

    async fn unary(self) -> Result<Latencies, CliError> {
        let mut payloads = Payloads::new(self.size, self.number + 1);
        let mut latencies = Latencies::new()?;
        for number in 0..self.share {
            let record = api::Record { value: Some(payloads.next().to_vec().into()), ..Default::default() };
            let request = api::ProduceRequest {
                topic: self.topic.clone(),
                partition: u32::try_from((self.number + number) % u64::from(self.partitions.max(1))).ok(),
                payload: Some(api::produce_request::Payload::Records(api::Records { records: vec![record] })),
                ..Default::default()
            };
            let sent = Instant::now();
            let answer = self.client.produce(request).await?;
            latencies.record(sent.elapsed());
            if let Some(error) = answer.results.into_iter().find_map(|result| result.error) {
                return Err(flotilla_client::Error::from(error).into());
            }
        }
        Ok(latencies)
    }
}

/// How long after `since` a record was acknowledged.
async fn acknowledged(since: Instant, delivery: Delivery) -> Result<Duration, flotilla_client::Error> {
    delivery.await?;
    Ok(since.elapsed())
}

/// Measures deliveries as they complete.
pub async fn collect(mut samples: mpsc::Receiver<(Instant, Delivery)>) -> Result<Latencies, CliError> {
    let mut latencies = Latencies::new()?;
    let mut waiting = FuturesUnordered::new();
    let mut open = true;
    while open || !waiting.is_empty() {
        tokio::select! {
            Some(latency) = waiting.next(), if !waiting.is_empty() => latencies.record(latency?),
            sample = samples.recv(), if open => match sample {
                Some((since, delivery)) => waiting.push(acknowledged(since, delivery)),
                None => open = false,
            },
        }
    }
    Ok(latencies)
}
