//! Groups of one node: propose, read, stop, start, remove; retention.

use super::node::*;
use crate::disk::Disk;
use crate::segments::segments_dir;
use crate::types::GroupId;

const GROUP: GroupId = GroupId(7);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_is_there_after_every_kind_of_restart() {
    let mut node = Node::new(1);
    let group = node.start(GROUP, &[REPLICA]).await;
    fill(&group, 0..200).await;
    assert_eq!(kept(&group, 0).await, expected(0..200));
    drop(group);

    node.restart().await;
    let group = node.start(GROUP, &[REPLICA]).await;
    assert_eq!(kept(&group, 0).await, expected(0..200));
    assert_eq!(propose(&group, FORGET, payload(0)).await, 200, "what is dropped takes no offset");
    fill(&group, 200..300).await;
    drop(group);

    node.power_cut();
    let group = node.start(GROUP, &[REPLICA]).await;
    assert_eq!(kept(&group, 0).await, expected(0..300));
    fill(&group, 300..350).await;
    drop(group);

    node.kill();
    let group = node.start(GROUP, &[REPLICA]).await;
    assert_eq!(kept(&group, 150).await, expected(0..350)[150..]);
    assert_eq!(propose(&group, KEEP, payload(350)).await, 351);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_group_takes_nothing_with_it_and_leaves_nothing() {
    let mut node = Node::new(2);
    let (one, two) = (node.start(GroupId(1), &[REPLICA]).await, node.start(GroupId(2), &[REPLICA]).await);
    fill(&one, 0..50).await;
    fill(&two, 0..60).await;
    let dir = segments_dir(&node.groups_dir(), one.id(), one.log().incarnation());
    assert!(node.disk.list(&dir).is_ok());
    node.registry().remove(GroupId(1)).await.unwrap();
    assert!(node.rows(&one).is_empty());
    assert!(node.disk.list(&dir).is_err());
    drop(one);
    fill(&two, 60..70).await;
    drop(two);

    node.power_cut();
    assert_eq!(node.registry().idle_groups(), [GroupId(2)]);
    let two = node.start(GroupId(2), &[REPLICA]).await;
    assert_eq!(kept(&two, 0).await, expected(0..70));
    let one = node.start_later(GroupId(1)).await;
    assert_eq!(propose(&one, KEEP, payload(0)).await, 1, "another replica begins with nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_removes_whole_segments_for_good() {
    let mut node = Node::new(3);
    let group = node.start(GROUP, &[REPLICA]).await;
    fill(&group, 0..400).await;
    drop(group);
    node.restart().await;
    let group = node.start(GROUP, &[REPLICA]).await;
    fill(&group, 400..420).await;
    propose(&group, RELEASE, 300_u64.to_be_bytes().to_vec()).await;
    assert!(group.release_below(300).await.unwrap() > 0);
    let first = group.segments()[0].first_offset.unwrap();
    assert!((250..=300).contains(&first), "{first}");
    assert_eq!(kept(&group, 300).await, expected(0..420)[300..]);
    fill(&group, 420..430).await;
    drop(group);

    node.power_cut();
    let group = node.start(GROUP, &[REPLICA]).await;
    assert_eq!(group.segments()[0].first_offset, Some(first));
    assert_eq!(kept(&group, 300).await, expected(0..430)[300..]);
    assert_eq!(propose(&group, KEEP, payload(430)).await, 431);
}
