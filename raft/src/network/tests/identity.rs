//! A replica is not its node: what is meant for one that was here is not for the one that is here now, and one that was removed
//! is not heard.

use std::collections::BTreeMap;

use flotilla_proto::internal::v1 as pb;
use flotilla_proto::internal::v1::frame::Kind;

use super::cluster::*;
use super::hostile::answer;
use crate::log::tests::node::{KEEP, Ledger, PATIENCE, fill, payload};
use crate::registry::Begin;
use crate::roster::Roster;
use crate::types::{Item, NodeId, Replica, ReplicaId};

fn cut(cluster: &Cluster, one: NodeId, other: NodeId) {
    cluster.line(one, other).cut();
    cluster.line(other, one).cut();
}

fn mend(cluster: &Cluster, one: NodeId, other: NodeId) {
    cluster.line(one, other).mend();
    cluster.line(other, one).mend();
}

async fn unlinked(cluster: &Cluster, one: NodeId, other: NodeId) {
    let mut links = cluster.registry(one).peers().links();
    let gone = links.wait_for(|up| !up.contains_key(&other));
    tokio::time::timeout(PATIENCE, gone).await.expect("the link breaks").unwrap();
}

/// Node 1 leads in a term in which it has not heard from node 3, and is cut off. The others go on without it, node 3 lets its copy
/// go, and gets another one, empty so far, when node 1 reaches it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deposed_leader_is_not_acknowledged_by_a_replica_that_came_later() {
    let cluster = Cluster::new(5).await;
    cluster.found(GROUP, &[1, 2, 3]).await;
    let first = cluster.leader(GROUP, &[1, 2, 3]).await;
    fill(&cluster.group(first, GROUP), 0..10).await;
    for id in [1, 2, 3] {
        cluster.holds(id, GROUP, 0, 10).await;
    }
    if first != 2 {
        cluster.group(first, GROUP).transfer_leader(replica(2).id).await.unwrap();
        eventually(SOON, "node 2 leads", || cluster.group(2, GROUP).is_leader().then_some(())).await;
    }
    cut(&cluster, 1, 3);
    unlinked(&cluster, 1, 3).await;
    cluster.group(2, GROUP).transfer_leader(replica(1).id).await.unwrap();
    let deposed = cluster.group(1, GROUP);
    eventually(SOON, "node 1 leads", || deposed.is_leader().then_some(())).await;
    deposed.read_barrier().await.unwrap();
    for other in [2, 4, 5] {
        cut(&cluster, 1, other);
        unlinked(&cluster, other, 1).await;
    }
    let second = cluster.leader_within(GROUP, &[2, 3], SOON).await;
    let leading = cluster.group(second, GROUP);
    fill(&leading, 10..20).await;

    for id in [4, 5] {
        cluster.start(id, GROUP, Begin::Wait).await;
        leading.add_learner(replica(id)).await.unwrap();
        cluster.holds(id, GROUP, 0, 20).await;
    }
    leading.change_voters(ids([2, 4, 5])).await.unwrap();
    let leader = cluster.leader_within(GROUP, &[2, 4, 5], SOON).await;
    let registry = cluster.registry(3);
    cluster.on(3, async move { registry.remove(GROUP).await.unwrap() }).await;
    let later = Replica { id: ReplicaId(23), node: 3 };
    let later = cluster.start_replica(later, GROUP, Begin::Wait, Box::new(Ledger::default())).await;

    mend(&cluster, 1, 3);
    let mut links = cluster.registry(1).peers().links();
    tokio::time::timeout(PATIENCE, links.wait_for(|up| up.contains_key(&3))).await.expect("the link is back").unwrap();
    assert!(deposed.is_leader(), "it does not know better");
    let unsafe_record = deposed.propose(Item { kind: KEEP, payload: payload(99).into() });
    let outcome = tokio::time::timeout(SOON, unsafe_record).await;
    assert!(!matches!(outcome, Ok(Ok(_))), "a record is acknowledged that no majority has");
    assert_eq!((later.last_index(), later.leader()), (None, None), "it heard of it");

    for other in [2, 4, 5] {
        mend(&cluster, 1, other);
    }
    cluster.linked().await;
    let leading = cluster.group(leader, GROUP);
    leading.add_learner(Replica { id: later.replica(), node: 3 }).await.unwrap();
    fill(&leading, 20..30).await;
    for id in [2, 3, 4, 5] {
        cluster.holds(id, GROUP, 0, 30).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_meant_and_who_speaks_decide_about_every_question() {
    let mut cluster = Cluster::new(3).await;
    cluster.found(GROUP, &[1, 2, 3]).await;
    let leader = cluster.leader(GROUP, &[1, 2, 3]).await;
    fill(&cluster.group(leader, GROUP), 0..10).await;
    cluster.holds(1, GROUP, 0, 10).await;
    let hello = pb::Hello { boot: 99, ..cluster.registry(2).peers().hello(1) };
    cluster.kill(2);
    let here = cluster.group(1, GROUP);
    let vote = |from: ReplicaId, committed| Some(pb::Vote { term: 2, voted_for: from.0, committed });
    let kinds = |from: ReplicaId| {
        let asked = pb::VoteRequest { vote: vote(from, false), last: None, leadership_transfer: false };
        let append = pb::Append { vote: vote(from, true), ..pb::Append::default() };
        let transfer = pb::TransferLeader { from_leader: vote(from, true), to_replica: here.replica().0, last: None };
        let stream = pb::Append { stream_id: 1, ..append.clone() };
        [Kind::Vote(asked), Kind::PreVote(asked), Kind::Append(append), Kind::Append(stream), Kind::TransferLeader(transfer)]
    };
    let cases = BTreeMap::from([
        ("replica 11 does", (ReplicaId(12), ReplicaId(1))),
        ("lives on node 3", (ReplicaId(13), here.replica())),
        ("was removed", (ReplicaId(9), here.replica())),
    ]);
    here.learn_roster(Roster { next: ReplicaId(14), named: [11, 12, 13].map(ReplicaId).into() });
    for (reason, (from, to)) in cases {
        for kind in kinds(from) {
            let said = format!("{kind:?}");
            match answer(&cluster, 1, to, &hello, GROUP, kind).await {
                Kind::Refused(refused) => assert!(refused.contains(reason), "{said}: {refused}"),
                other => panic!("{said}: {other:?}"),
            }
        }
    }
    // Whoever is newer than what is known may be the leader that this replica has not heard of yet.
    let heard = answer(&cluster, 1, here.replica(), &hello, GROUP, kinds(ReplicaId(14))[1].clone()).await;
    assert!(matches!(heard, Kind::VoteResponse(_)), "{heard:?}");
}
