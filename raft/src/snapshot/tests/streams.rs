//! What goes over the wire, and what becomes of it if it is cut, repeated, mixed up or altered.

use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;

use super::*;
use crate::disk::sim::Rng;
use crate::types::{ReplicaId, Vote};

/// A leader that this node has not heard of yet.
const VOTE: Vote = Vote { term: 1_000, voted_for: Some(ReplicaId(2)), committed: true };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_of_a_busy_group_survives_broken_streams_and_its_receiver_goes_on() {
    let (a, b) = (Node::new(1), Node::new(2));
    let source = a.start(GROUP, &[REPLICA]).await;
    fill(&source, 0..120).await;
    release(&source, 30).await;
    let stop = Arc::new(AtomicBool::new(false));
    let busy = tokio::spawn({
        let (source, stop) = (source.clone(), stop.clone());
        async move {
            let mut next = 120;
            while !stop.load(Ordering::Relaxed) {
                fill(&source, next..next + 10).await;
                next += 10;
            }
            next
        }
    });
    let target = b.start(GROUP, &[]).await;
    let mut outgoing = pin(&source).await;
    let mut incoming = target.receive_snapshot(outgoing.head().clone()).await.unwrap();
    let mut rng = Rng::new(3);
    let mut cuts = [3, 20].map(|after| after + rng.below(10));
    let mut sent = 0;
    while let Some(chunk) = outgoing.next().await.unwrap() {
        sent += 1;
        if cuts.contains(&sent) {
            // The connection breaks: this chunk and the next are lost, and the receiver says where it stands.
            cuts = cuts.map(|cut| if cut == sent { 0 } else { cut });
            let _ = outgoing.next().await.unwrap();
            outgoing.resume(incoming.cursor().clone());
            continue;
        }
        incoming.accept(chunk).unwrap();
    }
    assert!(cuts == [0, 0] && sent > 30, "{sent} chunks");
    let head = incoming.head().clone();
    let received = tokio::task::spawn_blocking(move || incoming.finish().unwrap()).await.unwrap();
    assert_eq!(target.install_snapshot(VOTE, received).await.unwrap(), VOTE);
    stop.store(true, Ordering::Relaxed);
    let written = busy.await.unwrap();

    let rows = b.rows(&target);
    let count = number(&rows[1].1);
    assert!((120..=written).contains(&count), "{count} of {written}");
    assert_eq!(rows, rows_after(count, 30));
    assert_eq!(kept(&target, 30).await, expected(0..count)[30..]);
    assert_eq!(target.log().purged(), Some(head.last));

    target.raft().trigger().elect(false).await.unwrap();
    let is_leader =
        |metrics: &openraft::RaftMetrics<crate::log::type_config::TypeConfig>| metrics.current_leader == Some(REPLICA.id);
    target.raft().wait(Some(PATIENCE)).metrics(is_leader, "it leads").await.unwrap();
    fill(&target, count..count + 50).await;
    assert_eq!(kept(&target, 30).await, expected(0..count + 50)[30..]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vote_that_is_too_low_installs_nothing_and_leaves_nothing() {
    let (a, b) = (Node::new(1), Node::new(2));
    let source = a.start(GROUP, &[REPLICA]).await;
    fill(&source, 0..20).await;
    let target = b.start(GROUP, &[REPLICA]).await;
    fill(&target, 0..3).await;
    let before = target.log().incarnation();
    let received = receive(target.log(), &stream(&source).await).unwrap();
    let low = Vote { term: 0, ..VOTE };
    assert!(target.install_snapshot(low, received).await.unwrap().term > 0);
    assert_eq!(target.log().incarnation(), before);
    assert_eq!(b.lives(), [(GROUP, before)]);
    assert_eq!(kept(&target, 0).await, expected(0..3));
}

/// A stream that began at one replica can go on at another: equal log ids are equal content.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_sender_goes_on_where_the_first_stopped() {
    let (a, mut b) = (Node::new(1), Node::new(2));
    let source = a.start(GROUP, &[REPLICA]).await;
    fill(&source, 0..80).await;
    let first = stream(&source).await;
    let (log, mut store) = storage(&b).await;
    let mut incoming = IncomingSnapshot::begin(&log, first.head.clone()).unwrap();
    for chunk in &first.chunks[..first.chunks.len() / 3] {
        incoming.accept(chunk.clone()).unwrap();
    }
    // The same log ids, held otherwise: everything is in segments now.
    let flush = source.log().clone();
    tokio::task::spawn_blocking(move || flush.flush(true).unwrap()).await.unwrap();
    let mut second = pin(&source).await;
    assert_eq!(second.head(), &first.head);
    second.resume(incoming.cursor().clone());
    while let Some(chunk) = second.next().await.unwrap() {
        incoming.accept(chunk).unwrap();
    }
    install(&mut store, incoming.finish().unwrap()).await.unwrap();
    drop((log, store));
    b.restart().await;
    let target = lead(&b).await;
    assert_eq!(content(&b, &target, 0).await, content(&a, &source, 0).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_right_chunks_in_the_right_order_are_taken() {
    let (a, mut b) = (Node::new(1), Node::new(2));
    let source = a.start(GROUP, &[REPLICA]).await;
    fill(&source, 0..40).await;
    let other = stream(&source).await;
    fill(&source, 40..60).await;
    let stream = stream(&source).await;
    let (log, mut store) = storage(&b).await;
    let foreign = SnapshotHead { group: GroupId(1), ..stream.head.clone() };
    assert!(IncomingSnapshot::begin(&log, foreign).unwrap_err().to_string().contains("group"));
    let mut incoming = IncomingSnapshot::begin(&log, stream.head.clone()).unwrap();
    let refused = |incoming: &mut IncomingSnapshot, chunk: Bytes| {
        let before = incoming.cursor().clone();
        let error = incoming.accept(chunk).unwrap_err();
        assert_eq!((error.kind(), incoming.cursor()), (io::ErrorKind::InvalidData, &before), "{error}");
    };
    for (at, chunk) in stream.chunks.iter().enumerate() {
        if let Some(next) = stream.chunks.get(at + 1) {
            refused(&mut incoming, next.clone());
        }
        if let Some(other) = other.chunks.get(at) {
            refused(&mut incoming, other.clone());
        }
        let mut altered = chunk.to_vec();
        altered[at % chunk.len()] ^= 1;
        refused(&mut incoming, altered.into());
        incoming.accept(chunk.clone()).unwrap();
        incoming.accept(chunk.clone()).unwrap();
        incoming.accept(stream.chunks[at / 2].clone()).unwrap();
    }
    install(&mut store, incoming.finish().unwrap()).await.unwrap();
    let mut unfinished = IncomingSnapshot::begin(&log, stream.head.clone()).unwrap();
    unfinished.accept(stream.chunks[0].clone()).unwrap();
    assert!(unfinished.finish().unwrap_err().to_string().contains("not complete"));
    drop((log, store));
    b.restart().await;
    let target = lead(&b).await;
    assert_eq!(kept(&target, 0).await, expected(0..60));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_receiver_has_already_is_not_sent_again() {
    let (a, mut b) = (Node::new(1), Node::new(2));
    let source = a.start(GROUP, &[REPLICA]).await;
    fill(&source, 0..100).await;
    let (log, mut store) = storage(&b).await;
    install(&mut store, receive(&log, &stream(&source).await).unwrap()).await.unwrap();
    fill(&source, 100..130).await;
    release(&source, 50).await;

    let mut outgoing = pin(&source).await;
    let mut incoming = IncomingSnapshot::begin(&log, outgoing.head().clone()).unwrap();
    let mut sent = Vec::new();
    while let Some(bytes) = outgoing.next().await.unwrap() {
        let chunk = Chunk::decode(bytes.clone()).unwrap();
        sent.extend(chunk.frames.iter().flat_map(|frame| frame.header.items.iter().filter_map(|item| item.kept())));
        incoming.accept(bytes).unwrap();
        outgoing.resume(incoming.cursor().clone());
    }
    assert!(!sent.is_empty() && sent.iter().all(|kept| kept.base_offset >= 100), "{sent:?}");
    install(&mut store, incoming.finish().unwrap()).await.unwrap();
    drop((log, store));
    b.restart().await;
    let target = lead(&b).await;
    assert_eq!(content(&b, &target, 50).await, content(&a, &source, 50).await);
    let first = target.segments()[0].first_offset.unwrap();
    assert!((40..=50).contains(&first), "dead frames are left behind: {first}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pinned_snapshot_stays_what_it_was() {
    let mut a = Node::new(1);
    let source = a.start(GROUP, &[REPLICA]).await;
    fill(&source, 0..100).await;
    drop(source);
    a.restart().await;
    let source = a.start(GROUP, &[REPLICA]).await;
    let mut pinned = pin(&source).await;
    fill(&source, 100..200).await;
    release(&source, 90).await;
    assert!(source.release_below(90).await.unwrap() > 0, "segments that the snapshot names are unlinked");
    let mut offsets = Vec::new();
    while let Some(bytes) = pinned.next().await.unwrap() {
        let chunk = Chunk::decode(bytes).unwrap();
        offsets.extend(chunk.frames.iter().flat_map(|frame| frame.header.items.iter().filter_map(|item| item.kept())));
    }
    assert_eq!(offsets.iter().map(|kept| kept.base_offset).collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_chunk_and_cursor_survives_the_round_trip() {
    let a = Node::new(1);
    let source = a.start(GROUP, &[REPLICA]).await;
    fill(&source, 0..30).await;
    let stream = stream(&source).await;
    let chunks = decoded(&stream);
    assert!(chunks.iter().any(|chunk| !chunk.rows.is_empty()) && chunks.iter().any(|chunk| !chunk.frames.is_empty()));
    for (chunk, bytes) in chunks.iter().zip(&stream.chunks) {
        assert_eq!(chunk.encode(), bytes);
        assert_eq!(&Cursor::decode(chunk.next.encode()).unwrap(), &chunk.next);
    }
    assert!(chunks.windows(2).all(|pair| pair[0].next == pair[1].from && pair[0].from < pair[0].next));
}

proptest! {
    #[test]
    fn no_bytes_make_a_decoder_panic(bytes: Vec<u8>) {
        let mut sealed = crc32c::crc32c(&bytes).to_le_bytes().to_vec();
        sealed.extend(&bytes);
        let _ = Chunk::decode(sealed.into());
        let _ = Chunk::decode(bytes.clone().into());
        let _ = Cursor::decode(bytes.into());
    }
}
