//! Errors at each operation of a start, a restart, a renewal: afterwards the group runs with everything that it had, or is down,
//! says why, and runs with everything once the error is gone. It is never empty.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use super::node::*;
use crate::disk::Disk;
use crate::disk::error::Operation;
use crate::disk::sim::{Injection, code};
use crate::group::Group;
use crate::machine::{Applied, Machine, RestoreError, Row, Rows};
use crate::registry::{Begin, Cause, StartError};
use crate::types::{Body, Entry, GroupId, Item, LogId};

const GROUP: GroupId = GroupId(1);
const KEPT: u64 = 40;
/// In segments before that.
const FLUSHED: u64 = 30;

/// A node whose group has something in segments, and something that is in the journal alone.
async fn filled(seed: u64) -> Node {
    let mut node = Node::new(seed);
    fill(&node.start(GROUP, &[REPLICA]).await, 0..FLUSHED).await;
    node.restart().await;
    fill(&node.start(GROUP, &[REPLICA]).await, FLUSHED..KEPT).await;
    node
}

async fn start(node: &Node) -> Result<Group, StartError> {
    node.registry().start(GROUP, REPLICA.id, Box::new(Ledger::default()), None, Begin::Initialize(vec![REPLICA])).await
}

/// Whether an error was met; there are none any more.
fn clear(node: &Node) -> bool {
    node.disk.faults(|faults| {
        faults.injections.clear();
        std::mem::take(&mut faults.injected) > 0
    })
}

async fn is_whole(group: &Group, what: &str) {
    group.wait_ready(PATIENCE).await.unwrap();
    assert_eq!(kept(group, 0).await, expected(0..KEPT), "{what}");
}

/// The error is gone, and the group is brought up again: in the same process, unless storage as a whole failed.
async fn comes_back(node: &mut Node, what: &str) {
    let outage = node.registry().outage(GROUP).unwrap_or_else(|| panic!("{what}: nobody says that it is down"));
    assert!(!outage.reason.is_empty(), "{what}");
    if node.registry().failure().get().is_some() || outage.cause != Cause::Passing {
        node.kill();
    }
    let group = start(node).await.unwrap_or_else(|error| panic!("{what}: {error}"));
    is_whole(&group, what).await;
    drop(group);
    node.power_cut();
    is_whole(&start(node).await.unwrap(), what).await;
}

/// Whether an error was met on the way to `brought_up`. In either case nothing is lost.
async fn met_and_survived(node: &mut Node, brought_up: Result<Group, StartError>, what: &str) -> bool {
    let met = clear(node);
    match brought_up {
        // What it met on its way did not stop it; what it met afterwards may have stopped the journal.
        Ok(group) if node.registry().failure().get().is_none() => is_whole(&group, what).await,
        Ok(_) => node.kill(),
        Err(_) => comes_back(node, what).await,
    }
    met
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_meets_an_error_loses_nothing() {
    let mut met_at = 0;
    for operation in Operation::ALL {
        for after in 0.. {
            let mut node = filled(after).await;
            node.kill();
            node.disk.inject(Injection::new(operation, code::EACCES).on("/groups").after(after).forever());
            let started = start(&node).await;
            let what = format!("{operation:?} after {after}: {started:?}");
            if !met_and_survived(&mut node, started, &what).await {
                break;
            }
            met_at += 1;
        }
    }
    assert!(met_at > 10, "too few operations failed: {met_at}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_that_meets_an_error_loses_nothing() {
    let mut met_at = 0;
    for operation in Operation::ALL {
        for after in 0.. {
            let mut node = filled(after).await;
            node.disk.inject(Injection::new(operation, code::EACCES).on("/groups").after(after).forever());
            let restarted = node.registry().restart(GROUP, Box::new(Ledger::default()), None).await;
            let what = format!("{operation:?} after {after}: {restarted:?}");
            if !met_and_survived(&mut node, restarted, &what).await {
                break;
            }
            met_at += 1;
        }
    }
    assert!(met_at > 10, "too few operations failed: {met_at}");
}

/// Two errors that do not come together: the first while the group is stopped, the second when it is started.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_cannot_be_given_back_is_not_new() {
    let mut node = filled(3).await;
    node.disk.inject(Injection::new(Operation::Sync, code::EIO).on(".segment"));
    let restarted = node.registry().restart(GROUP, Box::new(Ledger::default()), None).await;
    assert!(restarted.is_err());
    for _ in 0..3 {
        assert!(start(&node).await.is_err(), "it is not started from what is not on the disk");
    }
    assert!(node.registry().outage(GROUP).is_some());
    comes_back(&mut node, "after a sync that failed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_was_not_created_is_created_later() {
    for operation in Operation::ALL {
        for after in 0.. {
            let mut node = Node::new(after);
            node.disk.inject(Injection::new(operation, code::EACCES).on("/groups").after(after).forever());
            let started = start(&node).await;
            let what = format!("{operation:?} after {after}: {started:?}");
            let met = clear(&node);
            if started.is_err() {
                assert!(node.registry().outage(GROUP).is_some(), "{what}");
            }
            if node.registry().failure().get().is_some() {
                node.kill();
            }
            let group = match started {
                Ok(group) if node.registry().group(GROUP).is_some() => group,
                _ => start(&node).await.unwrap_or_else(|error| panic!("{what}: {error}")),
            };
            group.wait_ready(PATIENCE).await.unwrap();
            assert_eq!(propose(&group, KEEP, payload(0)).await, 1, "{what}");
            if !met {
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewal_that_meets_an_error_is_made_again() {
    let places = ["/groups", "/damaged"];
    for (operation, place) in Operation::ALL.into_iter().flat_map(|operation| places.map(|place| (operation, place))) {
        for after in 0.. {
            let mut node = filled(after).await;
            node.registry().condemn(GROUP, "a bit is wrong".into()).await.unwrap();
            node.disk.inject(Injection::new(operation, code::EACCES).on(place).after(after).forever());
            let renewed = node.registry().set_aside(GROUP).await;
            let what = format!("{operation:?} in {place} after {after}: {renewed:?}");
            let met = clear(&node);
            if renewed.is_err() && node.registry().failure().get().is_none() {
                assert_eq!(node.registry().damage_of(GROUP).as_deref(), Some("a bit is wrong"), "{what}");
                assert!(matches!(start(&node).await, Err(StartError::Damaged { .. })), "{what}");
                node.registry().set_aside(GROUP).await.unwrap_or_else(|error| panic!("{what}: {error}"));
            } else if renewed.is_err() {
                // The journal may have it or not.
                node.kill();
                if node.registry().replica_here(GROUP).is_some() {
                    drop(start(&node).await);
                    node.registry().condemn(GROUP, "a bit is wrong".into()).await.unwrap();
                    node.registry().set_aside(GROUP).await.unwrap_or_else(|error| panic!("{what}: {error}"));
                }
            }
            assert!(start(&node).await.is_err(), "{what}: the old one is back");
            let group = node.registry().start(GROUP, LATER.id, Box::new(Ledger::default()), None, Begin::Wait).await.unwrap();
            assert_eq!((group.last_index(), group.log().vote()), (None, None), "{what}");
            let aside = node.disk.list(&node.groups_dir().with_file_name("damaged")).unwrap();
            assert!(!aside.is_empty(), "{what}: what is damaged is kept");
            if !met {
                break;
            }
        }
    }
}

/// What a log has in memory and the journal refused is not handed on: whoever goes on with it would count as having it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_journal_refused_is_not_taken_for_durable() {
    let mut node = filled(5).await;
    let group = node.registry().group(GROUP).unwrap();
    let last = group.log().last().unwrap();
    let body = Body::Items([Item { kind: KEEP, payload: vec![1; 2 << 20].into() }].into());
    let entry = Entry { log_id: LogId { index: last.index + 1, ..last }, body };
    let (tx, rx) = tokio::sync::oneshot::channel();
    group.log().append(vec![entry], move |result| drop(tx.send(result))).unwrap();
    assert!(rx.await.unwrap().is_err(), "no file of the journal holds that");
    drop(group);
    assert!(node.registry().restart(GROUP, Box::new(Ledger::default()), None).await.is_err());
    comes_back(&mut node, "after a refusal").await;
}

/// A follower that is behind gets megabytes at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_larger_than_a_file_of_the_journal_is_cut() {
    let mut node = Node::new(6);
    let (log, store) = node.registry().open_without_core(GROUP, Box::new(Ledger::default())).await;
    let entry = |index| {
        let body = Body::Items([Item { kind: KEEP, payload: vec![index as u8; 100 << 10].into() }].into());
        Entry { log_id: LogId { term: 1, index }, body }
    };
    let entries: Vec<Entry> = (0..20).map(entry).collect();
    let (tx, rx) = tokio::sync::oneshot::channel();
    log.append(entries.clone(), move |result| drop(tx.send(result))).unwrap();
    rx.await.unwrap().unwrap();
    drop((log, store));
    node.power_cut();
    let (log, _store) = node.registry().open_without_core(GROUP, Box::new(Ledger::default())).await;
    let read = (0..20).flat_map(|index| log.entries(index, index + 1).unwrap());
    assert!(read.eq(entries), "all of it is there again");
    let once = log.entries(0, 20).unwrap();
    assert!(once.len() < 20, "a follower is not sent more at once than goes into one submission");
}

/// A ledger whose apply waits while the gate is closed.
struct Gated {
    ledger: Ledger,
    gate: Arc<Gate>,
}

#[derive(Default)]
struct Gate {
    closed: Mutex<bool>,
    opened: Condvar,
    waiting: AtomicBool,
}

impl Machine for Gated {
    fn restore(&mut self, rows: Vec<Row>) -> Result<(), RestoreError> {
        self.ledger.restore(rows)
    }

    fn apply(&mut self, log_id: LogId, items: &[Item], rows: &mut dyn Rows) -> Vec<Applied> {
        let closed = self.gate.closed.lock().unwrap();
        self.gate.waiting.store(*closed, Ordering::SeqCst);
        drop(self.gate.opened.wait_while(closed, |closed| *closed).unwrap());
        self.ledger.apply(log_id, items, rows)
    }

    fn next_offset(&self) -> u64 {
        self.ledger.next_offset()
    }

    fn live_from(&self) -> u64 {
        self.ledger.live_from()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_group_that_does_not_end_is_no_second_one() {
    let node = Node::new(1);
    let gate = Arc::new(Gate::default());
    let machine = Gated { ledger: Ledger::default(), gate: gate.clone() };
    let group =
        node.registry().start(GROUP, REPLICA.id, Box::new(machine), None, Begin::Initialize(vec![REPLICA])).await.unwrap();
    group.wait_ready(PATIENCE).await.unwrap();
    fill(&group, 0..KEPT - 1).await;
    *gate.closed.lock().unwrap() = true;
    let item = Item { kind: KEEP, payload: payload(KEPT - 1).into() };
    let ticket = group.admit(item.payload.len()).await.unwrap().submit(item);
    while !gate.waiting.load(Ordering::SeqCst) {
        tokio::task::yield_now().await;
    }
    for _ in 0..2 {
        let restarted = node.registry().restart(GROUP, Box::new(Ledger::default()), None).await;
        assert!(restarted.unwrap_err().to_string().contains("still being stopped"));
        assert!(start(&node).await.unwrap_err().to_string().contains("still being stopped"));
        assert!(node.registry().remove(GROUP).await.unwrap_err().to_string().contains("still being stopped"));
        assert_eq!(node.registry().outage(GROUP).unwrap().cause, Cause::Passing);
    }
    let mut changes = node.registry().leader_changes();
    let _ = node.registry().take_changed();
    changes.borrow_and_update();
    *gate.closed.lock().unwrap() = false;
    gate.opened.notify_all();
    while !node.registry().take_changed().contains(&GROUP) {
        tokio::time::timeout(PATIENCE, changes.changed()).await.expect("its end is told").unwrap();
    }
    drop(ticket);
    let group = start(&node).await.unwrap();
    is_whole(&group, "what was being applied was durable").await;
}
