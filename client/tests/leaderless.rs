//! Partitions that nobody leads: records that may go elsewhere do, and what was certainly not written is called so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::time::Duration;

use flotilla_client::{Error, ProducerOptions, Record};
use support::{Fake, Fault, TOPIC};

fn eager() -> ProducerOptions {
    ProducerOptions { linger: Duration::ZERO, ..ProducerOptions::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keyless_records_go_where_somebody_leads_and_back_when_somebody_does_again() {
    let fake = Fake::start(3).await;
    for partition in [0, 2] {
        fake.lead(partition, 1, &fake.address);
    }
    let producer = fake.client().await.producer(TOPIC, eager()).await.unwrap();
    let send = async || producer.send(Record::new("anywhere")).await.unwrap().await.unwrap().partition;
    let mut counts = [0; 3];
    for _ in 0..60 {
        counts[send().await as usize] += 1;
    }
    assert_eq!(counts, [30, 0, 30]);
    assert_eq!(producer.send(Record::new("there").partition(1)).await.unwrap().await.unwrap().partition, 1);
    fake.lead(1, 1, &fake.address);
    while send().await != 1 {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_any_leader_they_go_on_as_usual() {
    let fake = Fake::start(3).await;
    let producer = fake.client().await.producer(TOPIC, eager()).await.unwrap();
    for _ in 0..60 {
        producer.send(Record::new("anywhere")).await.unwrap().await.unwrap();
    }
    assert_eq!((0..3).map(|partition| fake.values(partition).len()).collect::<Vec<_>>(), [20, 20, 20]);
}

async fn given_up(fake: &Fake) -> Error {
    let options = ProducerOptions { delivery_timeout: Duration::from_millis(700), ..eager() };
    let producer = fake.client().await.producer(TOPIC, options).await.unwrap();
    producer.send(Record::new("never")).await.unwrap().await.unwrap_err()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waited_for_a_leader_until_its_time_was_over_was_certainly_not_written() {
    let fake = Fake::start(1).await;
    fake.script(|_| Some(Fault::NoLeader));
    let error = given_up(&fake).await;
    assert!(matches!(error, Error::DeliveryTimeout { outcome_unknown: false, .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_stream_took_was_certainly_not_written() {
    let fake = Fake::start(1).await;
    fake.state.lock().unwrap().refuses_streams = true;
    let error = given_up(&fake).await;
    assert!(matches!(error, Error::DeliveryTimeout { outcome_unknown: false, .. }), "{error}");
}
