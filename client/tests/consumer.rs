//! The consumer against a server that breaks its streams: no gap, no repetition, positions and stops exact.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::time::Duration;

use flotilla_client::{Assignment, Codec, Consumer, ConsumerOptions, Error, Position, ProducerOptions, Record};
use flotilla_records::HEADER_BYTES;
use futures::FutureExt;
use support::{Fake, TOPIC};

const PER_PARTITION: u64 = 1000;

/// A server with numbered records in each of its partitions, in batches of about ten.
async fn filled(partitions: u32, codec: Codec) -> Fake {
    let fake = Fake::start(partitions as usize).await;
    fill(&fake, partitions, codec).await;
    fake
}

async fn fill(fake: &Fake, partitions: u32, codec: Codec) {
    let options = ProducerOptions { batch_records_max: 10, codec, linger: Duration::from_secs(60), ..ProducerOptions::default() };
    let producer = fake.client().await.producer(TOPIC, options).await.unwrap();
    for number in 0..PER_PARTITION {
        for partition in 0..partitions {
            producer.enqueue(Record::new(&number.to_string()).partition(partition)).await.unwrap();
        }
    }
    producer.close().await.unwrap();
}

fn until_end() -> ConsumerOptions {
    ConsumerOptions { until_end: true, ..ConsumerOptions::default() }
}

async fn drain(consumer: &mut Consumer, partitions: u32) -> Vec<Vec<u64>> {
    let mut offsets = vec![Vec::new(); partitions as usize];
    while let Some(chunk) = consumer.next().await.unwrap() {
        take(&chunk, &mut offsets);
    }
    offsets
}

fn take(chunk: &flotilla_client::Chunk, offsets: &mut [Vec<u64>]) {
    for record in chunk.records() {
        let record = record.unwrap();
        assert_eq!(record.value.unwrap(), (record.offset % PER_PARTITION).to_string().as_bytes());
        offsets[chunk.partition() as usize].push(record.offset);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_comes_once_and_in_order_with_every_codec() {
    for codec in Codec::ALL {
        let fake = filled(3, codec).await;
        let mut consumer = fake.client().await.consumer(TOPIC, Assignment::all(Position::Earliest), until_end()).await.unwrap();
        let all: Vec<u64> = (0..PER_PARTITION).collect();
        assert_eq!(drain(&mut consumer, 3).await, vec![all; 3]);
        assert_eq!(consumer.lag(), 0);
        assert!(consumer.next().await.unwrap().is_none());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_streams_leave_no_gap_and_repeat_nothing() {
    for every in [3, 4, 7, 20] {
        let fake = filled(2, Codec::None).await;
        fake.state.lock().unwrap().break_consume_at = Some(Box::new(move |message| message % every == 0));
        let mut consumer = fake.client().await.consumer(TOPIC, Assignment::all(Position::Earliest), until_end()).await.unwrap();
        let all: Vec<u64> = (0..PER_PARTITION).collect();
        assert_eq!(drain(&mut consumer, 2).await, vec![all; 2], "broken at every message {every}");
        assert!(fake.state.lock().unwrap().consume_streams > 5, "the stream did not break");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_inside_a_batch_is_exact() {
    let fake = filled(2, Codec::Zstd).await;
    let assignment = Assignment::partitions([1], Position::Offset(123)).with(0, Position::Offset(PER_PARTITION));
    let mut consumer = fake.client().await.consumer(TOPIC, assignment, until_end()).await.unwrap();
    assert_eq!(drain(&mut consumer, 2).await, vec![vec![], (123..PER_PARTITION).collect::<Vec<u64>>()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_is_where_it_was_when_the_consumer_was_created() {
    let fake = filled(1, Codec::None).await;
    // A batch that reaches beyond the end must be cut, so the end lies inside one.
    fake.state.lock().unwrap().logs[0].end = 995;
    let mut consumer = fake.client().await.consumer(TOPIC, Assignment::all(Position::Earliest), until_end()).await.unwrap();
    fake.state.lock().unwrap().logs[0].end = PER_PARTITION;
    assert_eq!(drain(&mut consumer, 1).await, vec![(0..995).collect::<Vec<u64>>()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn latest_stays_where_it_was_when_the_stream_breaks() {
    let fake = filled(1, Codec::None).await;
    let client = fake.client().await;
    let mut consumer = client.consumer(TOPIC, Assignment::all(Position::Latest), ConsumerOptions::default()).await.unwrap();
    // The first message of the first stream is a break; the records come before the second opens.
    fake.state.lock().unwrap().break_consume_at = Some(Box::new(|message| message == 1));
    fill(&fake, 1, Codec::None).await;
    let mut offsets = vec![Vec::new()];
    while offsets[0].len() < PER_PARTITION as usize {
        take(&consumer.next().await.unwrap().unwrap(), &mut offsets);
    }
    assert_eq!(offsets[0], (PER_PARTITION..2 * PER_PARTITION).collect::<Vec<u64>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_credits_suffice_and_bound_what_is_sent_ahead() {
    let fake = filled(1, Codec::None).await;
    let options = ConsumerOptions { prefetch_records: 20, prefetch_bytes: 4096, ..until_end() };
    let mut consumer = fake.client().await.consumer(TOPIC, Assignment::all(Position::Earliest), options).await.unwrap();
    let first = consumer.next().await.unwrap().unwrap();
    let pushed = fake.state.lock().unwrap().pushed_messages;
    assert!(pushed <= 5, "{pushed} messages were pushed on 20 records of credit");
    let mut offsets = vec![Vec::new()];
    take(&first, &mut offsets);
    while let Some(chunk) = consumer.next().await.unwrap() {
        take(&chunk, &mut offsets);
    }
    assert_eq!(offsets[0], (0..PER_PARTITION).collect::<Vec<u64>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_batches_are_not_handed_out() {
    let fake = filled(1, Codec::None).await;
    {
        let mut state = fake.state.lock().unwrap();
        let (_, bytes) = &mut state.logs[0].batches[5];
        let mut damaged = bytes.to_vec();
        damaged[HEADER_BYTES + 3] ^= 1;
        *bytes = damaged.into();
    }
    let mut consumer = fake.client().await.consumer(TOPIC, Assignment::all(Position::Earliest), until_end()).await.unwrap();
    let mut records = 0;
    let error = loop {
        match consumer.next().await {
            Ok(Some(chunk)) => records += chunk.records().count(),
            Ok(None) => panic!("the damage was not seen"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Batch(_)), "{error}");
    assert_eq!(records, 50);
    assert_eq!(consumer.positions().collect::<Vec<_>>(), [(0, 50)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_moves_earliest_but_not_an_offset() {
    let fake = filled(1, Codec::None).await;
    let client = fake.client().await;
    let mut earliest = client.consumer(TOPIC, Assignment::all(Position::Earliest), until_end()).await.unwrap();
    let mut offset = client.consumer(TOPIC, Assignment::all(Position::Offset(0)), until_end()).await.unwrap();
    fake.state.lock().unwrap().logs[0].start = 500;
    assert_eq!(drain(&mut earliest, 1).await, vec![(500..PER_PARTITION).collect::<Vec<u64>>()]);
    assert_eq!(offset.next().await.unwrap_err().reason(), "OFFSET_OUT_OF_RANGE");
    for wrong in [Position::Offset(499), Position::Offset(1001)] {
        let error = client.consumer(TOPIC, Assignment::all(wrong), until_end()).await.unwrap_err();
        assert!(error.to_string().contains("500 to 1000"), "{error}");
    }
    let error = client.consumer(TOPIC, Assignment::partitions([1], Position::Latest), until_end()).await.unwrap_err();
    assert!(error.to_string().contains("no partition 1"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_stops_waiting_loses_nothing() {
    let fake = Fake::start(1).await;
    let client = fake.client().await;
    let mut consumer = client.consumer(TOPIC, Assignment::all(Position::Earliest), ConsumerOptions::default()).await.unwrap();
    for _ in 0..50 {
        assert!(consumer.next().now_or_never().is_none(), "there is nothing yet");
        tokio::task::yield_now().await;
    }
    fill(&fake, 1, Codec::None).await;
    let mut offsets = vec![Vec::new()];
    while offsets[0].len() < PER_PARTITION as usize {
        match consumer.next().now_or_never() {
            Some(chunk) => take(&chunk.unwrap().unwrap(), &mut offsets),
            None => tokio::task::yield_now().await,
        }
    }
    assert_eq!(offsets[0], (0..PER_PARTITION).collect::<Vec<u64>>());
}
