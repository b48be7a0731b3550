//! Receiving snapshots. What came before a connection broke is kept for a while: the next one goes on behind it.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use flotilla_proto::internal::v1::snapshot_answer::Answer;
use flotilla_proto::internal::v1::snapshot_message::Message;
use flotilla_proto::internal::v1::{SnapshotAnswer, SnapshotMessage, SnapshotOpen};
use openraft::async_runtime::WatchReceiver as _;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Duration, Instant};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::connect::status;
use super::inbound::check_term;
use super::peers::Peers;
use super::wire::{self, invalid};
use crate::figures::TransferCounters;
use crate::group::Group;
use crate::log::convert::{log_id_from_raft, vote_from_raft};
use crate::registry::TransferOptions;
use crate::snapshot::{IncomingSnapshot, SnapshotHead};
use crate::types::{GroupId, Replica, ReplicaId, Vote};

/// How long the announcement may take.
const OPEN_PATIENCE: Duration = Duration::from_secs(3);
/// A connection over which no chunk came for so long is given up.
const CHUNK_PATIENCE: Duration = Duration::from_secs(60);

pub(super) type Answers = ReceiverStream<Result<SnapshotAnswer, Status>>;

/// What is received on this node. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Receiving {
    kept_for: Duration,
    slots: Arc<Semaphore>,
    counters: Arc<TransferCounters>,
    groups: Arc<Mutex<BTreeMap<GroupId, Slot>>>,
}

/// One group's.
#[derive(Default)]
struct Slot {
    /// Who receives now; cancelled to make it stop.
    busy: Option<Busy>,
    /// What was received so far, and when the last of it came.
    parked: Option<(IncomingSnapshot, Instant)>,
}

#[derive(Clone)]
struct Busy {
    stop: CancellationToken,
    done: CancellationToken,
}

/// The right to receive a group's snapshot; gives it back when dropped.
struct Turn {
    receiving: Receiving,
    group: GroupId,
    busy: Busy,
}

/// What a sender announced, checked.
struct Announced {
    group: Group,
    from: Replica,
    vote: Vote,
    head: SnapshotHead,
}

impl Receiving {
    pub(super) fn new(options: TransferOptions, counters: Arc<TransferCounters>) -> Self {
        let slots = Arc::new(Semaphore::new(options.at_once.max(1)));
        Self { kept_for: options.kept_for, slots, counters, groups: Arc::default() }
    }

    /// Waits for its turn: whoever still receives this group's snapshot stops.
    async fn turn(&self, group: GroupId) -> Turn {
        loop {
            let before = {
                let mut groups = self.lock();
                let slot = groups.entry(group).or_default();
                match slot.busy.clone() {
                    Some(before) => before,
                    None => {
                        let busy = Busy { stop: CancellationToken::new(), done: CancellationToken::new() };
                        slot.busy = Some(busy.clone());
                        return Turn { receiving: self.clone(), group, busy };
                    }
                }
            };
            before.stop.cancel();
            before.done.cancelled().await;
        }
    }

    /// Lets go of what was received of a group.
    pub(super) async fn forget(&self, group: GroupId) {
        let known = self.lock().contains_key(&group);
        if known {
            let turn = self.turn(group).await;
            if let Some((parked, _)) = turn.take_parked() {
                discard(parked).await;
            }
        }
    }

    /// Keeps what was received for the next attempt, but not for ever.
    fn park(&self, group: GroupId, incoming: IncomingSnapshot) {
        let at = Instant::now();
        self.lock().entry(group).or_default().parked = Some((incoming, at));
        let receiving = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(receiving.kept_for).await;
            let old = receiving.lock().get_mut(&group).and_then(|slot| slot.parked.take_if(|(_, since)| *since == at));
            if let Some((old, _)) = old {
                discard(old).await;
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<GroupId, Slot>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    fn take_parked(&self) -> Option<(IncomingSnapshot, Instant)> {
        self.receiving.lock().get_mut(&self.group)?.parked.take()
    }

    /// What is here already of the announced snapshot, or the beginning of it.
    async fn begin(&self, announced: &Announced) -> io::Result<IncomingSnapshot> {
        match self.take_parked() {
            Some((parked, _)) if *parked.head() == announced.head => return Ok(parked),
            Some((other, _)) => discard(other).await,
            None => {}
        }
        announced.group.receive_snapshot(announced.head.clone()).await
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut groups = self.receiving.lock();
        if let Some(slot) = groups.get_mut(&self.group) {
            slot.busy = None;
            if slot.parked.is_none() {
                groups.remove(&self.group);
            }
        }
        drop(groups);
        self.busy.done.cancel();
    }
}

/// Takes a snapshot's stream: checks what is announced, and receives beside.
pub(super) async fn accept(peers: Peers, mut incoming: Streaming<SnapshotMessage>) -> io::Result<Answers> {
    let announced = tokio::time::timeout(OPEN_PATIENCE, incoming.message()).await;
    let announced = announced.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the announcement did not come"))?;
    let Some(Message::Open(open)) = announced.map_err(status)?.and_then(|message| message.message) else {
        return Err(invalid("a snapshot begins with its announcement"));
    };
    let announced = check(&peers, open)?;
    let receiving = peers.receiving().ok_or_else(|| io::Error::other("this node is starting"))?;
    let (answers, stream) = mpsc::channel(1);
    let stopped = peers.stopped().clone();
    peers.tasks().spawn(async move {
        let (group, from) = (announced.group.id(), announced.from);
        let received = tokio::select! {
            received = receive(&receiving, announced, incoming, &answers) => received,
            () = stopped.cancelled() => return,
        };
        let answer = match received {
            Ok(vote) => Answer::Installed(wire::vote_to_wire(vote)),
            Err(error) => {
                tracing::info!(%group, %from, %error, "a snapshot was not received to its end");
                Answer::Refused(error.to_string())
            }
        };
        let _ = answers.send(Ok(SnapshotAnswer { answer: Some(answer) })).await;
    });
    Ok(ReceiverStream::new(stream))
}

fn check(peers: &Peers, open: SnapshotOpen) -> io::Result<Announced> {
    let refused = |reason: String| Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
    let cluster_id = wire::cluster_id(&open.cluster_id)?;
    if cluster_id != peers.cluster_id() || open.to_node_id != peers.node_id() {
        return refused(format!("it is for node {} of cluster {cluster_id}", open.to_node_id));
    }
    let node = open.from_node_id;
    if peers.address(node).is_none() {
        return refused(format!("node {} does not know node {node}", peers.node_id()));
    }
    let vote = wire::vote_from_wire(open.vote)?;
    let from = Replica { id: wire::leader_of(vote)?, node };
    let group = match peers.recipient(GroupId(open.group_id), ReplicaId(open.to_replica), from) {
        Ok(group) => group,
        Err(reason) => return refused(reason),
    };
    check_term(vote.term, || Some(group.clone()))?;
    let head = SnapshotHead::decode(open.head)?;
    if head.group != group.id() || head.last.term > vote.term {
        return Err(invalid("a snapshot is not what its announcement says"));
    }
    Ok(Announced { group, from, vote, head })
}

/// Receives and installs; returns the vote of this node.
async fn receive(
    receiving: &Receiving,
    announced: Announced,
    mut stream: Streaming<SnapshotMessage>,
    answers: &mpsc::Sender<Result<SnapshotAnswer, Status>>,
) -> io::Result<Vote> {
    let turn = receiving.turn(announced.group.id()).await;
    if let Some(vote) = passed(&announced) {
        return Ok(vote);
    }
    let slot = receiving.slots.clone().try_acquire_owned();
    let _slot = slot.map_err(|_| io::Error::other("this node receives as many snapshots as it may; try again later"))?;
    let incoming = turn.begin(&announced).await?;
    let cursor = SnapshotAnswer { answer: Some(Answer::Cursor(incoming.cursor().encode())) };
    let told = answers.send(Ok(cursor)).await;
    let (incoming, ended) = match told {
        Ok(()) => take_chunks(incoming, &mut stream, &turn.busy.stop, &receiving.counters).await,
        Err(_) => (Some(incoming), Err(io::Error::other("the connection broke"))),
    };
    let Some(incoming) = incoming else { return Err(ended.err().unwrap_or_else(|| io::Error::other("it was lost"))) };
    if let Err(error) = ended {
        receiving.park(announced.group.id(), incoming);
        return Err(error);
    }
    let received = incoming.driver().try_run(move || incoming.finish()).await?;
    let vote = announced.group.install_snapshot(announced.vote, received).await?;
    receiving.counters.received.fetch_add(1, Ordering::Relaxed);
    Ok(vote)
}

/// This node's vote, if it has applied everything that is announced by itself.
fn passed(announced: &Announced) -> Option<Vote> {
    let metrics = announced.group.raft().metrics();
    let metrics = metrics.borrow_watched();
    let applied = metrics.last_applied.as_ref().map(log_id_from_raft)?;
    (applied.index >= announced.head.last.index).then(|| vote_from_raft(&metrics.vote))
}

/// Takes chunks until the sender says that it was all. What was received is handed back also if it was not, unless
/// the disk failed.
async fn take_chunks(
    mut incoming: IncomingSnapshot,
    stream: &mut Streaming<SnapshotMessage>,
    stop: &CancellationToken,
    counters: &TransferCounters,
) -> (Option<IncomingSnapshot>, io::Result<()>) {
    loop {
        let chunk = tokio::select! {
            chunk = next_chunk(stream) => chunk,
            () = stop.cancelled() => Err(io::Error::other("another transfer took over")),
        };
        match chunk {
            Ok(None) => return (Some(incoming), Ok(())),
            Err(error) => return (Some(incoming), Err(error)),
            Ok(Some(chunk)) => {
                counters.received_bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
                let driver = incoming.driver();
                let accept = move || {
                    let accepted = incoming.accept(chunk);
                    (incoming, accepted)
                };
                match driver.run(accept).await {
                    Ok((same, Ok(()))) => incoming = same,
                    // Nothing of a malformed chunk is taken.
                    Ok((same, Err(error))) if error.kind() == io::ErrorKind::InvalidData => return (Some(same), Err(error)),
                    Ok((failed, Err(error))) => {
                        discard(failed).await;
                        return (None, Err(error));
                    }
                    Err(error) => return (None, Err(error)),
                }
            }
        }
    }
}

/// `None`: it was all.
async fn next_chunk(stream: &mut Streaming<SnapshotMessage>) -> io::Result<Option<Bytes>> {
    let message = tokio::time::timeout(CHUNK_PATIENCE, stream.message()).await;
    let message = message.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the sender is silent"))?;
    match message.map_err(status)?.and_then(|message| message.message) {
        Some(Message::Chunk(chunk)) => Ok(Some(chunk)),
        Some(Message::Done(_)) => Ok(None),
        Some(Message::Open(_)) => Err(invalid("a snapshot is announced twice")),
        None => Err(io::Error::other("the connection was closed")),
    }
}

async fn discard(incoming: IncomingSnapshot) {
    let _ = incoming.driver().run(move || incoming.discard()).await;
}
