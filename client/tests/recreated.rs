//! A topic that is deleted and created again while somebody uses it is another one, and whoever used the old one is told.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::time::Duration;

use flotilla_client::{Assignment, Client, ClientOptions, ConsumerOptions, Error, Position, ProducerOptions, Record};
use support::proxy::Proxy;
use support::{Fake, TOPIC};

fn eager() -> ProducerOptions {
    ProducerOptions { linger: Duration::ZERO, ..ProducerOptions::default() }
}

async fn write(fake: &Fake, count: usize) {
    let producer = fake.client().await.producer(TOPIC, eager()).await.unwrap();
    for number in 0..count {
        producer.send(Record::new(&number.to_string()).partition(0)).await.unwrap().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_was_cut_off_does_not_go_on_in_another_topic() {
    let fake = Fake::start(1).await;
    write(&fake, 10).await;
    let line = Proxy::start(fake.address.clone()).await;
    let client = Client::connect([line.address.clone()], ClientOptions::default()).await.unwrap();
    let from = Assignment::all(Position::Earliest);
    let mut consumer = client.consumer(TOPIC, from, ConsumerOptions::default()).await.unwrap();
    for _ in 0..10 {
        consumer.next().await.unwrap().unwrap();
    }
    line.lead_to("127.0.0.1:1");
    assert!(line.cut() > 0);
    fake.recreate();
    // Enough that its position exists.
    write(&fake, 20).await;
    line.lead_to(&fake.address);
    let error = consumer.next().await.unwrap_err();
    assert!(matches!(error, Error::TopicRecreated { .. }), "{error}");
    assert!(!error.is_retriable() && error.reason() == "TOPIC_RECREATED");
    // Whoever wants the new one asks for it.
    let mut again = client.consumer(TOPIC, Assignment::all(Position::Earliest), ConsumerOptions::default()).await.unwrap();
    assert_eq!(again.next().await.unwrap().unwrap().records().next().unwrap().unwrap().offset, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_for_the_old_topic_do_not_land_in_the_new_one() {
    let fake = Fake::start(3).await;
    let producer = fake.client().await.producer(TOPIC, eager()).await.unwrap();
    producer.send(Record::new("old")).await.unwrap().await.unwrap();
    fake.recreate();
    for number in 0..30 {
        let error = producer.send(Record::new("late").partition(number % 3)).await.unwrap().await.unwrap_err();
        assert!(matches!(&error, Error::TopicRecreated { topic, topic_id } if topic == TOPIC && topic_id == "again"), "{error}");
        assert!(!error.outcome_unknown());
    }
    assert!(fake.all_values().is_empty());
    write(&fake, 5).await;
    assert_eq!(fake.all_values().len(), 5);
}
