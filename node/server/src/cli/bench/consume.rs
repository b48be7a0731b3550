//! `flotilla bench consume`.

use std::time::Instant;

use flotilla_client::{Assignment, Client, Consumer, ConsumerOptions, Position, Record};

use super::cpu::CpuMeter;
use super::payload::Payloads;
use super::produce::WriteArgs;
use super::report::Report;
use super::topic::{BenchTopic, TopicArgs};
use crate::cli::exit::CliError;
use crate::cli::global::Global;
use crate::cli::output::{note, print};
use crate::units::parse_number;

/// Arguments of `flotilla bench consume`.
#[derive(Debug, clap::Args)]
pub struct ConsumeArgs {
    #[command(flatten)]
    write: WriteArgs,
    /// Consumers that share the partitions
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = parse_number::<u32>)]
    consumers: u32,
    #[command(flatten)]
    topic: TopicArgs,
    /// Process id of a server on this machine, to measure its CPU time, too
    #[arg(long, value_name = "PID", value_parser = parse_number::<u32>)]
    server_pid: Option<u32>,
}

pub async fn run(args: ConsumeArgs, global: &Global) -> Result<(), CliError> {
    if args.consumers == 0 {
        return Err(CliError::Usage("--consumers must be at least 1".to_owned()));
    }
    let client = global.client().await?;
    let topic = args.topic.create(&client).await?;
    let report = topic.run(&client, async |topic| measure(&args, global, &client, topic).await).await?;
    print(global.output, &report, Report::text)
}

async fn measure(args: &ConsumeArgs, global: &Global, client: &Client, topic: &BenchTopic) -> Result<Report, CliError> {
    fill(args, client, topic).await?;
    let options = ConsumerOptions { until_end: true, ..ConsumerOptions::default() };
    let consumers = args.consumers.min(topic.partitions);
    let mut assigned = Vec::new();
    for number in 0..consumers {
        let partitions = (0..topic.partitions).filter(|partition| partition % consumers == number);
        let assignment = Assignment::partitions(partitions, Position::Earliest);
        assigned.push(global.client().await?.consumer(&topic.name, assignment, options.clone()).await?);
    }
    let cpu = CpuMeter::start(args.server_pid);
    let started = Instant::now();
    let mut records = 0;
    let mut bytes = 0;
    let reading = assigned.into_iter().map(|consumer| tokio::spawn(read(consumer, args.write.records / u64::from(consumers))));
    for ended in futures::future::join_all(reading).await {
        let (read_records, read_bytes) = ended.map_err(|error| CliError::Failed(error.to_string()))??;
        records += read_records;
        bytes += read_bytes;
    }
    let mean_bytes = usize::try_from(bytes / records.max(1)).unwrap_or(usize::MAX);
    Ok(Report::new("consume", topic, records, mean_bytes, started.elapsed()).with_cpu(&cpu).with("consumers", consumers))
}

/// Produces what the topic lacks.
async fn fill(args: &ConsumeArgs, client: &Client, topic: &BenchTopic) -> Result<(), CliError> {
    let end = flotilla_client::api::Position { at: Some(flotilla_client::api::position::At::Latest(Default::default())) };
    let request = flotilla_client::api::ListOffsetsRequest {
        topic: topic.name.clone(),
        partitions: vec![],
        position: Some(end),
        topic_id: None,
    };
    let listed = client.list_offsets(request).await?.offsets;
    let present: u64 = listed.iter().map(|offset| offset.high_watermark.saturating_sub(offset.log_start_offset)).sum();
    let missing = args.write.records.saturating_sub(present);
    if missing == 0 {
        return Ok(());
    }
    note(format_args!("producing {missing} records first"));
    let size = usize::try_from(args.write.size).unwrap_or(usize::MAX);
    let mut payloads = Payloads::new(size, 1);
    let producer = client.producer(&topic.name, args.write.options()).await?;
    for _ in 0..missing {
        producer.enqueue(Record::new(payloads.next())).await?;
    }
    Ok(producer.close().await?)
}

/// Reads and decodes records, at least `records_max` if there are so many; how many, and their bytes.
async fn read(mut consumer: Consumer, records_max: u64) -> Result<(u64, u64), CliError> {
    let (mut records, mut bytes) = (0, 0);
    while records < records_max
        && let Some(chunk) = consumer.next().await?
    {
        for record in chunk.records() {
            records += 1;
            bytes += record?.value.map_or(0, |value| value.len() as u64);
        }
    }
    Ok((records, bytes))
}
