//! `flotilla bench latency`: records at a fixed rate, whatever the answers do; each latency counts from the moment at
//! which its record should have been sent, so that a stall is not hidden by the records that it held up.

use std::time::{Duration, Instant};

use flotilla_client::{Delivery, Producer, ProducerOptions, Record};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::cpu::CpuMeter;
use super::payload::Payloads;
use super::produce::collect;
use super::report::Report;
use super::topic::{BenchTopic, TopicArgs};
use crate::cli::exit::CliError;
use crate::cli::global::Global;
use crate::cli::output::print;
use crate::units::{parse_number, parse_size};

/// Deliveries that may wait to be measured.
const WAITING_MAX: usize = 1 << 16;

/// Arguments of `flotilla bench latency`.
#[derive(Debug, clap::Args)]
pub struct LatencyArgs {
    /// Records a second
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = parse_number::<u64>)]
    rate: u64,
    /// Bytes of a record's value
    #[arg(long, default_value = "1024", value_parser = parse_size, value_name = "SIZE")]
    size: u64,
    /// How long to measure
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = parse_number::<u64>)]
    seconds: u64,
    #[command(flatten)]
    topic: TopicArgs,
    /// Process id of a server on this machine, to measure its CPU time, too
    #[arg(long, value_name = "PID", value_parser = parse_number::<u32>)]
    server_pid: Option<u32>,
}

pub async fn run(args: LatencyArgs, global: &Global) -> Result<(), CliError> {
    if args.rate == 0 || args.seconds == 0 {
        return Err(CliError::Usage("--rate and --seconds must be at least 1".to_owned()));
    }
    let client = global.client().await?;
    let topic = args.topic.create(&client).await?;
    let report = topic.run(&client, async |topic| measure(&args, global, topic).await).await?;
    print(global.output, &report, Report::text)
}

async fn measure(args: &LatencyArgs, global: &Global, topic: &BenchTopic) -> Result<Report, CliError> {
    let options = ProducerOptions { linger: Duration::ZERO, ..ProducerOptions::default() };
    let producer = global.client().await?.producer(&topic.name, options).await?;
    // The first record opens the stream and fetches a producer id: not what is measured.
    producer.send(Record::new("warm up")).await?.await?;
    let (rate, size) = (args.rate, usize::try_from(args.size).unwrap_or(usize::MAX));
    let records = rate.saturating_mul(args.seconds);
    let (samples, receiver) = mpsc::channel(WAITING_MAX);
    let collector = tokio::spawn(collect(receiver));
    let cpu = CpuMeter::start(args.server_pid);
    let started = Instant::now();
    let (ended, finished) = tokio::sync::oneshot::channel();
    let runtime = Handle::current();
    // A thread sleeps to 0.1 ms; the runtime's timers only to 1 ms.
    std::thread::spawn(move || {
        let sent = send_all(&runtime, &producer, started, records, rate, size, &samples);
        // If nobody waits any more, the benchmark was interrupted.
        let _ = ended.send(sent.map(|()| producer));
    });
    let producer = finished.await.map_err(|_| CliError::Failed("the sending thread ended".to_owned()))??;
    producer.close().await?;
    let latencies = collector.await.map_err(|error| CliError::Failed(error.to_string()))??;
    Ok(Report::new("latency", topic, records, size, started.elapsed()).with_cpu(&cpu).with_latency(&latencies).with("rate", rate))
}

fn send_all(
    runtime: &Handle,
    producer: &Producer,
    started: Instant,
    records: u64,
    rate: u64,
    size: usize,
    samples: &mpsc::Sender<(Instant, Delivery)>,
) -> Result<(), CliError> {
    let mut payloads = Payloads::new(size, 1);
    for number in 0..records {
        let intended = started + Duration::from_nanos(number.saturating_mul(1_000_000_000) / rate);
        std::thread::sleep(intended.saturating_duration_since(Instant::now()));
        let delivery = runtime.block_on(producer.send(Record::new(payloads.next())))?;
        samples.blocking_send((intended, delivery)).map_err(|_| CliError::Failed("a record failed".to_owned()))?;
    }
    Ok(())
}
