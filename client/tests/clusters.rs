//! Addresses that lead to a node of another cluster: whatever the client does, that node gets and gives nothing. The servers
//! here are of the kind that does not look at which cluster a request names.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use flotilla_client::{Assignment, Client, ClientOptions, ConsumerOptions, Error, Position, ProducerOptions, Record};
use support::proxy::Proxy;
use support::{Fake, TOPIC};

fn value(number: usize) -> String {
    format!("record {number:06}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_address_leads_elsewhere_is_reached_through_others_and_told_of() {
    let (here, elsewhere) = (Fake::start(1).await, Fake::start(1).await);
    here.lead(0, 1, &elsewhere.address);
    let client = here.client().await;
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = Arc::clone(&told);
    client.tell_foreign_nodes(move |error| tell.lock().unwrap().push(error.to_string()));
    let producer = client.producer(TOPIC, ProducerOptions::default()).await.unwrap();
    for number in 0..100 {
        producer.send(Record::new(&value(number))).await.unwrap().await.unwrap();
    }
    let options = ConsumerOptions { until_end: true, ..ConsumerOptions::default() };
    let mut consumer = client.consumer(TOPIC, Assignment::all(Position::Earliest), options).await.unwrap();
    let mut read = 0;
    while let Some(chunk) = consumer.next().await.unwrap() {
        read += chunk.records().count();
    }
    assert_eq!((here.all_values().len(), elsewhere.all_values().len(), read), (100, 0, 100));
    assert_eq!(elsewhere.state.lock().unwrap().consume_streams, 0);
    let told = told.lock().unwrap();
    assert!(told.len() == 1 && told[0].contains(&elsewhere.address) && told[0].contains(&here.cluster_id), "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forward_that_changes_while_it_is_used_is_noticed() {
    let (here, elsewhere) = (Fake::start(1).await, Fake::start(1).await);
    let forward = Proxy::start(here.address.clone()).await;
    let client = Client::connect([forward.address.clone()], ClientOptions::default()).await.unwrap();
    let options = ProducerOptions { linger: Duration::ZERO, ..ProducerOptions::default() };
    let producer = client.producer(TOPIC, options).await.unwrap();
    producer.send(Record::new(&value(0))).await.unwrap().await.unwrap();
    let mut outages = client.outage();
    forward.lead_to(&elsewhere.address);
    assert!(forward.cut() > 0);
    let mut waiting = Vec::new();
    for number in 1..50 {
        waiting.push(producer.send(Record::new(&value(number))).await.unwrap());
    }
    let noticed =
        outages.wait_for(|outage| outage.as_ref().is_some_and(|outage| matches!(outage.error, Error::WrongCluster { .. })));
    noticed.await.unwrap();
    let alone = client.init_producer(flotilla_client::api::InitProducerRequest {}).await.unwrap_err();
    assert!(matches!(alone, Error::WrongCluster { .. }), "{alone}");
    // It leads home again, and nothing was lost.
    forward.lead_to(&here.address);
    futures::future::try_join_all(waiting).await.unwrap();
    let expected: Vec<_> = (0..50).map(|number| value(number).into_bytes()).collect();
    assert_eq!((here.all_values(), elsewhere.all_values().len()), (expected, 0));
}
