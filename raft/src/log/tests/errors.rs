//! Errors of single operations, once and for a while: nothing is lost by them, nothing is called damaged that is whole, and what
//! waits goes on by itself.

use std::path::PathBuf;
use std::time::Duration;

use super::node::*;
use crate::disk::Disk;
use crate::disk::error::{ATTEMPTS, Class, Operation};
use crate::disk::sim::{Injection, code};
use crate::group::{Group, ReadError};
use crate::segments::{SegmentError, segments_dir};
use crate::troubles::{Subject, Troubles};
use crate::types::GroupId;

const GROUP: GroupId = GroupId(1);
/// Places at which a start meets an error, for each operation.
const STARTS: u64 = 5;
const RETENTION: Subject = Subject::Retention(GROUP);
const SEGMENTS: Subject = Subject::Segments(GROUP);

/// A node whose group has the items `0..count`.
async fn filled(seed: u64, count: u64) -> (Node, Group) {
    let node = Node::new(seed);
    let group = node.start(GROUP, &[REPLICA]).await;
    fill(&group, 0..count).await;
    (node, group)
}

/// All is there, and nothing is wrong.
async fn whole(node: &Node, count: u64, what: &str) {
    assert!(node.registry().damage().is_empty(), "{what}: {:?}", node.registry().damage());
    let group = node.start(GROUP, &[REPLICA]).await;
    assert!(kept(&group, 0).await == expected(0..count), "{what}: records are missing");
    assert_eq!(node.registry().troubles().now(), [], "{what}");
}

async fn over(troubles: &Troubles) {
    let mut now = troubles.watch();
    tokio::time::timeout(PATIENCE, now.wait_for(|now| now.is_empty())).await.expect("it heals by itself").unwrap();
}

fn files(node: &Node, group: &Group, extension: &str) -> Vec<PathBuf> {
    let dir = segments_dir(&node.groups_dir(), GROUP, group.log().incarnation());
    let files = node.disk.list(&dir).unwrap();
    files.into_iter().filter(|path| path.extension().is_some_and(|found| found == extension)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_error_while_a_node_starts_changes_nothing() {
    const COUNT: u64 = 60;
    const MANY: u64 = 1 << 40;
    let (mut node, group) = filled(1, COUNT).await;
    drop(group);
    for (operation, code) in [
        (Operation::Read, code::EIO),
        (Operation::Read, code::MISREAD),
        (Operation::Open, code::EMFILE),
        (Operation::Length, code::EIO),
        (Operation::List, code::ENOMEM),
        (Operation::Create, code::EIO),
        (Operation::CreateDir, code::EINTR),
    ] {
        // What segments have wrong is another matter: it is not looked at twice.
        let file = if code == code::MISREAD { ".journal" } else { "" };
        let injection = Injection::new(operation, code).on(file);
        node.stay_killed();
        node.disk.inject(injection.clone().after(MANY));
        node.try_open().unwrap();
        whole(&node, COUNT, "without an error").await;
        let operations = MANY - node.disk.faults(|faults| faults.injections.remove(0).after);
        if operations == 0 {
            // Whether a start creates a file depends on what it finds.
            continue;
        }
        // The first, the last, and some between.
        for place in 0..=STARTS.min(operations - 1) {
            node.stay_killed();
            node.disk.inject(injection.clone().after((operations - 1) * place / STARTS.min(operations - 1).max(1)));
            let what = format!("{operation:?} {place} of {operations} with {code}");
            node.try_open().unwrap_or_else(|error| panic!("{what}: {error}"));
            whole(&node, COUNT, &what).await;
            node.disk.faults(|faults| faults.injections.clear());
        }
    }
    assert!(node.disk.faults(|faults| faults.injected) > 20);
}

/// The last batch is not proven by another one: an error that is taken for its absence loses what was acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreadable_journal_is_not_taken_for_one_that_has_ended_or_is_damaged() {
    const COUNT: u64 = 100;
    let (mut node, group) = filled(2, COUNT).await;
    drop(group);
    node.stay_killed();
    for code in [code::EIO, code::EMFILE] {
        for operation in [Operation::Read, Operation::Open] {
            node.disk.inject(Injection::new(operation, code).on(".journal").forever());
            let refused = node.try_open().expect_err("it must not start without what it cannot read").to_string();
            assert!(refused.contains(".journal") && refused.contains("nothing was changed"), "{refused}");
            assert_eq!(refused.contains("ulimit"), code == code::EMFILE, "{refused}");
            node.disk.faults(|faults| faults.injections.clear());
        }
    }
    node.try_open().unwrap();
    whole(&node, COUNT, "when it can be read again").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_device_cannot_read_of_a_segment_is_damage_of_that_group() {
    const COUNT: u64 = 200;
    let (mut node, group) = filled(3, COUNT).await;
    drop(group);
    node.restart().await;
    let group = node.start(GROUP, &[REPLICA]).await;
    let bad = files(&node, &group, "segment")[1].clone();
    node.disk.inject(Injection::new(Operation::Read, code::EIO).on(bad.to_string_lossy()).times(u64::from(ATTEMPTS) - 1));
    assert!(kept(&group, 0).await == expected(0..COUNT), "it passed");
    assert_eq!((group.damage(), node.registry().troubles().now()), (None, vec![]));
    node.disk.inject(Injection::new(Operation::Read, code::EMFILE).on(bad.to_string_lossy()).times(u64::from(ATTEMPTS)));
    while group.read(0, 1 << 20).await.is_ok() && node.disk.faults(|faults| !faults.injections.is_empty()) {
        let _ = group.read(40, 1 << 20).await;
    }
    assert_eq!(group.damage(), None, "that says nothing of the data");
    node.disk.inject(Injection::new(Operation::Read, code::EIO).on(bad.to_string_lossy()).within(1000..1512).forever());
    let (mut offset, mut failed) = (0, None);
    while failed.is_none() {
        match group.read(offset, 1 << 10).await {
            Ok(items) => offset = items.last().unwrap().kept.base_offset + 1,
            Err(error) => failed = Some(error),
        }
    }
    assert!(matches!(failed, Some(ReadError::Segment(SegmentError::Damaged(_)))), "{failed:?}");
    assert!(group.damage().expect("so that it heals").contains("cannot read"));
    let trouble = node.registry().troubles().of(Subject::Group(GROUP)).unwrap();
    assert_eq!((trouble.class, trouble.file), (Class::Damage, Some(bad)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_goes_on_when_there_is_space_again() {
    const COUNT: u64 = 200;
    for (operation, file, code, class) in [
        (Operation::Create, "log-start.tmp", code::ENOSPC, Class::Full),
        (Operation::Write, "log-start.tmp", code::EDQUOT, Class::Full),
        (Operation::Remove, ".segment", code::EIO, Class::Passing),
    ] {
        let (node, group) = filled(4, COUNT).await;
        group.roll_if_older(i64::MAX).await.unwrap();
        let before = files(&node, &group, "segment").len();
        assert_eq!(propose(&group, RELEASE, 150_u64.to_be_bytes().to_vec()).await, COUNT);
        let times = if class == Class::Full { 2 } else { u64::from(ATTEMPTS) * 2 };
        node.disk.inject(Injection::new(operation, code).on(file).times(times));
        group.release_below(150).await.unwrap_err();
        let troubles = node.registry().troubles();
        let trouble = troubles.of(RETENTION).expect("it is said");
        assert_eq!(trouble.class, class, "{trouble:?}");
        assert!(trouble.file.unwrap().to_string_lossy().contains(file) && trouble.message.contains("; "), "{}", trouble.message);
        over(troubles).await;
        assert!(files(&node, &group, "segment").len() < before, "the space is free");
        assert_eq!(node.registry().failure().get(), None);
        // And again, from here on.
        assert_eq!(propose(&group, RELEASE, 190_u64.to_be_bytes().to_vec()).await, COUNT);
        group.release_below(190).await.unwrap();
        assert!(kept(&group, 190).await == expected(190..COUNT));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_applied_waits_for_space_and_nothing_is_lost() {
    const COUNT: u64 = 200;
    for (operation, code, times) in [
        (Operation::Write, code::ENOSPC, 2),
        (Operation::Create, code::EDQUOT, 2),
        (Operation::Create, code::EMFILE, u64::from(ATTEMPTS) * 2),
    ] {
        let (mut node, group) = filled(5, COUNT).await;
        node.disk.inject(Injection::new(operation, code).on(".segment").after(2).times(times));
        group.roll_if_older(i64::MAX).await.unwrap_err();
        let troubles = node.registry().troubles().clone();
        assert!(troubles.of(SEGMENTS).is_some());
        assert!(kept(&group, 0).await == expected(0..COUNT), "reads go on");
        over(&troubles).await;
        group.roll_if_older(i64::MAX).await.unwrap();
        assert!(kept(&group, 0).await == expected(0..COUNT));
        drop(group);
        node.restart().await;
        whole(&node, COUNT, "after a restart").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_journal_waits_for_its_next_file() {
    const COUNT: u64 = 2_000;
    let (mut node, group) = filled(6, 1).await;
    let troubles = node.registry().troubles().clone();
    let mut now = troubles.watch();
    let seen = tokio::spawn(async move {
        let found = now.wait_for(|now| now.contains_key(&Subject::Journal)).await;
        found.map(|found| found[&Subject::Journal].class).unwrap()
    });
    for operation in [Operation::Create, Operation::Open] {
        node.disk.inject(Injection::new(operation, code::EDQUOT).on(".journal").times(8));
    }
    fill(&group, 1..COUNT).await;
    assert_eq!(tokio::time::timeout(Duration::from_secs(60), seen).await.unwrap().unwrap(), Class::Full);
    over(&troubles).await;
    assert_eq!(node.registry().failure().get(), None);
    drop(group);
    node.kill();
    whole(&node, COUNT, "after a kill").await;
}
