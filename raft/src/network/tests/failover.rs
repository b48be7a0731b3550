//! Nodes die and come back; links break; one group's core dies.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::cluster::*;
use crate::log::tests::node::{FORGET, KEEP, Ledger, PATIENCE, fill, payload, propose};
use crate::machine::{Applied, Machine, RestoreError, Row, Rows};
use crate::registry::Begin;
use crate::types::{GroupId, Item, LogId};

const NODES: [u64; 3] = [1, 2, 3];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_leader_is_replaced_soon_and_catches_up_when_it_is_back() {
    let mut cluster = Cluster::new(3).await;
    let groups: Vec<GroupId> = (1..=20).map(GroupId).collect();
    for group in &groups {
        cluster.found(*group, &NODES).await;
    }
    let mut count = 0;
    for round in 0..3 {
        for group in &groups {
            let leader = cluster.leader(*group, &NODES).await;
            fill(&cluster.group(leader, *group), count..count + 20).await;
        }
        count += 20;
        let dead = cluster.leader(groups[0], &NODES).await;
        let others: Vec<u64> = NODES.into_iter().filter(|id| *id != dead).collect();
        cluster.kill(dead);
        for group in &groups {
            let leader = cluster.leader_within(*group, &others, SOON).await;
            fill(&cluster.group(leader, *group), count..count + 10).await;
        }
        count += 10;
        cluster.start_node(dead).await;
        for group in &groups {
            cluster.start(dead, *group, Begin::Wait).await;
        }
        for group in &groups {
            cluster.holds(dead, *group, 0, count).await;
        }
        assert!(round < 3);
    }
}

/// Whoever cannot reach the leader does not disturb those who can.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_breaks_between_two_nodes_changes_no_leader() {
    let cluster = Cluster::new(3).await;
    cluster.found(GROUP, &NODES).await;
    let leader = cluster.leader(GROUP, &NODES).await;
    let group = cluster.group(leader, GROUP);
    fill(&group, 0..20).await;
    let term = group.term();
    let other = NODES.into_iter().find(|id| *id != leader).unwrap();
    for (from, to) in [(leader, other), (other, leader)] {
        cluster.line(from, to).cut();
    }
    let mut links = cluster.registry(other).peers().links();
    links.wait_for(|up| !up.contains_key(&leader)).await.unwrap();
    // The rest goes on, for longer than several attempts to campaign take.
    for round in 0..30 {
        fill(&group, 20 + round * 10..30 + round * 10).await;
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!((group.is_leader(), group.term()), (true, term));
    for (from, to) in [(leader, other), (other, leader)] {
        cluster.line(from, to).mend();
    }
    cluster.linked().await;
    cluster.holds(other, GROUP, 0, 320).await;
    assert_eq!((group.is_leader(), group.term()), (true, term));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_was_stopped_as_a_whole_leads_again_soon() {
    let mut cluster = Cluster::new(3).await;
    cluster.found(GROUP, &NODES).await;
    let mut count = 0;
    for round in 0..4 {
        let leader = cluster.leader_within(GROUP, &NODES, SOON).await;
        fill(&cluster.group(leader, GROUP), count..count + 30).await;
        count += 30;
        for id in NODES {
            if round % 2 == 0 { cluster.kill(id) } else { cluster.close_node(id).await }
        }
        for id in NODES {
            cluster.start_node(id).await;
            cluster.start(id, GROUP, Begin::Wait).await;
        }
    }
    let leader = cluster.leader_within(GROUP, &NODES, SOON).await;
    fill(&cluster.group(leader, GROUP), count..count + 1).await;
    for id in NODES {
        cluster.holds(id, GROUP, 0, count + 1).await;
    }
}

/// The lead goes to a node that the third cannot reach, and that dies at once: the third still believes in the one before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lead_that_not_everybody_heard_of_holds_up_nobody() {
    let mut cluster = Cluster::new(3).await;
    cluster.found(GROUP, &NODES).await;
    let first = cluster.leader(GROUP, &NODES).await;
    fill(&cluster.group(first, GROUP), 0..10).await;
    let (second, unaware) = (first % 3 + 1, (first + 1) % 3 + 1);
    cluster.holds(second, GROUP, 0, 10).await;
    let mut links = cluster.registry(unaware).peers().links();
    for (from, to) in [(second, unaware), (unaware, second)] {
        cluster.line(from, to).cut();
    }
    links.wait_for(|up| !up.contains_key(&second)).await.unwrap();
    cluster.group(first, GROUP).transfer_leader(replica(second).id).await.unwrap();
    let led = || (cluster.group(first, GROUP).leader_node() == Some(second)).then_some(());
    eventually(SOON, "the second leads, as the first says", led).await;
    assert_eq!(cluster.group(unaware, GROUP).leader_node(), Some(first));
    cluster.kill(second);
    let leader = cluster.leader_within(GROUP, &[first, unaware], LEASE).await;
    fill(&cluster.group(leader, GROUP), 10..11).await;
}

/// A node that is back before anybody campaigned leads nothing any more: nobody waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_back_at_once_is_replaced_all_the_same() {
    let mut cluster = Cluster::new(3).await;
    cluster.found(GROUP, &NODES).await;
    for count in 0..4 {
        let leader = cluster.leader_within(GROUP, &NODES, SOON).await;
        fill(&cluster.group(leader, GROUP), count..count + 1).await;
        cluster.kill(leader);
        cluster.start_node(leader).await;
        cluster.start(leader, GROUP, Begin::Wait).await;
    }
    let leader = cluster.leader_within(GROUP, &NODES, SOON).await;
    fill(&cluster.group(leader, GROUP), 4..5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_begins_without_its_first_replica() {
    let mut cluster = Cluster::new(3).await;
    cluster.kill(1);
    for id in [2, 3] {
        cluster.start(id, GROUP, Begin::Initialize(replicas(&NODES))).await;
    }
    let leader = cluster.leader_within(GROUP, &[2, 3], SOON).await;
    fill(&cluster.group(leader, GROUP), 0..10).await;
    cluster.start_node(1).await;
    cluster.start(1, GROUP, Begin::Initialize(replicas(&NODES))).await;
    cluster.holds(1, GROUP, 0, 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lead_is_handed_over_when_asked() {
    let cluster = Cluster::new(3).await;
    cluster.found(GROUP, &NODES).await;
    let mut leader = cluster.leader(GROUP, &NODES).await;
    fill(&cluster.group(leader, GROUP), 0..50).await;
    for _ in 0..3 {
        let next = leader % 3 + 1;
        cluster.holds(next, GROUP, 0, 50).await;
        cluster.group(leader, GROUP).transfer_leader(replica(next).id).await.unwrap();
        eventually(SOON, "the next one leads", || cluster.group(next, GROUP).is_leader().then_some(())).await;
        leader = cluster.leader(GROUP, &NODES).await;
        assert_eq!(leader, next);
    }
    fill(&cluster.group(leader, GROUP), 50..60).await;
}

/// Panics once, when it is told to, at the item that says so.
struct Mortal {
    ledger: Ledger,
    dies: Arc<AtomicBool>,
}

impl Machine for Mortal {
    fn restore(&mut self, rows: Vec<Row>) -> Result<(), RestoreError> {
        self.ledger.restore(rows)
    }

    fn apply(&mut self, log_id: LogId, items: &[Item], rows: &mut dyn Rows) -> Vec<Applied> {
        let dies = items.iter().any(|item| item.kind == FORGET) && self.dies.swap(false, Ordering::SeqCst);
        assert!(!dies, "as asked");
        self.ledger.apply(log_id, items, rows)
    }

    fn live_from(&self) -> u64 {
        self.ledger.live_from()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_whose_core_died_starts_again_and_the_others_go_on() {
    let cluster = Cluster::new(3).await;
    let other = GroupId(6);
    cluster.found(other, &NODES).await;
    let dies: Vec<Arc<AtomicBool>> = NODES.map(|_| Arc::default()).into();
    for id in NODES {
        let machine = Mortal { ledger: Ledger::default(), dies: dies[id as usize - 1].clone() };
        cluster.start_machine(id, GROUP, Begin::Initialize(replicas(&NODES)), Box::new(machine)).await;
    }
    let mut count = 0;
    // A follower's and a leader's.
    for victim_leads in [false, true] {
        let leader = cluster.leader(GROUP, &NODES).await;
        let victim = if victim_leads { leader } else { leader % 3 + 1 };
        fill(&cluster.group(leader, GROUP), count..count + 40).await;
        count += 40;
        let _ = cluster.registry(victim).take_changed();
        dies[victim as usize - 1].store(true, Ordering::SeqCst);
        let deadly = Item { kind: FORGET, payload: payload(0).into() };
        let outcome = cluster.group(leader, GROUP).propose(deadly).await;
        assert_eq!(outcome.is_err(), victim_leads, "{:?}", outcome.err());
        let mut standing = cluster.group(victim, GROUP).watch();
        let died = standing.wait_for(|standing| standing.died.is_some());
        tokio::time::timeout(PATIENCE, died).await.expect("the death is noticed").unwrap();
        let told = || cluster.registry(victim).take_changed().contains(&GROUP).then_some(());
        eventually(PATIENCE, "the registry tells of it, too", told).await;

        let leads_other = cluster.leader(other, &NODES).await;
        propose(&cluster.group(leads_other, other), KEEP, payload(count / 40 - 1)).await;
        let machine = Mortal { ledger: Ledger::default(), dies: dies[victim as usize - 1].clone() };
        let registry = cluster.registry(victim);
        cluster.on(victim, async move { registry.restart(GROUP, Box::new(machine), None).await.unwrap() }).await;
        let leader = cluster.leader(GROUP, &NODES).await;
        fill(&cluster.group(leader, GROUP), count..count + 10).await;
        count += 10;
        for id in NODES {
            cluster.holds(id, GROUP, 0, count).await;
        }
    }
    cluster.holds(2, other, 0, 2).await;
}

/// A core that stands still, on a node that can be reached: its followers' own clock is the last resort.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_falls_silent_is_replaced_once_its_lease_is_over() {
    let cluster = Cluster::new(3).await;
    cluster.found(GROUP, &NODES).await;
    let silent = cluster.leader(GROUP, &NODES).await;
    let group = cluster.group(silent, GROUP);
    fill(&group, 0..10).await;
    group.shutdown().await;
    let others: Vec<u64> = NODES.into_iter().filter(|id| *id != silent).collect();
    assert!(others.iter().all(|id| cluster.registry(*id).peers().is_up(silent)));
    let next = || others.iter().copied().find(|id| cluster.group(*id, GROUP).is_leader());
    let leader = eventually(PATIENCE, "another leads", next).await;
    fill(&cluster.group(leader, GROUP), 10..20).await;
}

/// Nothing was written since it started.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_replica_of_a_group_at_rest_takes_the_lead() {
    let cluster = Cluster::new(3).await;
    cluster.found(GROUP, &NODES).await;
    let leader = cluster.leader(GROUP, &NODES).await;
    fill(&cluster.group(leader, GROUP), 0..10).await;
    let next = leader % 3 + 1;
    cluster.holds(next, GROUP, 0, 10).await;
    let registry = cluster.registry(next);
    cluster.group(next, GROUP).shutdown().await;
    cluster.on(next, async move { registry.restart(GROUP, Box::new(Ledger::default()), None).await.unwrap() }).await;
    let led = || (cluster.group(next, GROUP).leader_node() == Some(leader)).then_some(());
    eventually(PATIENCE, "it knows its leader", led).await;
    cluster.group(leader, GROUP).transfer_leader(replica(next).id).await.unwrap();
    eventually(PATIENCE, "it leads", || cluster.group(next, GROUP).is_leader().then_some(())).await;
    fill(&cluster.group(next, GROUP), 10..20).await;
}

/// At rest nothing but its leader's heartbeats tells a follower that it is led.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_at_rest_keeps_its_leader() {
    let cluster = Cluster::new(3).await;
    cluster.found(GROUP, &NODES).await;
    let leader = cluster.leader(GROUP, &NODES).await;
    let group = cluster.group(leader, GROUP);
    fill(&group, 0..10).await;
    let term = group.term();
    tokio::time::sleep(crate::registry::SILENCE_MAX + std::time::Duration::from_secs(3)).await;
    assert!(NODES.iter().all(|id| cluster.group(*id, GROUP).leader_node() == Some(leader)));
    assert_eq!(group.term(), term);
}
