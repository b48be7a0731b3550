//! The end of a simulation: after everything is healed, all nodes must serve, agree, and hold everything acknowledged.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::sleep;

use super::clients::{Client, TOPIC, read_all};
use super::node::Node;
use crate::history::{FinalRead, History};

const LOOK_INTERVAL: Duration = Duration::from_millis(50);

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

/// Where each partition ends, once all of its replicas have everything.
pub async fn ends(nodes: &[Node], client: &mut Client, partitions: u32, waiting: &Waiting) -> Vec<u64> {
    let mut ends = Vec::new();
    for partition in 0..partitions {
        ends.push(end(nodes, client, partition, waiting).await);
    }
    ends
}

/// Where a partition ends on its leader and on every node.
async fn end(nodes: &[Node], client: &mut Client, partition: u32, waiting: &Waiting) -> u64 {
    loop {
        wait_for(waiting, format!("partition {partition} to have a leader that confirms its end"));
        if let Some((_, end)) = client.end(partition).await {
            let mut behind = None;
            for node in nodes.iter().filter(|node| hosts(node, partition)) {
                if high_watermark(node, partition).await != Some(end) {
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
fn hosts(node: &Node, partition: u32) -> bool {
    let Some((broker, _)) = node.broker() else { return false };
    let image = broker.image();
    let layout = image.topic(TOPIC).and_then(|topic| topic.partitions.get(partition as usize));
    layout.is_some_and(|layout| layout.hosts().any(|host| host == node.id()))
}

async fn high_watermark(node: &Node, partition: u32) -> Option<u64> {
    let (broker, _) = node.broker()?;
    Some(broker.replica_reader(TOPIC, partition).ok()?.ends().high_watermark)
}

/// Everything that each replica has, into the history: as many reads as there are replicas of each partition, one from each.
/// Says what could not be read.
pub async fn read_everything(nodes: &[Node], partitions: u32, history: &Mutex<History>) -> Vec<String> {
    let mut failed = Vec::new();
    let mut reads: Vec<FinalRead> = Vec::new();
    for partition in 0..partitions {
        for (replica, node) in nodes.iter().filter(|node| hosts(node, partition)).enumerate() {
            let all = match node.broker() {
                Some((broker, _)) => read_all(&broker, partition).await,
                None => Err("it does not run".to_owned()),
            };
            if reads.len() <= replica {
                reads.push(FinalRead { source: format!("replica {replica} of each partition"), partitions: BTreeMap::new() });
            }
            match (all, reads.get_mut(replica)) {
                (Ok(records), Some(read)) => drop(read.partitions.insert(partition, records)),
                (Err(error), _) => failed.push(format!("partition {partition} of node {} cannot be read: {error}", node.id())),
                (Ok(_), None) => {}
            }
        }
    }
    history.lock().unwrap_or_else(PoisonError::into_inner).final_reads = reads;
    failed
}
