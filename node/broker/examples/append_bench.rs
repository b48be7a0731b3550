//! Durable appends through the broker alone: no gRPC, no client. Shows what Raft, journal, segments and state cost.
//!
//! `cargo run --release --workspace --example append_bench -- DIR [batch bytes] [batches] [partitions] [in flight]`
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use flotilla_broker::{
    Broker, BrokerOptions, Codec, CreateTopic, Home, JournalOptions, Payload, Produce, ProduceLimits, SegmentOptions,
    Surroundings,
};
use flotilla_records::BatchBuilder;
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

fn argument(position: usize, default: u64) -> u64 {
    std::env::args().nth(position).map_or(default, |text| text.parse().expect("a number"))
}

#[tokio::main]
async fn main() {
    let dir = PathBuf::from(std::env::args().nth(1).expect("a directory for the data"));
    let (batch_bytes, batches) = (argument(2, 262_144), argument(3, 4_000));
    let (partitions, in_flight) = (argument(4, 6), argument(5, 5));
    let options = BrokerOptions {
        node_id: 1,
        data_dir: dir,
        advertised_address: "127.0.0.1:7070".into(),
        peer_address: "127.0.0.1:7070".into(),
        seeds: Vec::new(),
        rack: String::new(),
        journal: JournalOptions::default(),
        segments: SegmentOptions::default(),
        proposal_bytes_max: 64 << 20,
        tail_bytes_max: 128 << 20,
        produce: ProduceLimits { decompressed_bytes_max: 16 << 20, records_per_batch_max: 1_000_000 },
        retention_interval: Duration::from_secs(60),
    };
    let member = match Home::find(&options, &Surroundings::real()).expect("the data directory") {
        Home::Member(member) => member,
        Home::Newcomer(newcomer) => newcomer.join(&CancellationToken::new()).await.expect("a cluster of its own"),
    };
    let broker = Broker::open(options, member, Surroundings::real()).await.expect("the broker opens");
    broker.wait_ready().await.expect("the broker serves");
    let topic =
        CreateTopic { name: "bench".into(), partitions: Some(partitions as u32), if_not_exists: true, ..CreateTopic::default() };
    broker.create_topic(topic).await.expect("the topic");
    let mut builder = BatchBuilder::new();
    let value = vec![b'x'; 1024.min(batch_bytes as usize)];
    while builder.uncompressed_bytes() < batch_bytes as usize {
        builder.add(1, None, Some(&value), []).expect("a record");
    }
    let batch = builder.finish(Codec::None, None).expect("a batch");
    let started = Instant::now();
    let sends = (0..batches).map(|number| {
        let (broker, batch) = (broker.clone(), batch.clone());
        async move {
            let at = Instant::now();
            let partition = Some((number % partitions) as u32);
            let request = Produce { topic: "bench".into(), partition, payload: Payload::Batch(batch) };
            let prepared = broker.prepare(request).expect("a valid batch");
            for part in &prepared.parts {
                broker.submit(part).await.expect("submitted").appended().await.expect("acked");
            }
            at.elapsed()
        }
    });
    let mut times: Vec<Duration> =
        futures::stream::iter(sends).buffer_unordered((partitions * in_flight) as usize).collect().await;
    let seconds = started.elapsed().as_secs_f64();
    times.sort_unstable();
    let bytes = batches as f64 * batch.len() as f64;
    let figures = broker.stats().journal;
    println!(
        "{:.0} batches/s, {:.0} MB/s, p50 {:?}, p99 {:?}; journal: {} syncs, {:.0} KiB and {:.2} ms each, {:.0} % busy",
        batches as f64 / seconds,
        bytes / seconds / 1e6,
        times.get(times.len() / 2).unwrap(),
        times.get(times.len() * 99 / 100).unwrap(),
        figures.batches(),
        figures.bytes() as f64 / figures.batches() as f64 / 1024.0,
        figures.busy().as_secs_f64() * 1e3 / figures.batches() as f64,
        figures.busy().as_secs_f64() / seconds * 100.0,
    );
    broker.close().await;
}
