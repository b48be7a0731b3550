//! Peers that do not keep to the protocol: they lose the link, and nothing else happens.

use std::time::Duration;

use bytes::Bytes;
use flotilla_proto::internal::v1 as pb;
use flotilla_proto::internal::v1::frame::Kind;
use flotilla_proto::internal::v1::link_message::Message;
use flotilla_proto::internal::v1::raft_peer_client::RaftPeerClient;
use flotilla_proto::internal::v1::snapshot_message::Message as Piece;
use futures::stream;
use proptest::prelude::*;
use prost::Message as _;

use super::cluster::*;
use crate::disk::real::RealDisk;
use crate::joining::Joining;
use crate::log::tests::node::{PATIENCE, fill};
use crate::network::wire;
use crate::registry::Begin;
use crate::types::{GroupId, ReplicaId};

fn vote(voted_for: u64, committed: bool) -> Option<pb::Vote> {
    Some(pb::Vote { term: 3, voted_for, committed })
}

fn entry(term: u64, index: u64) -> pb::Entry {
    pb::Entry { log_id: Some(pb::LogId { term, index }), body: None }
}

fn append(previous: Option<(u64, u64)>, entries: Vec<pb::Entry>) -> pb::Append {
    let previous = previous.map(|(term, index)| pb::LogId { term, index });
    pb::Append { stream_id: 1, vote: vote(2, true), previous, leader_commit: None, entries }
}

fn report(vote: Option<pb::Vote>) -> pb::Report {
    pb::Report { group_id: GROUP.0, replica_id: 2, vote, ..pb::Report::default() }
}

fn frame(kind: Kind) -> pb::Frame {
    pb::Frame { group_id: GROUP.0, request_id: 1, kind: Some(kind), to_replica: replica(1).id.0 }
}

#[test]
fn only_what_a_leader_could_send_is_taken() {
    let good = append(Some((1, 4)), vec![entry(1, 5), entry(3, 6)]);
    let (from, taken) = wire::append_from_wire(good.clone()).unwrap();
    assert_eq!((from, taken.entries.len()), (ReplicaId(2), 2));
    assert!(wire::append_from_wire(append(None, vec![entry(0, 0)])).is_ok());
    let bad = [
        append(Some((1, 4)), vec![entry(1, 6)]),
        append(Some((1, 4)), vec![entry(1, 5), entry(1, 5)]),
        append(Some((2, 4)), vec![entry(1, 5)]),
        append(Some((1, 4)), vec![entry(4, 5)]),
        append(None, vec![entry(1, 1)]),
        append(Some((1, u64::MAX)), vec![]),
        append(Some((1, u64::MAX - 1)), vec![entry(1, u64::MAX)]),
        pb::Append { vote: vote(0, true), ..good.clone() },
        pb::Append { vote: vote(2, false), ..good.clone() },
        pb::Append { vote: None, ..good.clone() },
        pb::Append { entries: vec![pb::Entry::default()], ..good.clone() },
    ];
    for bad in bad {
        assert!(wire::append_from_wire(bad.clone()).is_err(), "{bad:?}");
    }
    let item = pb::Item { kind: 256, payload: Bytes::new() };
    let body = Some(pb::entry::Body::Items(pb::Items { items: vec![item] }));
    assert!(wire::append_from_wire(append(None, vec![pb::Entry { body, ..entry(0, 0) }])).is_err());
    let asked = pb::VoteRequest { vote: vote(2, false), last: None, leadership_transfer: false };
    assert_eq!(wire::vote_request_from_wire(asked).unwrap().0, ReplicaId(2));
    for bad in [vote(0, false), vote(2, true), None] {
        assert!(wire::vote_request_from_wire(pb::VoteRequest { vote: bad, ..asked }).is_err());
    }
}

proptest! {
    #[test]
    fn no_bytes_make_a_decoder_panic(bytes: Vec<u8>) {
        if let Ok(message) = pb::Append::decode(bytes.as_slice()) {
            let mut message = message;
            wire::detach(&mut message, usize::MAX);
            let _ = wire::append_from_wire(message);
        }
        let _ = pb::AppendResult::decode(bytes.as_slice()).map(wire::result_from_wire);
        let _ = pb::VoteRequest::decode(bytes.as_slice()).map(wire::vote_request_from_wire);
        let _ = pb::VoteResponse::decode(bytes.as_slice()).map(wire::vote_response_from_wire);
        let _ = pb::TransferLeader::decode(bytes.as_slice()).map(wire::transfer_from_wire);
        let _ = wire::cluster_id(&bytes.into());
    }
}

#[test]
fn small_payloads_leave_a_large_message_and_stay_the_same() {
    let message = Bytes::from(vec![7; 1 << 20]);
    let items = [3, 5].map(|bytes| pb::Item { kind: 1, payload: message.slice(..bytes) });
    let body = Some(pb::entry::Body::Items(pb::Items { items: items.to_vec() }));
    let mut small = append(None, vec![pb::Entry { body, ..entry(0, 0) }]);
    let before = small.clone();
    wire::detach(&mut small, 1 << 20);
    assert_eq!(small, before);
    drop((items, before));
    assert!(message.is_unique(), "the message is not kept in memory");
}

/// Each of these ends its link; the group behind it does not notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_sends_nonsense_loses_its_link_and_the_groups_go_on() {
    let mut cluster = Cluster::new(3).await;
    cluster.found(GROUP, &[1, 3]).await;
    let leader = cluster.leader(GROUP, &[1, 3]).await;
    let group = cluster.group(leader, GROUP);
    fill(&group, 0..10).await;
    cluster.kill(2);
    let to = 1;
    let hello = pb::Hello { boot: 99, ..cluster.registry(3).peers().hello(to) };
    let hello = pb::Hello { node_id: 2, ..hello };
    let frames = |kinds: Vec<Kind>| Message::Frames(pb::Frames { frames: kinds.into_iter().map(frame).collect() });
    // No election could follow.
    let last_term = |committed| Some(pb::Vote { term: u64::MAX - 1, voted_for: 2, committed });
    let nonsense = [
        Message::Hello(hello.clone()),
        Message::Frames(pb::Frames { frames: vec![pb::Frame::default()] }),
        frames(vec![Kind::Append(append(Some((1, 4)), vec![entry(1, 9)]))]),
        frames(vec![Kind::Append(pb::Append { stream_id: 0, ..append(None, vec![entry(0, 0)]) })]),
        frames(vec![Kind::Vote(pb::VoteRequest { vote: vote(1, true), last: None, leadership_transfer: true })]),
        frames(vec![Kind::TransferLeader(pb::TransferLeader { from_leader: vote(1, false), to_replica: 1, last: None })]),
        frames(vec![Kind::Vote(pb::VoteRequest { vote: last_term(false), last: None, leadership_transfer: true })]),
        frames(vec![Kind::Append(pb::Append { vote: last_term(true), ..append(None, vec![entry(0, 0)]) })]),
        frames(vec![Kind::Reports(pb::Reports { reports: vec![pb::Report::default()] })]),
        frames(vec![Kind::Reports(pb::Reports { reports: vec![report(vote(1, true)); 65] })]),
        frames(vec![Kind::Reports(pb::Reports { reports: vec![report(last_term(true))] })]),
    ];
    for nonsense in nonsense {
        let channel = crate::network::endpoint(&format!("127.0.0.1:{}", cluster.port(to))).unwrap().connect().await.unwrap();
        let mut client = RaftPeerClient::new(channel);
        let said = format!("{nonsense:?}");
        let messages = [Message::Hello(hello.clone()), nonsense];
        let messages = stream::iter(messages.map(|message| pb::LinkMessage { message: Some(message) }));
        // So that the link does not end because nothing more comes.
        let goes_on = stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let probe = Message::Frames(pb::Frames { frames: vec![frame(Kind::Probe(pb::Probe {}))] });
            Some((pb::LinkMessage { message: Some(probe) }, ()))
        });
        let messages = futures::StreamExt::chain(messages, goes_on);
        let mut answers = client.link(messages).await.unwrap().into_inner();
        let ended = async { while let Ok(Some(_)) = answers.message().await {} };
        tokio::time::timeout(PATIENCE, ended).await.unwrap_or_else(|_| panic!("the link stays up after {said}"));
    }
    fill(&group, 10..20).await;
    cluster.holds(1, GROUP, 0, 20).await;
}

/// What a node answers to the first question of a peer that says hello and `kind`.
pub(super) async fn answer(cluster: &Cluster, node: u64, to: ReplicaId, hello: &pb::Hello, group: GroupId, kind: Kind) -> Kind {
    let channel = crate::network::endpoint(&format!("127.0.0.1:{}", cluster.port(node))).unwrap().connect().await.unwrap();
    let question = pb::Frames { frames: vec![pb::Frame { group_id: group.0, to_replica: to.0, ..frame(kind) }] };
    let messages = [Message::Hello(hello.clone()), Message::Frames(question)];
    let messages = stream::iter(messages.map(|message| pb::LinkMessage { message: Some(message) }));
    let messages = futures::StreamExt::chain(messages, stream::pending());
    let mut answers = RaftPeerClient::new(channel).link(messages).await.unwrap().into_inner();
    let answered = async {
        loop {
            let Some(Message::Frames(frames)) = answers.message().await.unwrap().unwrap().message else { continue };
            let to_this = frames.frames.into_iter().find(|frame| (frame.group_id, frame.request_id) == (group.0, 1));
            if let Some(kind) = to_this.and_then(|frame| frame.kind) {
                return kind;
            }
        }
    };
    tokio::time::timeout(PATIENCE, answered).await.expect("an answer")
}

/// Their votes would elect somebody who lacks what was committed without them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_being_copied_or_decides_alone_gives_no_vote() {
    const COPIED: GroupId = GroupId(6);
    const TOGETHER: GroupId = GroupId(7);
    let mut cluster = Cluster::new(2).await;
    cluster.found(GROUP, &[1]).await;
    cluster.leader(GROUP, &[1]).await;
    // As the version before replica ids began a copy.
    Joining::begin(&RealDisk, &cluster.groups_dir(1), COPIED).unwrap();
    cluster.start(1, COPIED, Begin::Wait).await;
    cluster.start(1, TOGETHER, Begin::Wait).await;
    let hello = pb::Hello { boot: 99, ..cluster.registry(2).peers().hello(1) };
    cluster.kill(2);
    let last = Some(pb::LogId { term: 2, index: 1_000 });
    let asked = pb::VoteRequest { vote: vote(replica(2).id.0, false), last, leadership_transfer: false };
    for (group, refusal) in [(GROUP, Some("decides alone")), (COPIED, Some("still being copied")), (TOGETHER, None)] {
        for kind in [Kind::PreVote(asked), Kind::Vote(asked)] {
            match (answer(&cluster, 1, replica(1).id, &hello, group, kind).await, refusal) {
                (Kind::Refused(reason), Some(refusal)) => assert!(reason.contains(refusal), "{group}: {reason}"),
                (Kind::VoteResponse(_), None) => {}
                (answer, _) => panic!("{group}: {answer:?}"),
            }
        }
    }
    fill(&cluster.group(1, GROUP), 0..10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_from_nobody_is_refused() {
    let cluster = Cluster::new(2).await;
    cluster.found(GROUP, &[1, 2]).await;
    let leader = cluster.leader(GROUP, &[1, 2]).await;
    fill(&cluster.group(leader, GROUP), 0..10).await;
    let head = cluster.group(leader, GROUP).pin_snapshot().await.unwrap().unwrap().head().encode();
    let open = pb::SnapshotOpen {
        cluster_id: Bytes::copy_from_slice(&CLUSTER.0),
        from_node_id: 2,
        to_node_id: 1,
        group_id: GROUP.0,
        vote: vote(replica(2).id.0, true),
        head,
        to_replica: replica(1).id.0,
    };
    let refused = [
        pb::SnapshotOpen { cluster_id: Bytes::new(), ..open.clone() },
        pb::SnapshotOpen { from_node_id: 8, ..open.clone() },
        pb::SnapshotOpen { to_node_id: 2, ..open.clone() },
        pb::SnapshotOpen { group_id: 99, ..open.clone() },
        pb::SnapshotOpen { vote: vote(replica(1).id.0, true), ..open.clone() },
        pb::SnapshotOpen { vote: vote(replica(2).id.0, false), ..open.clone() },
        pb::SnapshotOpen { to_replica: replica(2).id.0, ..open.clone() },
        pb::SnapshotOpen { head: Bytes::from_static(b"\xff\xff"), ..open.clone() },
    ];
    let channel = crate::network::endpoint(&format!("127.0.0.1:{}", cluster.port(1))).unwrap().connect().await.unwrap();
    let mut client = RaftPeerClient::new(channel);
    for open in refused {
        let said = format!("{open:?}");
        let message = pb::SnapshotMessage { message: Some(Piece::Open(open)) };
        assert!(client.snapshot(stream::iter([message])).await.is_err(), "{said}");
    }
    fill(&cluster.group(leader, GROUP), 10..12).await;
}
