//! Three real nodes, one of which has a wrong clock.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use flotilla_records::{BatchBuilder, Codec};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use super::*;
use crate::founding::Home;
use crate::open::BrokerOptions;
use crate::produce::{Payload, Produce};
use crate::surroundings::Surroundings;
use crate::test_node::options;
use crate::topics::CreateTopic;

pub(crate) const TOPIC: &str = "t";
pub(crate) const NODES: u64 = 3;
const DAY_MS: i64 = 24 * 3_600_000;
/// What does not happen by then does not come.
const PATIENCE: Duration = Duration::from_secs(60);

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

/// Addresses that nobody listened at a moment ago.
pub(crate) fn free_addresses() -> Vec<SocketAddr> {
    let listeners: Vec<_> = (0..NODES).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap()).collect()
}

/// A node, ready, whose clock is ahead as far as `ahead_ms` says.
pub(crate) async fn node(node_id: u64, dir: &Path, addresses: &[SocketAddr], ahead_ms: Arc<AtomicI64>) -> Broker {
    let address = addresses[node_id as usize - 1];
    let options = BrokerOptions {
        seeds: addresses.iter().map(SocketAddr::to_string).collect(),
        retention_interval: Duration::from_millis(50),
        ..options(node_id, &dir.join(node_id.to_string()), &address.to_string())
    };
    let clock = Clock::new(move || now_ms() + ahead_ms.load(Ordering::SeqCst));
    let surroundings = Surroundings { clock, ..Surroundings::real() };
    let member = match Home::find(&options, &surroundings).unwrap() {
        Home::Member(member) => member,
        Home::Newcomer(newcomer) => {
            let joined = CancellationToken::new();
            let services = Server::builder().add_service(newcomer.peer_service());
            let serving = tokio::spawn(services.serve_with_shutdown(address, joined.clone().cancelled_owned()));
            let member = newcomer.join(&CancellationToken::new()).await.unwrap();
            joined.cancel();
            serving.await.unwrap().unwrap();
            member
        }
    };
    let broker = Broker::open(options, member, surroundings).await.unwrap();
    let services = Server::builder().add_service(broker.raft_service()).add_service(broker.peer_service());
    tokio::spawn(services.serve_with_shutdown(address, broker.inner.stop.clone().cancelled_owned()));
    broker.wait_ready().await.unwrap();
    broker
}

pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    let held = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, held).await.is_ok(), "{what}");
}

/// At whoever leads: that may change at any moment.
async fn produce(brokers: &[Broker], timestamp_ms: i64) {
    let mut builder = BatchBuilder::new();
    builder.add(timestamp_ms, None, Some(b"value"), []).unwrap();
    let payload = Payload::Batch(builder.finish(Codec::None, None).unwrap());
    let at = async |broker: &Broker| {
        let prepared = broker.prepare(Produce { topic: TOPIC.into(), partition: Some(0), payload: payload.clone() }).ok()?;
        broker.submit(&prepared.parts[0]).await.ok()?.appended().await.ok()
    };
    let produced = async {
        for broker in brokers.iter().cycle() {
            if at(broker).await.is_some() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, produced).await.expect("somebody leads");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_clock_is_a_month_ahead_deletes_nothing_and_hands_over() {
    let (dir, addresses) = (tempfile::tempdir().unwrap(), free_addresses());
    let ahead: Vec<Arc<AtomicI64>> = (0..NODES).map(|_| Arc::default()).collect();
    let starting = (1..=NODES).map(|node_id| node(node_id, dir.path(), &addresses, ahead[node_id as usize - 1].clone()));
    let brokers = futures::future::join_all(starting).await;
    until("the controller has a leader", || brokers.iter().any(|broker| broker.controller().is_leader())).await;
    let controller = brokers.iter().find(|broker| broker.controller().is_leader()).unwrap();
    let topic = controller.create_topic(CreateTopic { name: TOPIC.into(), ..CreateTopic::default() }).await.unwrap().topic;
    let group_id = topic.partitions[0].group_id;
    let leader = || brokers.iter().position(|broker| broker.is_leader_here(group_id));
    // Its preferred leader keeps the lead once it has it.
    let wrong = topic.partitions[0].nodes().next().unwrap() as usize - 1;
    until("the partition has its leader", || leader() == Some(wrong)).await;
    produce(&brokers, now_ms()).await;

    ahead[wrong].store(30 * DAY_MS, Ordering::SeqCst);
    brokers[wrong].apply_retention().await;
    produce(&brokers, now_ms()).await;
    until("somebody else leads", || leader().is_some_and(|leader| leader != wrong)).await;
    until("somebody else leads the controller", || {
        brokers.iter().position(|broker| broker.controller().is_leader()).is_some_and(|leader| leader != wrong)
    })
    .await;
    let doubt = brokers[wrong].inner.clock.doubt().unwrap();
    assert!(doubt.by_most && (doubt.ahead_ms - 30 * DAY_MS).abs() < 60_000, "{doubt:?}");
    let troubled = |broker: &Broker| broker.troubles().of(Subject::Clock).is_some();
    let leading = &brokers[leader().unwrap()];
    until("it says so", || troubled(&brokers[wrong])).await;
    until("the others know", || leading.inner.clock.is_wrong(brokers[wrong].node_id())).await;
    assert!(!troubled(leading) && leading.inner.clock.doubt().is_none());
    produce(&brokers, now_ms()).await;
    for broker in &brokers {
        broker.apply_retention().await;
        let partition = broker.partition(&topic, 0).ok().unwrap();
        assert_eq!(partition.ends().log_start_offset, 0, "node {}", broker.node_id());
        let time = partition.machine.lock().time();
        assert!((time.now_ms - now_ms()).abs() < 60_000, "node {} stamps {time:?}", broker.node_id());
    }
    // It is set right.
    ahead[wrong].store(0, Ordering::SeqCst);
    until("it agrees again", || !troubled(&brokers[wrong])).await;
    for broker in brokers {
        broker.close().await;
    }
}
