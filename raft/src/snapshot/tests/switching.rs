//! The switch itself: what stays, what goes, and what is refused.

use futures::stream as streams;
use openraft::RaftMetrics;
use openraft::raft::AppendEntriesRequest;

use super::*;
use crate::log::convert::{entry_to_raft, vote_to_raft};
use crate::log::type_config::TypeConfig;
use crate::state::State;
use crate::types::{Entry, ReplicaId, Vote};

async fn entries(group: &Group) -> Vec<Entry> {
    let log = group.log().clone();
    let last = log.last().unwrap();
    tokio::task::spawn_blocking(move || log.entries(0, last.index + 1).unwrap()).await.unwrap()
}

async fn apply(store: &mut MachineStore, entries: &[Entry]) {
    let entries: Vec<_> = entries.iter().map(|entry| Ok((entry_to_raft(entry).unwrap(), None))).collect();
    store.apply(streams::iter(entries)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_behind_a_snapshot_stay_and_are_applied_on_top_of_it() {
    let (a, mut b) = (Node::new(1), Node::new(2));
    let source = a.start(GROUP, &[REPLICA]).await;
    fill(&source, 0..50).await;
    let stream = stream(&source).await;
    fill(&source, 50..80).await;
    let all = entries(&source).await;
    let behind = stream.head.last.index as usize + 1;

    let (log, mut store) = storage(&b).await;
    log.append(all.clone(), |result| result.unwrap()).unwrap();
    apply(&mut store, &all[..5]).await;
    install(&mut store, receive(&log, &stream).unwrap()).await.unwrap();
    assert_eq!(log.last(), source.log().last());
    assert_eq!(log.tail_first_index(), behind as u64);
    apply(&mut store, &all[behind..behind + 1]).await;
    drop((log, store));

    b.power_cut();
    let (log, mut store) = storage(&b).await;
    assert_eq!((log.last(), log.purged()), (source.log().last(), Some(stream.head.last)));
    apply(&mut store, &all[behind..]).await;
    b.state.flush().unwrap();
    drop((log, store));
    b.restart().await;
    let target = lead(&b).await;
    assert_eq!(content(&b, &target, 0).await, content(&a, &source, 0).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_is_not_ahead_changes_nothing() {
    let (a, b) = (Node::new(1), Node::new(2));
    let source = a.start(GROUP, &[REPLICA]).await;
    fill(&source, 0..20).await;
    let old = stream(&source).await;
    fill(&source, 20..40).await;
    let new = stream(&source).await;
    let (log, mut store) = storage(&b).await;
    let received = receive(&log, &old).unwrap();
    install(&mut store, receive(&log, &new).unwrap()).await.unwrap();
    let (incarnation, last) = (log.incarnation(), log.last());
    for received in [received, receive(&log, &new).unwrap()] {
        let error = install(&mut store, received).await.unwrap_err();
        assert!(error.to_string().contains("too old"), "{error}");
    }
    assert_eq!((log.incarnation(), log.last()), (incarnation, last));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_flusher_never_mixes_two_lives() {
    let (a, mut b) = (Node::new(1), Node::new(2));
    let source = a.start(GROUP, &[REPLICA]).await;
    fill(&source, 0..60).await;
    let stream = stream(&source).await;
    fill(&source, 60..100).await;
    let all = entries(&source).await;
    let (log, mut store) = storage(&b).await;
    log.append(all.clone(), |result| result.unwrap()).unwrap();
    apply(&mut store, &all[..10]).await;
    let flushing = std::thread::spawn({
        let log = log.clone();
        move || {
            while log.last().is_some_and(|last| last.term > 0) && Arc::strong_count(&log) > 1 {
                log.flush(true).unwrap();
            }
        }
    });
    install(&mut store, receive(&log, &stream).unwrap()).await.unwrap();
    apply(&mut store, &all[stream.head.last.index as usize + 1..]).await;
    drop(store);
    drop(log);
    flushing.join().unwrap();
    b.restart().await;
    let target = lead(&b).await;
    assert_eq!(kept(&target, 0).await, expected(0..100));
}

/// databendlabs/openraft#2116: a purge, which every install brings, must not overtake an apply that is queued.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_arrives_while_entries_are_applied_does_not_break_the_group() {
    const LEADER: Vote = Vote { term: 1_000, voted_for: Some(ReplicaId(2)), committed: true };
    let a = Node::new(1);
    let source = a.start(GROUP, &[REPLICA]).await;
    fill(&source, 0..100).await;
    let behind = entries(&source).await;
    fill(&source, 100..140).await;
    let stream = stream(&source).await;
    for seed in 0..10 {
        let b = Node::new(seed);
        let target = b.start(GROUP, &[]).await;
        let received = receive(target.log(), &stream).unwrap();
        let append = AppendEntriesRequest {
            vote: vote_to_raft(LEADER),
            prev_log_id: None,
            leader_commit: behind.last().map(|entry| log_id_to_raft(entry.log_id)),
            entries: behind.iter().map(|entry| entry_to_raft(entry).unwrap()).collect(),
        };
        let (appended, installed) = tokio::join!(target.raft().append_entries(append), target.install_snapshot(LEADER, received));
        assert!(appended.is_ok(), "{appended:?}");
        assert_eq!(installed.unwrap(), LEADER);
        assert_eq!(kept(&target, 0).await, expected(0..140));
        target.raft().trigger().elect(false).await.unwrap();
        let leads = |metrics: &RaftMetrics<TypeConfig>| metrics.current_leader == Some(REPLICA.id);
        target.raft().wait(Some(PATIENCE)).metrics(leads, "it leads").await.unwrap();
        fill(&target, 140..150).await;
        assert_eq!(kept(&target, 0).await, expected(0..150));
    }
}
