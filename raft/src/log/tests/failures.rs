//! Disks that fail, lie and rot.

use super::node::*;
use crate::disk::Disk;
use crate::group::ReadError;
use crate::registry::{Begin, StartError};
use crate::segments::segments_dir;
use crate::types::{GroupId, Item};

const GROUP: GroupId = GroupId(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_is_final_and_nothing_is_acknowledged_that_is_not_durable() {
    for fails_in in 0..6 {
        let mut node = Node::new(fails_in);
        let group = node.start(GROUP, &[REPLICA]).await;
        fill(&group, 0..10).await;
        node.disk.faults(|faults| faults.sync_fails_in = Some(fails_in));
        let mut acknowledged = 10;
        loop {
            let item = Item { kind: KEEP, payload: payload(acknowledged).into() };
            match group.propose(item).await {
                Ok(_) => acknowledged += 1,
                Err(_) => break,
            }
            // The file that is created aside may have met it: that is tried again, and no failure of the journal.
            node.disk.faults(|faults| _ = faults.sync_fails_in.get_or_insert(0));
        }
        assert!(node.registry().failure().wait().await.contains("journal"));
        let later = group.propose(Item { kind: KEEP, payload: payload(0).into() }).await;
        assert!(later.is_err(), "a failed store must not acknowledge");
        drop(group);

        node.power_cut();
        let group = node.start(GROUP, &[REPLICA]).await;
        let found = kept(&group, 0).await;
        assert_eq!(found[..acknowledged as usize], expected(0..acknowledged));
        assert!(found.len() as u64 <= acknowledged + 1, "only the one with an unknown outcome may be there, too");
    }
}

/// The tests of crashes can fail: they notice a disk that only pretends to sync.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_lies_loses_what_was_acknowledged() {
    let mut node = Node::new(5);
    let group = node.start(GROUP, &[REPLICA]).await;
    fill(&group, 0..10).await;
    node.disk.faults(|faults| (faults.lying_sync, faults.writeback_ppm) = (true, 0));
    fill(&group, 10..200).await;
    drop(group);
    node.disk.faults(|faults| faults.lying_sync = false);
    node.power_cut();
    match node.registry().start(GROUP, REPLICA.id, Box::new(Ledger::default()), None, Begin::Initialize(vec![REPLICA])).await {
        Err(refused) => assert!(matches!(refused, StartError::Damaged { .. }), "{refused}"),
        Ok(group) => {
            group.wait_ready(PATIENCE).await.unwrap();
            assert!(kept(&group, 0).await.len() < 200);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_in_one_group_is_named_and_the_others_serve() {
    let mut node = Node::new(4);
    let mut dirs = Vec::new();
    for id in 1..=3 {
        let group = node.start(GroupId(id), &[REPLICA]).await;
        fill(&group, 0..100).await;
        dirs.push(segments_dir(&node.groups_dir(), group.id(), group.log().incarnation()));
    }
    node.restart().await;
    let files = node.disk.list(&dirs[0]).unwrap();
    let segment = files.iter().find(|path| path.extension().is_some_and(|extension| extension == "segment")).unwrap();
    node.disk.flip_bits(segment, 500..501, 1).unwrap();
    node.disk.flip_bits(&dirs[1].join("log-start"), 9..10, 1).unwrap();

    let refused = node
        .registry()
        .start(GroupId(2), REPLICA.id, Box::new(Ledger::default()), None, Begin::Initialize(vec![REPLICA]))
        .await
        .unwrap_err();
    assert!(matches!(&refused, StartError::Damaged { reason, .. } if reason.contains("log-start")), "{refused}");
    match node.registry().start(GroupId(1), REPLICA.id, Box::new(Ledger::default()), None, Begin::Initialize(vec![REPLICA])).await
    {
        Err(refused) => assert!(matches!(refused, StartError::Damaged { .. }), "{refused}"),
        Ok(group) => {
            let before = group.read(0, 1 << 20).await.unwrap();
            let damaged = before.last().unwrap().kept.base_offset + 1;
            assert!(damaged < 100, "what lies before the damage is whole, and nothing else is served");
            let error = group.read(damaged, 1 << 20).await.unwrap_err();
            assert!(matches!(error, ReadError::Segment(_)), "{error}");
        }
    }
    let third = node.start(GroupId(3), &[REPLICA]).await;
    assert_eq!(kept(&third, 0).await, expected(0..100));
    assert_eq!(propose(&third, KEEP, payload(100)).await, 101);
}
