//! A replica that is behind what the log still holds gets a snapshot, over connections that break.

use std::time::Duration;

use super::cluster::*;
use crate::group::Group;
use crate::log::tests::node::{Ledger, PATIENCE, RELEASE, fill, kept, propose};
use crate::registry::{Begin, TransferOptions};
use crate::types::{Replica, ReplicaId};

const NODES: [u64; 3] = [1, 2, 3];

/// Node 1 leads, node 3 is down; everything before `live_from` is gone from the log.
async fn behind(cluster: &mut Cluster, count: u64, live_from: u64) -> Group {
    cluster.found(GROUP, &NODES).await;
    let leader = cluster.leader(GROUP, &NODES).await;
    fill(&cluster.group(leader, GROUP), 0..50).await;
    for id in NODES {
        cluster.holds(id, GROUP, 0, 50).await;
    }
    if leader != 1 {
        cluster.group(leader, GROUP).transfer_leader(replica(1).id).await.unwrap();
        eventually(SOON, "node 1 leads", || cluster.group(1, GROUP).is_leader().then_some(())).await;
    }
    cluster.kill(3);
    let group = cluster.group(1, GROUP);
    fill(&group, 50..count).await;
    propose(&group, RELEASE, live_from.to_be_bytes().to_vec()).await;
    // Only whole, closed segments go; a dead replica holds them up for a moment.
    let log = group.log().clone();
    tokio::task::spawn_blocking(move || log.flush(true)).await.unwrap().unwrap();
    assert!(group.release_below(live_from).await.unwrap() > 0);
    assert!(group.log().purged().is_some_and(|purged| purged.index > 60), "{:?}", group.log().purged());
    group
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_too_far_behind_gets_a_snapshot() {
    let mut cluster = Cluster::new(3).await;
    let group = behind(&mut cluster, 3_000, 1_000).await;
    cluster.start_node(3).await;
    cluster.start(3, GROUP, Begin::Wait).await;
    fill(&group, 3_000..3_050).await;
    cluster.holds(3, GROUP, 1_000, 3_050).await;
    assert!(cluster.group(3, GROUP).log().purged() >= group.log().purged());
    // It is a full replica again: the others may go.
    cluster.kill(2);
    fill(&group, 3_050..3_060).await;
    cluster.holds(3, GROUP, 1_000, 3_060).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_that_is_cut_twice_goes_on_where_it_was() {
    // 1 MiB/s, chunks of 1 MiB: the transfer takes a few seconds, in a few pieces.
    let transfers = TransferOptions { bytes_per_second: 4 << 20, ..TransferOptions::default() };
    let mut cluster = Cluster::with(3, Duration::ZERO, transfers).await;
    let group = behind(&mut cluster, 40_000, 10_000).await;
    let line = cluster.line(1, 3);
    // Node 3 dials the link; what node 1 dials is the snapshot alone.
    let before = line.sent();
    line.break_after(3 << 20);
    cluster.start_node(3).await;
    cluster.start(3, GROUP, Begin::Wait).await;
    let line = cluster.line(1, 3);
    eventually(PATIENCE, "the first cut", || (line.sent() >= before + (3 << 20)).then_some(())).await;
    line.break_after(2 << 20);
    cluster.holds(3, GROUP, 10_000, 40_000).await;
    let sent = line.sent() - before;
    let size = kept(&group, 10_000).await.iter().map(|(_, payload)| payload.len() as u64).sum::<u64>();
    assert!(size > 7 << 20, "{size}");
    // From the start each time, it would have been far more. The rows are small here.
    assert!(sent < size + (6 << 20), "{sent} bytes were sent for {size}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_received_in_part_goes_with_its_group() {
    let transfers = TransferOptions { bytes_per_second: 1 << 20, ..TransferOptions::default() };
    let mut cluster = Cluster::with(3, Duration::ZERO, transfers).await;
    let group = behind(&mut cluster, 20_000, 1_000).await;
    cluster.start_node(3).await;
    cluster.start(3, GROUP, Begin::Wait).await;
    let line = cluster.line(1, 3);
    let before = line.sent();
    eventually(PATIENCE, "a part is there", || (line.sent() >= before + (2 << 20)).then_some(())).await;
    line.cut();
    let registry = cluster.registry(3);
    cluster.on(3, async move { registry.remove(GROUP).await.unwrap() }).await;
    cluster.close_node(3).await;
    cluster.line(1, 3).mend();
    cluster.start_node(3).await;
    assert!(cluster.registry(3).idle_groups().is_empty());
    // Nothing is left that would look like a lost group.
    let later = Replica { id: ReplicaId(23), node: 3 };
    cluster.start_replica(later, GROUP, Begin::Wait, Box::new(Ledger::default())).await;
    fill(&group, 20_000..20_010).await;
}
