//! Replicas that tell each other what they have: such as have the same, one that decides otherwise, one that forgot.

use std::sync::Arc;
use std::time::Duration;

use super::cluster::*;
use crate::group::{Group, ProposeError, ReadError};
use crate::log::tests::node::{KEEP, Ledger, PATIENCE, RELEASE, fill, payload, propose};
use crate::machine::{Applied, Machine, RestoreError, Row, Rows};
use crate::network::LinkState;
use crate::registry::{Begin, StartError};
use crate::tripwire::{CHECKPOINT_ENTRIES, Compared, Point, Report, Track};
use crate::troubles::Subject;
use crate::types::{Decision, Item, LogId, Vote};

const NODES: [u64; 3] = [1, 2, 3];
/// Long enough for every replica to tell and to hear something twice.
const TWICE: Duration = Duration::from_millis(2_500);

/// Decides what a [`Ledger`] does, but that it dates one payload otherwise.
#[derive(Default)]
struct Wrong(Ledger);

impl Machine for Wrong {
    fn restore(&mut self, rows: Vec<Row>) -> Result<(), RestoreError> {
        self.0.restore(rows)
    }

    fn apply(&mut self, log_id: LogId, items: &[Item], rows: &mut dyn Rows) -> Vec<Applied> {
        let mut applied = self.0.apply(log_id, items, rows);
        for (item, applied) in items.iter().zip(&mut applied) {
            if let Decision::Keep(kept) = &mut applied.decision
                && item.payload == payload(7)
            {
                kept.max_timestamp_ms += 1;
            }
        }
        applied
    }

    fn live_from(&self) -> u64 {
        self.0.live_from()
    }
}

/// Founds the group with a machine on the last of `voters` that decides otherwise.
async fn found_with_a_wrong_one(cluster: &Cluster, voters: &[u64]) {
    let (wrong, right) = voters.split_last().unwrap();
    for node in right {
        cluster.start(*node, GROUP, Begin::Initialize(replicas(voters))).await;
    }
    cluster.start_machine(*wrong, GROUP, Begin::Initialize(replicas(voters)), Box::new(Wrong::default())).await;
}

/// Waits until the replicas have applied the same and say so; returns up to which entry.
async fn agreed(cluster: &Cluster, nodes: &[u64]) -> u64 {
    eventually(PATIENCE, "the replicas have the same", || {
        let (track, applied) = cluster.group(nodes[0], GROUP).track();
        let same = |node: &u64| track.against(&cluster.group(*node, GROUP).track().0) == Compared::Equal(applied.unwrap());
        nodes.iter().all(same).then_some(applied?)
    })
    .await
}

fn alarm(cluster: &Cluster, node: u64) -> Option<String> {
    cluster.registry(node).troubles().of(Subject::Replicas(GROUP)).map(|trouble| trouble.message)
}

async fn halted(group: &Group) {
    eventually(PATIENCE, "the group is halted", || group.halted()).await;
    assert!(matches!(group.admit(1).await, Err(ProposeError::Halted { .. })), "nothing is written");
    assert!(matches!(group.read(0, 1).await, Err(ReadError::Halted { .. })), "nothing is read");
    assert!(matches!(group.find_timestamp(0, 0).await, Err(ReadError::Halted { .. })));
    assert!(matches!(group.read_barrier().await, Err(ReadError::Halted { .. })), "no end is confirmed");
}

/// Restarts, snapshots and what is given up of the log change nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_applied_the_same_have_the_same_chain() {
    let mut cluster = Cluster::new(3).await;
    cluster.found(GROUP, &[1, 2]).await;
    let leader = cluster.leader(GROUP, &[1, 2]).await;
    let leading = cluster.group(leader, GROUP);
    let mut sent = 0;
    while leading.last_index().unwrap() < 2 * CHECKPOINT_ENTRIES {
        fill(&leading, sent..sent + 100).await;
        sent += 100;
    }
    agreed(&cluster, &[1, 2]).await;
    propose(&leading, RELEASE, 400_u64.to_be_bytes().to_vec()).await;
    let log = leading.log().clone();
    tokio::task::spawn_blocking(move || log.flush(true)).await.unwrap().unwrap();
    leading.release_below(400).await.unwrap();
    assert!(leading.log().purged().is_some(), "who comes now needs a snapshot");
    cluster.start(3, GROUP, Begin::Wait).await;
    leading.add_learner(replica(3)).await.unwrap();
    let upto = agreed(&cluster, &NODES).await;
    assert_eq!(cluster.group(3, GROUP).track().0.from, 0, "the snapshot carries it on");

    leading.change_voters(ids(NODES)).await.unwrap();
    let follower = 3 - leader;
    cluster.kill(follower);
    fill(&leading, sent..sent + 10).await;
    cluster.start_node(follower).await;
    cluster.start(follower, GROUP, Begin::Resume).await;
    assert!(agreed(&cluster, &NODES).await > upto);
    tokio::time::sleep(TWICE).await;
    for node in NODES {
        assert_eq!((alarm(&cluster, node), cluster.group(node, GROUP).halted()), (None, None), "node {node}");
        assert!(cluster.group(node, GROUP).damage().is_none());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_applied_otherwise_is_given_up_and_stays_it() {
    let mut cluster = Cluster::new(3).await;
    found_with_a_wrong_one(&cluster, &NODES).await;
    let leader = cluster.leader(GROUP, &NODES).await;
    let leading = cluster.group(1, GROUP);
    if leader != 1 {
        cluster.group(leader, GROUP).transfer_leader(replica(1).id).await.unwrap();
        eventually(SOON, "node 1 leads", || leading.is_leader().then_some(())).await;
    }
    fill(&leading, 0..20).await;
    let wrong = cluster.group(3, GROUP);
    let damage = eventually(PATIENCE, "it is given up", || wrong.damage()).await;
    assert!(damage.contains("differs: replica 11 on node 1, replica 12 on node 2 against replica 13 on node 3"), "{damage}");
    halted(&wrong).await;
    let said = eventually(PATIENCE, "the others say so", || alarm(&cluster, 1)).await;
    assert!(said.contains("replica 13 on node 3"), "{said}");
    // Before all three have spoken it is not known who is right.
    for right in [1, 2] {
        eventually(PATIENCE, "they go on", || cluster.group(right, GROUP).halted().is_none().then_some(())).await;
    }
    fill(&leading, 20..30).await;
    let before = cluster.registry(3);
    cluster.on(3, async move { before.condemn(GROUP, "it is".into()).await.unwrap() }).await;
    drop(wrong);

    cluster.kill(3);
    cluster.start_node(3).await;
    let registry = cluster.registry(3);
    let again = async move { registry.start(GROUP, replica(3).id, Box::new(Ledger::default()), None, Begin::Resume).await };
    let refused = cluster.on(3, again).await.unwrap_err();
    assert!(matches!(refused, StartError::Damaged { .. }) && refused.to_string().contains("differs"), "{refused}");

    leading.change_voters(ids([1, 2])).await.unwrap();
    eventually(PATIENCE, "the alarm is over", || alarm(&cluster, 1).is_none().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_the_group_takes_and_gives_nothing() {
    let cluster = Cluster::new(2).await;
    found_with_a_wrong_one(&cluster, &[1, 2]).await;
    let leader = cluster.leader(GROUP, &[1, 2]).await;
    // Whether the last of them is acknowledged is a matter of moments.
    let leading = cluster.group(leader, GROUP);
    for n in 0..9 {
        let _ = leading.propose(Item { kind: KEEP, payload: payload(n).into() }).await;
    }
    for node in [1, 2] {
        let group = cluster.group(node, GROUP);
        halted(&group).await;
        let said = alarm(&cluster, node).expect("it is said");
        assert!(said.contains("contradict each other") && said.contains("cluster verify"), "{said}");
        assert!(group.damage().is_none(), "nobody is given up");
    }
    let registry = cluster.registry(2);
    cluster.on(2, async move { registry.condemn(GROUP, "it is stopped".into()).await.unwrap() }).await;
    drop(leading);
    eventually(PATIENCE, "it says nothing more", || alarm(&cluster, 2).is_none().then_some(())).await;
}

/// What was told over its node's link before it was there to hear is told again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_later_than_its_node_hears_what_the_others_have() {
    let mut cluster = Cluster::new(3).await;
    found_with_a_wrong_one(&cluster, &NODES).await;
    let leader = cluster.leader(GROUP, &NODES).await;
    let leading = cluster.group(1, GROUP);
    if leader != 1 {
        cluster.group(leader, GROUP).transfer_leader(replica(1).id).await.unwrap();
        eventually(SOON, "node 1 leads", || leading.is_leader().then_some(())).await;
    }
    fill(&leading, 0..5).await;
    agreed(&cluster, &NODES).await;
    cluster.kill(3);
    fill(&leading, 5..10).await;
    agreed(&cluster, &[1, 2]).await;
    cluster.start_node(3).await;
    cluster.linked().await;
    tokio::time::sleep(TWICE).await;
    let late = cluster.start_machine(3, GROUP, Begin::Resume, Box::new(Wrong::default())).await;
    eventually(PATIENCE, "it is given up", || late.damage()).await;
}

/// What a node tells of a replica that lives elsewhere counts for nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_speaks_for_another() {
    let cluster = Cluster::new(3).await;
    cluster.found(GROUP, &NODES).await;
    let leader = cluster.leader(GROUP, &NODES).await;
    let group = cluster.group(leader, GROUP);
    fill(&group, 0..4).await;
    let (track, applied) = cluster.group(leader, GROUP).track();
    let points = track.points.iter().map(|point| Point { hash: !point.hash, ..*point }).collect();
    let [about, from] = [leader % 3 + 1, (leader + 1) % 3 + 1];
    let lie = Report {
        group: GROUP,
        replica: replica(about).id,
        life: 1,
        vote: Vote { term: group.term(), ..Vote::default() },
        committed: None,
        last: applied,
        acknowledged: None,
        applied,
        track: Track { points, ..track },
        accused: vec![replica(from).id],
    };
    let link = LinkState { number: u64::MAX, boot: 1 };
    group.hear((from, link), &lie);
    tokio::time::sleep(TWICE).await;
    assert_eq!((alarm(&cluster, leader), group.halted()), (None, None));
    group.hear((about, link), &lie);
    eventually(PATIENCE, "it is heard of that one", || alarm(&cluster, leader)).await;
}

/// A disk that goes back to what it held before, as one does that lies about syncing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_lost_what_it_had_acknowledged_is_told_and_given_up() {
    let mut cluster = Cluster::new(3).await;
    cluster.found(GROUP, &NODES).await;
    let leader = cluster.leader(GROUP, &NODES).await;
    let leading = cluster.group(leader, GROUP);
    fill(&leading, 0..20).await;
    let victim = leader % 3 + 1;
    cluster.holds(victim, GROUP, 0, 20).await;
    cluster.close_node(victim).await;
    let old = cluster.keep_data(victim);
    cluster.start_node(victim).await;
    cluster.start(victim, GROUP, Begin::Resume).await;
    fill(&leading, 20..40).await;
    cluster.holds(victim, GROUP, 0, 40).await;
    tokio::time::sleep(TWICE).await;
    cluster.kill(victim);
    cluster.restore_data(victim, &old);

    // Nobody writes to it meanwhile: what it forgot must not come back before it was noticed.
    cluster.start_node(victim).await;
    let forgetful = Arc::new(cluster.start(victim, GROUP, Begin::Resume).await);
    let damage = eventually(PATIENCE, "it is given up", || forgetful.damage()).await;
    assert!(damage.contains(&format!("replica {} on node {victim}", replica(victim).id)), "{damage}");
    fill(&leading, 40..50).await;
}
