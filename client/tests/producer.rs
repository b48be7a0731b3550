//! The producer against a server that fails on purpose: nothing lost, nothing twice, order kept, outcomes told apart.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use flotilla_client::{Client, ClientOptions, Codec, Delivered, Error, Producer, ProducerOptions, Record};
use futures::FutureExt;
use support::proxy::Proxy;
use support::{Fake, Fault, TOPIC, numbers};

/// Small batches, so that many are on their way.
fn small() -> ProducerOptions {
    ProducerOptions { batch_bytes: 300, linger: Duration::ZERO, ..ProducerOptions::default() }
}

fn value(number: usize) -> String {
    format!("record {number:06}")
}

/// Sends numbered records, keyed by their last digit, and waits for all.
async fn send_numbered(producer: &Producer, count: usize) -> Vec<Delivered> {
    let mut deliveries = Vec::new();
    for number in 0..count {
        let key = (number % 10).to_string();
        deliveries.push(producer.send(Record::new(&value(number)).key(&key)).await.unwrap());
    }
    futures::future::try_join_all(deliveries).await.unwrap()
}

/// Every record once, where its delivery says, and ordered within each partition.
fn assert_exactly_once(fake: &Fake, delivered: &[Delivered], partitions: usize) {
    let mut stored = 0;
    for partition in 0..partitions {
        let values = fake.values(partition);
        stored += values.len();
        assert!(values.is_sorted_by(|one, next| one < next), "partition {partition} is out of order or has duplicates");
    }
    assert_eq!(stored, delivered.len());
    for (number, place) in delivered.iter().enumerate() {
        let (stored, offset) = &fake.values(place.partition as usize)[place.offset as usize];
        assert_eq!((stored.as_slice(), *offset), (value(number).as_bytes(), place.offset));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_codec_delivers_what_was_sent() {
    for codec in Codec::ALL {
        let fake = Fake::start(3).await;
        let options = ProducerOptions { codec, ..ProducerOptions::default() };
        let producer = fake.client().await.producer(TOPIC, options).await.unwrap();
        let delivered = send_numbered(&producer, 500).await;
        assert_exactly_once(&fake, &delivered, 3);
        assert_eq!(producer.stats().acked_records, 500);
        producer.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_fails_on_the_way_each_record_is_stored_once_and_in_order() {
    for seed in 0..20 {
        let fake = Fake::start(4).await;
        let mut random = numbers(seed + 1);
        fake.script(move |_| match random() % 20 {
            0 => Some(Fault::BreakAfterAppend),
            1 => Some(Fault::BreakBefore),
            2 => Some(Fault::Refuse("NOT_LEADER")),
            3 => Some(Fault::Refuse("OUTCOME_UNKNOWN")),
            _ => None,
        });
        let producer = fake.client().await.producer(TOPIC, small()).await.unwrap();
        let delivered = send_numbered(&producer, 1000).await;
        assert_exactly_once(&fake, &delivered, 4);
        assert!(producer.stats().retried_batches > 0, "no fault has happened");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_connections_lose_and_repeat_nothing() {
    let fake = Fake::start(2).await;
    let proxy = Proxy::start(fake.address.clone()).await;
    let client = Client::connect([proxy.address.clone()], ClientOptions::default()).await.unwrap();
    let producer = client.producer(TOPIC, small()).await.unwrap();
    let mut deliveries = Vec::new();
    let mut cut = 0;
    for number in 0..2000 {
        if number % 100 == 50 {
            // Something is on its way now; the connection behind it dies.
            cut += proxy.cut();
        }
        deliveries.push(producer.send(Record::new(&value(number)).key(&(number % 10).to_string())).await.unwrap());
        if number % 100 == 99 {
            producer.flush().await.unwrap();
        }
    }
    let delivered = futures::future::try_join_all(deliveries).await.unwrap();
    assert!(cut >= 10, "only {cut} connections were cut");
    assert_exactly_once(&fake, &delivered, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forgotten_producer_goes_on_under_a_new_id() {
    let fake = Fake::start(1).await;
    fake.script(|attempt| (attempt % 10 == 9).then_some(Fault::ForgetProducers));
    let producer = fake.client().await.producer(TOPIC, small()).await.unwrap();
    let delivered = send_numbered(&producer, 500).await;
    assert_exactly_once(&fake, &delivered, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forgotten_producer_does_not_repeat_what_may_be_stored() {
    let fake = Fake::start(1).await;
    // The second batch is stored unseen; when it comes again, nobody remembers.
    fake.script(|attempt| match attempt {
        1 => Some(Fault::BreakAfterAppend),
        2 => Some(Fault::ForgetProducers),
        _ => None,
    });
    let producer = fake.client().await.producer(TOPIC, small()).await.unwrap();
    producer.send(Record::new("first")).await.unwrap().await.unwrap();
    let error = producer.send(Record::new("second")).await.unwrap().await.unwrap_err();
    assert!(error.outcome_unknown(), "{error}");
    assert_eq!(producer.stats().unknown_records, 1);
    producer.send(Record::new("third")).await.unwrap().await.unwrap();
    assert_eq!(fake.all_values(), [b"first".to_vec(), b"second".to_vec(), b"third".to_vec()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_batch_fails_alone() {
    let fake = Fake::start(1).await;
    fake.script(|attempt| (attempt == 3).then_some(Fault::Reject("BATCH_TOO_LARGE")));
    let producer = fake.client().await.producer(TOPIC, small()).await.unwrap();
    let mut deliveries = Vec::new();
    for number in 0..400 {
        deliveries.push(producer.send(Record::new(&value(number))).await.unwrap());
    }
    let outcomes = futures::future::join_all(deliveries).await;
    let stored: HashSet<Vec<u8>> = fake.all_values().into_iter().collect();
    assert_eq!(stored.len(), fake.all_values().len(), "a record is stored twice");
    for (number, outcome) in outcomes.iter().enumerate() {
        assert_eq!(outcome.is_ok(), stored.contains(value(number).as_bytes()), "{number}: {outcome:?}");
        if let Err(error) = outcome {
            assert_eq!((error.reason(), error.outcome_unknown()), ("BATCH_TOO_LARGE", false));
        }
    }
    let failed = outcomes.iter().filter(|outcome| outcome.is_err()).count();
    assert!(failed > 0 && failed < 100, "{failed} records failed");
}

/// Produces until the producer stops because of `fault`, which ends then: what is stored has no hole, and every record is
/// accounted for.
async fn assert_stops_without_a_hole(fault: Fault, idempotence: bool) {
    let fake = Fake::start(1).await;
    let over = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&over);
    fake.script(move |attempt| (attempt >= 3 && !stopped.load(Ordering::Relaxed)).then_some(fault));
    let delivery_timeout = Duration::from_millis(300);
    // Without idempotence the order holds with one batch at a time.
    let in_flight_max = if idempotence { 5 } else { 1 };
    let options = ProducerOptions { stop_at_loss: true, delivery_timeout, idempotence, in_flight_max, ..small() };
    let producer = fake.client().await.producer(TOPIC, options).await.unwrap();
    let mut taken = 0;
    let error = loop {
        match producer.enqueue(Record::new(&value(taken))).await {
            Ok(()) => taken += 1,
            Err(error) => break error,
        }
        tokio::task::yield_now().await;
    };
    assert!(matches!(error, Error::Stopped { .. }), "{error}");
    over.store(true, Ordering::Relaxed);
    producer.stopped().await;
    let first = producer.flush().await.unwrap_err();
    assert!(!matches!(first, Error::Stopped { .. }), "the cause comes first: {first}");
    let stats = producer.stats();
    assert_eq!(stats.acked_records + stats.failed_records + stats.unknown_records, taken as u64);
    let stored = fake.all_values();
    assert!(stored.len() as u64 >= stats.acked_records && stats.acked_records > 0, "{stats:?}");
    let expected: Vec<_> = (0..stored.len()).map(|number| value(number).into_bytes()).collect();
    assert_eq!(stored, expected, "there is a hole");
    assert_eq!(stats.acked_payload_bytes, stats.acked_records * value(0).len() as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_that_stops_at_a_loss_leaves_no_hole() {
    for idempotence in [true, false] {
        for fault in [Fault::Reject("BATCH_TOO_LARGE"), Fault::BreakBefore, Fault::Refuse("NOT_LEADER")] {
            assert_stops_without_a_hole(fault, idempotence).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_is_seen_and_ends() {
    let fake = Fake::start(1).await;
    let over = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&over);
    fake.script(move |_| (!ended.load(Ordering::Relaxed)).then_some(Fault::BreakBefore));
    let client = fake.client().await;
    let mut outage = client.outage();
    assert!(outage.borrow().is_none());
    let producer = client.producer(TOPIC, small()).await.unwrap();
    producer.enqueue(Record::new("x")).await.unwrap();
    let seen = outage.wait_for(Option::is_some).await.unwrap().clone().unwrap();
    assert!(matches!(seen.error, Error::ConnectionLost { .. }), "{}", seen.error);
    over.store(true, Ordering::Relaxed);
    producer.flush().await.unwrap();
    outage.wait_for(Option::is_none).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timeout_says_whether_the_record_may_be_stored() {
    let fake = Fake::start(1).await;
    let options = ProducerOptions { delivery_timeout: Duration::from_millis(300), ..small() };
    let producer = fake.client().await.producer(TOPIC, options.clone()).await.unwrap();
    fake.script(|_| Some(Fault::AppendSilently));
    let error = producer.send(Record::new("silent")).await.unwrap().await.unwrap_err();
    assert!(matches!(error, Error::DeliveryTimeout { outcome_unknown: true, .. }), "{error}");

    let producer = fake.client().await.producer(TOPIC, options).await.unwrap();
    fake.script(|_| Some(Fault::Refuse("NOT_LEADER")));
    let error = producer.send(Record::new("refused")).await.unwrap().await.unwrap_err();
    assert!(matches!(error, Error::DeliveryTimeout { outcome_unknown: false, .. }), "{error}");
    assert!(error.to_string().contains("NOT_LEADER"), "{error}");
    assert_eq!(producer.stats().failed_records, 1);
}

/// The second record waits for the first one's answer, which does not come; when that is given up, nothing else happens.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_behind_a_record_that_is_given_up_is_given_up_in_its_time() {
    let fake = Fake::start(1).await;
    fake.script(|_| Some(Fault::AppendSilently));
    let options =
        ProducerOptions { delivery_timeout: Duration::from_millis(300), linger: Duration::ZERO, in_flight_max: 1, ..small() };
    let producer = fake.client().await.producer(TOPIC, options).await.unwrap();
    let first = producer.send(Record::new("on its way")).await.unwrap();
    while fake.all_values().is_empty() {
        tokio::task::yield_now().await;
    }
    let second = producer.send(Record::new("behind it")).await.unwrap();
    let both = futures::future::join(first, second);
    let (first, second) = tokio::time::timeout(Duration::from_secs(20), both).await.expect("both are told of");
    assert!(first.is_err() && second.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_memory_makes_senders_wait() {
    let fake = Fake::start(1).await;
    fake.answering.send_replace(false);
    let options =
        ProducerOptions { batch_bytes: 1000, buffer_bytes: 4000, linger: Duration::from_secs(60), ..ProducerOptions::default() };
    let producer = fake.client().await.producer(TOPIC, options).await.unwrap();
    let payload = [7; 500];
    let mut sent = 0;
    while producer.enqueue(Record::new(&payload)).now_or_never().is_some() {
        sent += 1;
        assert!(sent < 100, "memory is not bounded");
    }
    assert!(sent >= 6, "{sent}");
    fake.answering.send_replace(true);
    // Although batches linger for a minute, one that waits for memory gets it.
    producer.enqueue(Record::new(&payload)).await.unwrap();
    producer.close().await.unwrap();
    assert_eq!(fake.all_values().len(), sent + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flush_does_not_wait_for_linger_and_reports_failures_once() {
    let fake = Fake::start(3).await;
    let options = ProducerOptions { linger: Duration::from_secs(3600), ..ProducerOptions::default() };
    let producer = fake.client().await.producer(TOPIC, options).await.unwrap();
    producer.flush().await.unwrap();
    producer.enqueue(Record::new("one")).await.unwrap();
    producer.flush().await.unwrap();
    assert_eq!(fake.all_values(), [b"one".to_vec()]);
    fake.script(|_| Some(Fault::Reject("INVALID_BATCH")));
    producer.enqueue(Record::new("two")).await.unwrap();
    assert_eq!(producer.flush().await.unwrap_err().reason(), "INVALID_BATCH");
    producer.flush().await.unwrap();
    assert_eq!(producer.stats().failed_records, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keyless_records_fill_one_batch_and_move_on() {
    let fake = Fake::start(4).await;
    let options = ProducerOptions { linger: Duration::from_secs(3600), ..small() };
    let producer = fake.client().await.producer(TOPIC, options).await.unwrap();
    for number in 0..400 {
        producer.enqueue(Record::new(&value(number))).await.unwrap();
    }
    producer.flush().await.unwrap();
    let state = fake.state.lock().unwrap();
    let counts: Vec<usize> = state.logs.iter().map(|log| log.batches.len()).collect();
    assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{counts:?}");
    assert!(state.logs.iter().map(|log| log.end).min().unwrap() > 50, "batches are not filled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn impossible_records_and_options_are_refused_at_once() {
    let fake = Fake::start(2).await;
    let client = fake.client().await;
    let producer = client.producer(TOPIC, small()).await.unwrap();
    assert!(matches!(producer.send(Record::new("x").partition(2)).await, Err(Error::UnknownPartition { last: 1, .. })));
    assert!(matches!(producer.enqueue(Record::new(&vec![0; 17 << 20])).await, Err(Error::InvalidArgument(_))));
    let many = ProducerOptions { in_flight_max: 6, ..ProducerOptions::default() };
    assert!(matches!(client.producer(TOPIC, many).await, Err(Error::InvalidArgument(_))));
    let unknown = client.producer("unknown", small()).await.unwrap_err();
    assert_eq!(unknown.reason(), "UNKNOWN_TOPIC");
    let nobody = Client::connect(["127.0.0.1:1"], ClientOptions::default()).await.unwrap_err();
    assert!(matches!(nobody, Error::Unreachable { .. }), "{nobody}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_producer_says_so_to_whoever_waits() {
    let fake = Fake::start(1).await;
    let options = ProducerOptions { linger: Duration::from_secs(3600), ..ProducerOptions::default() };
    let producer = fake.client().await.producer(TOPIC, options).await.unwrap();
    let delivery = producer.send(Record::new("abandoned")).await.unwrap();
    drop(producer);
    let error = delivery.await.unwrap_err();
    assert!(matches!(error, Error::Closed) && !error.outcome_unknown(), "{error}");
    assert!(fake.all_values().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_idempotence_refusals_do_not_change_the_order() {
    let fake = Fake::start(1).await;
    fake.answering.send_replace(false);
    // All that are on their way are refused together, then all come again.
    fake.script(|attempt| (attempt < 5).then_some(Fault::Refuse("NOT_LEADER")));
    let options = ProducerOptions { idempotence: false, ..small() };
    let producer = fake.client().await.producer(TOPIC, options).await.unwrap();
    for number in 0..100 {
        producer.enqueue(Record::new(&value(number))).await.unwrap();
    }
    fake.answering.send_replace(true);
    producer.close().await.unwrap();
    let expected: Vec<Vec<u8>> = (0..100).map(|number| value(number).into_bytes()).collect();
    assert_eq!(fake.all_values(), expected);
}
