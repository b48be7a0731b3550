//! The end of a simulation: after everything is healed, all nodes must serve, agree, and hold everything acknowledged.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::sleep;

use flotilla_raft::types::GroupId;

use super::clients::{Client, Clients, PASSING, read_all};
use super::health::is_healthy;
use super::node::Node;
use super::plan::Shape;
use crate::history::{FinalRead, History};

const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Bytes that the topic whose records pass may take at the end: what it may keep, and closed segments that go next.
const PASSING_BYTES_MAX: u64 = 256 << 10;
/// What a replica may hold applied in memory before it is written to segments.
const UNFLUSHED_BYTES_MAX: u64 = 1 << 20;

/// Topic and number of a partition.
type Place = (&'static str, u32);

/// What is still waited for, in words. Shared with whoever gives up waiting.
pub type Waiting = Arc<Mutex<String>>;

/// Says what is waited for.
pub fn wait_for(waiting: &Waiting, what: String) {
    let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
    if *waiting != what {
        tracing::info!(what, "waits");
        *waiting = what;
    }
}

/// Returns once all nodes serve and nothing moves any more.
pub async fn settled(nodes: &[Node], waiting: &Waiting) {
    for node in nodes {
        wait_for(waiting, format!("node {} to serve", node.id()));
        while !node.is_ready() {
            sleep(LOOK_INTERVAL).await;
        }
        wait_for(waiting, format!("replicas to move, as node {} has it", node.id()));
        while node.broker().is_none_or(|(broker, _)| broker.partition_health(&broker.image()).moving > 0) {
            sleep(LOOK_INTERVAL).await;
        }
    }
}

/// Returns once all nodes say that all is well, nothing lies on their disks that should not be there, and what is to be
/// given up is given up: all without an operator.
pub async fn well(nodes: &[Node], waiting: &Waiting) {
    for node in nodes {
        while let Some(wrong) = unwell(node) {
            wait_for(waiting, wrong);
            sleep(LOOK_INTERVAL).await;
        }
    }
}

/// What is wrong with a node after everything was healed, in words.
fn unwell(node: &Node) -> Option<String> {
    let id = node.id();
    let Some((broker, _)) = node.broker() else { return Some(format!("node {id} to serve")) };
    if let Err(reason) = is_healthy(&broker) {
        return Some(format!("node {id} to say that all is well, and not that {reason}"));
    }
    let image = broker.image();
    let hosted: Vec<GroupId> = broker.groups().iter().map(|group| group.id()).collect();
    for layout in image.topics().flat_map(|topic| &topic.partitions) {
        if layout.hosts().any(|host| host == id) && !hosted.contains(&GroupId(layout.group_id)) {
            return Some(format!("node {id} to run its replica of group {}", layout.group_id));
        }
    }
    if let Some(name) = left_over(node, &hosted) {
        return Some(format!("node {id} to delete groups/{name}, which is nobody's"));
    }
    let passing = image.topic(PASSING).and_then(|topic| topic.partitions.first()).map(|layout| GroupId(layout.group_id));
    let groups = broker.groups();
    let passing = groups.iter().find(|group| Some(group.id()) == passing)?;
    // What is still in memory is not a segment's yet.
    let bytes: u64 = passing.segments().iter().map(|segment| segment.bytes).sum();
    // The leader decides by its segments, and others may have written down already what it still has in memory.
    let allowed = PASSING_BYTES_MAX + if passing.is_leader() { 0 } else { UNFLUSHED_BYTES_MAX };
    (bytes > allowed).then(|| format!("node {id} to give up records of topic {PASSING}, which takes {bytes} bytes"))
}

/// A directory of a group that does not run here, or a second one of a group that does.
fn left_over(node: &Node, hosted: &[GroupId]) -> Option<String> {
    let mut seen = Vec::new();
    for name in node.disk().names(&node.dir().join("groups")) {
        let Some((group, _)) = name.split_once('-') else { continue };
        let Ok(group) = group.parse().map(GroupId) else { continue };
        if !hosted.contains(&group) || seen.contains(&group) {
            return Some(name);
        }
        seen.push(group);
    }
    None
}

/// Where each partition ends, once all of its replicas have everything.
pub async fn ends(nodes: &[Node], client: &mut Client, shape: &Shape, waiting: &Waiting) -> Vec<u64> {
    let mut ends = Vec::new();
    for partition in 0..shape.partitions + shape.singles {
        ends.push(end(nodes, client, (partition, Clients::place(shape, partition)), waiting).await);
    }
    ends
}

/// Where a partition ends on its leader and on every node.
async fn end(nodes: &[Node], client: &mut Client, (partition, place): (u32, Place), waiting: &Waiting) -> u64 {
    loop {
        wait_for(waiting, format!("partition {partition} to have a leader that confirms its end"));
        if let Some((_, end)) = client.end(partition).await {
            let mut behind = None;
            for node in nodes.iter().filter(|node| hosts(node, place)) {
                if high_watermark(node, place).await != Some(end) {
                    behind = Some(node.id());
                }
            }
            let Some(behind) = behind else { return end };
            wait_for(waiting, format!("node {behind} to have partition {partition} up to offset {end}"));
        }
        sleep(LOOK_INTERVAL).await;
    }
}

/// Whether the metadata places a partition on a node, as far as that knows.
fn hosts(node: &Node, (topic, partition): Place) -> bool {
    let Some((broker, _)) = node.broker() else { return false };
    let image = broker.image();
    let layout = image.topic(topic).and_then(|topic| topic.partitions.get(partition as usize));
    layout.is_some_and(|layout| layout.hosts().any(|host| host == node.id()))
}

async fn high_watermark(node: &Node, (topic, partition): Place) -> Option<u64> {
    let (broker, _) = node.broker()?;
    Some(broker.replica_reader(topic, partition).ok()?.ends().high_watermark)
}

/// Everything that each replica has, into the history: as many reads as any partition has replicas; one with fewer of them
/// counts the same replica again. Says what could not be read.
pub async fn read_everything(nodes: &[Node], shape: &Shape, history: &Mutex<History>) -> Vec<String> {
    let (mut failed, mut all) = (Vec::new(), BTreeMap::new());
    for partition in 0..shape.partitions + shape.singles {
        let place = Clients::place(shape, partition);
        let mut replicas = Vec::new();
        for node in nodes.iter().filter(|node| hosts(node, place)) {
            let read = match node.broker() {
                Some((broker, _)) => read_all(&broker, place).await,
                None => Err("it does not run".to_owned()),
            };
            match read {
                Ok(records) => replicas.push(records),
                Err(error) => failed.push(format!("partition {partition} of node {} cannot be read: {error}", node.id())),
            }
        }
        all.insert(partition, replicas);
    }
    let rounds = all.values().map(Vec::len).max().unwrap_or_default();
    let round = |round: usize| FinalRead {
        source: format!("replica {round} of each partition"),
        partitions: all
            .iter()
            .filter_map(|(partition, replicas)| Some((*partition, replicas.get(round % replicas.len().max(1))?.clone())))
            .collect(),
    };
    history.lock().unwrap_or_else(PoisonError::into_inner).final_reads = (0..rounds).map(round).collect();
    failed
}
