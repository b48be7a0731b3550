//! Links by themselves: who gets one, what is cast over them, how they end.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::cluster::*;
use crate::data_dir::ClusterId;
use crate::log::tests::node::PATIENCE;
use crate::network::{LinkState, Peers, TcpDialer};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_cast_arrives_in_order_and_the_next_life_of_a_node_is_told_from_the_last() {
    let mut cluster = Cluster::new(3).await;
    let mut casts = cluster.registry(1).peers().casts();
    let states = |cluster: &Cluster| -> BTreeMap<u64, LinkState> { cluster.registry(1).peers().links().borrow().clone() };
    for n in 0..2_000_u32 {
        assert!(cluster.registry(2).peers().cast(1, Bytes::copy_from_slice(&n.to_be_bytes())));
    }
    for n in 0..2_000_u32 {
        let (from, message) = tokio::time::timeout(PATIENCE, casts.recv()).await.unwrap().unwrap();
        assert_eq!((from, message.as_ref()), (2, n.to_be_bytes().as_slice()));
    }
    let before = states(&cluster);
    cluster.kill(2);
    let mut links = cluster.registry(1).peers().links();
    tokio::time::timeout(SOON, links.wait_for(|up| !up.contains_key(&2))).await.unwrap().unwrap();
    assert!(!cluster.registry(1).peers().cast(2, Bytes::new()) && !cluster.registry(1).peers().is_up(2));
    cluster.start_node(2).await;
    cluster.linked().await;
    let after = states(&cluster);
    assert!(after[&2].number != before[&2].number && after[&2].boot > before[&2].boot, "{before:?} {after:?}");
    assert_eq!(after[&3], before[&3]);

    // The connection breaks, the process lives.
    cluster.line(2, 1).cut();
    tokio::time::timeout(SOON, links.wait_for(|up| !up.contains_key(&2))).await.unwrap().unwrap();
    cluster.line(2, 1).mend();
    cluster.linked().await;
    let again = states(&cluster);
    assert!(again[&2].number != after[&2].number && again[&2].boot == after[&2].boot, "{after:?} {again:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_known_or_of_another_cluster_gets_no_link() {
    let cluster = Cluster::new(2).await;
    let peers = cluster.registry(1).peers().clone();
    let strangers = Peers::new(9, ClusterId([8; 16]), Arc::new(TcpDialer));
    let unknown = Peers::new(9, CLUSTER, Arc::new(TcpDialer));
    let misled = Peers::new(2, CLUSTER, Arc::new(TcpDialer));
    for (greeting, reason) in [
        (strangers.hello(1), "belongs to cluster"),
        (unknown.hello(1), "does not know node 9"),
        (misled.hello(7), "looks for node 7"),
    ] {
        let refused = peers.greeted(&greeting).unwrap_err();
        assert!(refused.to_string().contains(reason), "{refused}");
    }
    assert!(peers.greeted(&misled.hello(1)).is_ok());

    // Who is taken off the list loses its link.
    let mut links = peers.links();
    cluster.on(1, async move { peers.set(BTreeMap::new()) }).await;
    tokio::time::timeout(SOON, links.wait_for(BTreeMap::is_empty)).await.unwrap().unwrap();
}
