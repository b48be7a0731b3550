//! Groups of a real node whose core dies.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::path::Path;
use std::sync::atomic::AtomicBool;

use flotilla_raft::disk::error::Operation;
use flotilla_raft::disk::sim::{Injection, SimDisk, code};
use flotilla_raft::group::Group;
use flotilla_raft::types::Item;
use flotilla_records::{BatchBuilder, Codec};

use super::*;
use crate::broker::PartitionError;
use crate::error::NotServing;
use crate::produce::{Payload, Produce};
use crate::surroundings::Surroundings;
use crate::test_node::alone;
use crate::topics::CreateTopic;

const TOPIC: &str = "t";
/// An item at which a machine panics, once.
const DEADLY: u8 = 250;
const PATIENCE: Duration = Duration::from_secs(20);

static DIES: AtomicBool = AtomicBool::new(false);

/// Called by the hosts of machines.
pub(crate) fn die_if_asked(items: &[Item]) {
    let dies = items.iter().any(|item| item.kind == DEADLY) && DIES.swap(false, Ordering::SeqCst);
    assert!(!dies, "as asked");
}

async fn node(dir: &Path) -> Broker {
    alone(dir, Surroundings::real()).await
}

/// Appends one record; its offset, or why not.
async fn produce(broker: &Broker, partition: u32) -> Result<u64, String> {
    let mut builder = BatchBuilder::new();
    builder.add(1, None, Some(b"value"), []).unwrap();
    let payload = Payload::Batch(builder.finish(Codec::None, None).unwrap());
    let request = Produce { topic: TOPIC.into(), partition: Some(partition), payload };
    let prepared = broker.prepare(request).map_err(|error| error.to_string())?;
    let submitted = broker.submit(&prepared.parts[0]).await.map_err(|error| error.to_string())?;
    submitted.appended().await.map_err(|error| error.to_string())?;
    Ok(ends(broker, partition).high_watermark)
}

fn ends(broker: &Broker, partition: u32) -> crate::Ends {
    let topic = broker.image().topic(TOPIC).unwrap().clone();
    broker.partition(&topic, partition).ok().unwrap().ends()
}

/// Makes a group's core panic, and waits until it was started again and the group has a leader.
async fn kill_core(broker: &Broker, group: &Group, restarts: u64) {
    DIES.store(true, Ordering::SeqCst);
    let outcome = group.propose(Item { kind: DEADLY, payload: bytes::Bytes::new() }).await;
    assert!(outcome.is_err(), "the machine panicked, and somebody was told that all is well");
    let revived = async {
        while broker.stats().group_restarts < restarts || !current(broker, group.id().0).is_leader() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, revived).await.expect("the group starts again");
}

fn current(broker: &Broker, group_id: u64) -> Group {
    if group_id == 0 { (*broker.controller()).clone() } else { broker.hosted_group(group_id).unwrap() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_group_is_started_again_and_the_others_do_not_notice() {
    let dir = tempfile::tempdir().unwrap();
    let broker = node(dir.path()).await;
    let topic = CreateTopic { name: TOPIC.into(), partitions: Some(2), ..CreateTopic::default() };
    let topic = broker.create_topic(topic).await.unwrap().topic;
    for partition in [0, 1] {
        assert_eq!(produce(&broker, partition).await, Ok(1));
    }
    let group_id = topic.partitions[0].group_id;
    let other = broker.partition(&topic, 1).ok().unwrap();

    kill_core(&broker, &current(&broker, group_id), 1).await;
    assert_eq!(produce(&broker, 0).await, Ok(2), "what was there before it died is there still");
    kill_core(&broker, &current(&broker, 0), 2).await;
    let more = CreateTopic { name: "more".into(), partitions: Some(1), ..CreateTopic::default() };
    broker.create_topic(more).await.unwrap();

    assert_eq!(produce(&broker, 1).await, Ok(2));
    assert!(Arc::ptr_eq(&other, &broker.partition(&topic, 1).ok().unwrap()), "another group was started again, too");
    assert_eq!(broker.stats().group_restarts, 2);
    drop(other);
    broker.close().await;
}

/// Nothing but the error itself has to go away: no metadata change, no restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_cannot_be_opened_says_so_and_comes_up_once_it_can() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), SimDisk::new(1));
    let surroundings = Surroundings { disk: Arc::new(disk.clone()), ..Surroundings::real() };
    let broker = alone(dir.path(), surroundings).await;
    disk.inject(Injection::new(Operation::CreateDir, code::EACCES).on("/groups/").forever());
    let (creating, topic) = (broker.clone(), CreateTopic { name: TOPIC.into(), partitions: Some(1), ..CreateTopic::default() });
    let created = tokio::spawn(async move { creating.create_topic(topic).await });
    let refused = || {
        let topic = broker.image().topic(TOPIC)?.clone();
        match broker.partition(&topic, 0) {
            Err(PartitionError::NotServing(refused @ NotServing::Down { .. })) => Some(refused.to_string()),
            _ => None,
        }
    };
    let down = async {
        loop {
            if let Some(refused) = refused() {
                return refused;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let refused = tokio::time::timeout(PATIENCE, down).await.expect("it is not called damaged");
    assert!(refused.contains("tried again by itself"), "{refused}");
    disk.faults(|faults| faults.injections.clear());
    created.await.unwrap().unwrap();
    assert_eq!(produce(&broker, 0).await, Ok(1));
    broker.close().await;
}

#[test]
fn the_next_deaths_are_answered_later_and_later() {
    let (mut known, mut now) = (None, Instant::now());
    let mut waits = Vec::new();
    for _ in 0..9 {
        let mut deaths = Deaths::note(known, now);
        waits.push((deaths.due.take().unwrap() - now).as_secs());
        known = Some(deaths);
        now += Duration::from_secs(1);
    }
    assert_eq!(waits, [0, 1, 2, 4, 8, 16, 32, 60, 60]);
    now += SOUND_AFTER;
    assert_eq!(Deaths::note(known, now).due, Some(now));
}
