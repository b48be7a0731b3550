//! Snapshots between two nodes: streams that break, crashes at every step, data that is not what it should be.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod crashes;
mod streams;
mod switching;

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use openraft::storage::{RaftStateMachine, SnapshotMeta};

use super::{Chunk, Cursor, IncomingSnapshot, OutgoingSnapshot, ReceivedSnapshot, SnapshotData, SnapshotHead};
use crate::group::Group;
use crate::log::convert::{decode_membership, log_id_to_raft};
use crate::log::group_log::GroupLog;
use crate::log::machine_store::MachineStore;
use crate::log::tests::node::*;
use crate::types::GroupId;

const GROUP: GroupId = GroupId(9);
/// Small, so that a stream has many chunks.
const CHUNK_BYTES: usize = 700;

/// A whole snapshot as it goes over the wire.
struct Stream {
    head: SnapshotHead,
    chunks: Vec<Bytes>,
}

async fn pin(group: &Group) -> OutgoingSnapshot {
    group.pin_snapshot().await.unwrap().unwrap().chunked(CHUNK_BYTES)
}

async fn stream(group: &Group) -> Stream {
    let mut outgoing = pin(group).await;
    let mut chunks = Vec::new();
    while let Some(chunk) = outgoing.next().await.unwrap() {
        chunks.push(chunk);
    }
    Stream { head: outgoing.head().clone(), chunks }
}

fn receive(log: &GroupLog, stream: &Stream) -> io::Result<ReceivedSnapshot> {
    let mut incoming = IncomingSnapshot::begin(log, stream.head.clone())?;
    for chunk in &stream.chunks {
        incoming.accept(chunk.clone())?;
    }
    incoming.finish()
}

/// As openraft does it, without its timers.
async fn install(store: &mut MachineStore, received: ReceivedSnapshot) -> io::Result<()> {
    let SnapshotHead { last, membership, .. } = received.head().clone();
    let meta = SnapshotMeta { last_log_id: Some(log_id_to_raft(last)), last_membership: decode_membership(&membership)? };
    store.install_snapshot(&meta, SnapshotData::Received(Box::new(received))).await
}

async fn storage(node: &Node) -> (Arc<GroupLog>, MachineStore) {
    node.registry().open_without_core(GROUP, Box::new(Ledger::default())).await
}

/// Starts the group of a node that has received a snapshot in which it is the only voter.
async fn lead(node: &Node) -> Group {
    let group = node.start(GROUP, &[]).await;
    group.wait_ready(PATIENCE).await.unwrap();
    group
}

/// The rows that [`Ledger`] has after the payloads `0..count`, with `live_from` as released.
fn rows_after(count: u64, live_from: u64) -> Vec<(Vec<u8>, Vec<u8>)> {
    let number = |n: u64| n.to_be_bytes().to_vec();
    let meta = [(b"\x01live".to_vec(), number(live_from)), (b"\x01next".to_vec(), number(count))];
    let sizes = (0..count).map(|n| ([&[2], number(n).as_slice()].concat(), number(payload(n).len() as u64)));
    meta.into_iter().chain(sizes).collect()
}

async fn release(group: &Group, live_from: u64) {
    propose(group, RELEASE, live_from.to_be_bytes().to_vec()).await;
}

/// What it takes to see whether two nodes hold the same.
async fn content(node: &Node, group: &Group, live_from: u64) -> (Vec<(Vec<u8>, Vec<u8>)>, Vec<(u64, Bytes)>) {
    (node.rows(group), kept(group, live_from).await)
}

fn decoded(stream: &Stream) -> Vec<Chunk> {
    stream.chunks.iter().map(|chunk| Chunk::decode(chunk.clone()).unwrap()).collect()
}
