//! Sending a snapshot to a replica, over a connection of its own. What broke is taken up where it was; only so many
//! are on their way at once, and all of them together no faster than allowed.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use flotilla_proto::internal::v1::raft_peer_client::RaftPeerClient;
use flotilla_proto::internal::v1::snapshot_answer::Answer;
use flotilla_proto::internal::v1::snapshot_message::Message;
use flotilla_proto::internal::v1::{Done, SnapshotAnswer, SnapshotMessage, SnapshotOpen};
use openraft::type_config::alias::SnapshotOf;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Duration, Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::connect::status;
use super::peers::Peers;
use super::receiving::Receiving;
use super::service::MESSAGE_BYTES_MAX;
use super::wire;
use crate::figures::{TransferCounters, TransferFigures};
use crate::log::convert::{vote_from_raft, vote_to_raft};
use crate::log::type_config::{RaftVote, TypeConfig};
use crate::registry::TransferOptions;
use crate::snapshot::{Cursor, Held, Holding, OutgoingSnapshot, RateLimit, SnapshotData};
use crate::types::{GroupId, Replica};

/// Chunks that are read before the connection is free.
const CHUNKS_AHEAD: usize = 1;
/// How long a transfer waits for the link before it gives up for now.
const LINK_PATIENCE: Duration = Duration::from_secs(2);

/// What all transfers of a node share. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Transfers {
    rate: Arc<RateLimit>,
    slots: Arc<Semaphore>,
    kept_for: Duration,
    counters: Arc<TransferCounters>,
    pub(super) receiving: Receiving,
}

/// Sends snapshots of one group to one replica.
pub(super) struct Sending {
    group: GroupId,
    target: Replica,
    peers: Peers,
    transfers: Transfers,
    held: Held,
    /// The snapshot that is on its way, and when it last got on.
    holding: Option<(Holding, Instant)>,
    /// Its place among those that are sent at once.
    slot: Option<OwnedSemaphorePermit>,
}

impl Transfers {
    pub(crate) fn new(options: TransferOptions) -> Self {
        let counters = Arc::<TransferCounters>::default();
        Self {
            rate: Arc::new(RateLimit::new(options.bytes_per_second)),
            slots: Arc::new(Semaphore::new(options.at_once.max(1))),
            kept_for: options.kept_for,
            receiving: Receiving::new(options, counters.clone()),
            counters,
        }
    }

    /// What went over the network so far.
    pub(crate) fn figures(&self) -> TransferFigures {
        self.counters.read()
    }

    /// Lets go of what was received of a group that is to be removed.
    pub(crate) async fn forget(&self, group: GroupId) {
        self.receiving.forget(group).await;
    }
}

impl Sending {
    pub(super) fn new(group: GroupId, target: Replica, peers: Peers, transfers: Transfers, held: Held) -> Self {
        Self { group, target, peers, transfers, held, holding: None, slot: None }
    }

    /// Sends a snapshot and waits until it is installed. Returns the vote of the replica.
    ///
    /// # Errors
    /// If it is not there yet. It is to be called again: with the same snapshot, if some of it got there.
    pub(super) async fn send(&mut self, vote: RaftVote, snapshot: SnapshotOf<TypeConfig, SnapshotData>) -> io::Result<RaftVote> {
        let SnapshotData::View(view) = snapshot.snapshot else { return Err(io::Error::other("there is nothing to send")) };
        let linked = tokio::time::timeout(LINK_PATIENCE, self.peers.linked(self.target.node)).await;
        let Ok(link) = linked else {
            self.give_up_if_stuck();
            return Err(io::Error::other(format!("there is no link to node {}", self.target.node)));
        };
        let Some(slot) = self.take_slot() else {
            // Nothing is pinned while it waits for its turn: it begins with a new snapshot then.
            drop(view);
            self.slot = self.transfers.slots.clone().acquire_owned().await.ok();
            return Err(io::Error::other("it waited for its turn"));
        };
        self.holding = Some((self.held.hold(&view), self.holding.take().map_or_else(Instant::now, |(_, since)| since)));
        let outgoing = OutgoingSnapshot::new(view).ok_or_else(|| io::Error::other("nothing is applied yet"))?;
        let outgoing = outgoing.limited(self.transfers.rate.clone());
        let sent = tokio::select! {
            sent = self.transfer(vote, outgoing) => sent,
            () = link.closed.cancelled() => Err(io::Error::other(format!("the link to node {} broke", self.target.node))),
        };
        drop(slot);
        match &sent {
            Ok(_) => {
                self.transfers.counters.sent.fetch_add(1, Ordering::Relaxed);
                self.holding = None;
            }
            Err(error) => {
                self.transfers.counters.interrupted.fetch_add(1, Ordering::Relaxed);
                tracing::info!(group = %self.group, target = %self.target, %error, "a snapshot is not there yet");
                self.give_up_if_stuck();
            }
        }
        sent
    }

    fn take_slot(&mut self) -> Option<OwnedSemaphorePermit> {
        self.slot.take().or_else(|| self.transfers.slots.clone().try_acquire_owned().ok())
    }

    /// A snapshot that does not get on must not keep what it pins for ever.
    fn give_up_if_stuck(&mut self) {
        let kept_for = self.transfers.kept_for;
        self.holding.take_if(|(_, since)| since.elapsed() > kept_for);
    }

    fn got_on(&mut self) {
        if let Some((_, since)) = &mut self.holding {
            *since = Instant::now();
        }
    }

    async fn transfer(&mut self, vote: RaftVote, mut outgoing: OutgoingSnapshot) -> io::Result<RaftVote> {
        let channel = self.peers.connection(self.target.node).await?;
        let mut client = RaftPeerClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let (chunks, messages) = mpsc::channel(CHUNKS_AHEAD);
        let open = SnapshotOpen {
            cluster_id: Bytes::copy_from_slice(&self.peers.cluster_id().0),
            from_node_id: self.peers.node_id(),
            to_node_id: self.target.node,
            group_id: self.group.0,
            vote: Some(wire::vote_to_wire(vote_from_raft(&vote))),
            head: outgoing.head().encode(),
            to_replica: self.target.id.0,
        };
        send(&chunks, Message::Open(open)).await?;
        let mut answers = client.snapshot(ReceiverStream::new(messages)).await.map_err(status)?.into_inner();
        match answer(&mut answers).await? {
            Answer::Cursor(cursor) => outgoing.resume(Cursor::decode(cursor)?),
            Answer::Installed(vote) => return installed(vote),
            Answer::Refused(reason) => return Err(self.refused(&reason)),
        }
        loop {
            let chunk = tokio::select! {
                chunk = outgoing.next() => chunk?,
                answer = answer(&mut answers) => return self.early(answer?),
            };
            let Some(chunk) = chunk else { break };
            let bytes = chunk.len() as u64;
            tokio::select! {
                sent = send(&chunks, Message::Chunk(chunk)) => sent?,
                answer = answer(&mut answers) => return self.early(answer?),
            }
            self.transfers.counters.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
            self.got_on();
        }
        send(&chunks, Message::Done(Done {})).await?;
        match answer(&mut answers).await? {
            Answer::Installed(vote) => installed(vote),
            Answer::Refused(reason) => Err(self.refused(&reason)),
            Answer::Cursor(_) => Err(wire::invalid("a snapshot is answered twice")),
        }
    }

    /// An answer that came before everything was sent.
    fn early(&self, answer: Answer) -> io::Result<RaftVote> {
        match answer {
            Answer::Refused(reason) => Err(self.refused(&reason)),
            Answer::Cursor(_) | Answer::Installed(_) => Err(wire::invalid("a snapshot is answered before its end")),
        }
    }

    fn refused(&self, reason: &str) -> io::Error {
        io::Error::other(format!("node {} refused: {reason}", self.target.node))
    }
}

async fn send(chunks: &mpsc::Sender<SnapshotMessage>, message: Message) -> io::Result<()> {
    let sent = chunks.send(SnapshotMessage { message: Some(message) }).await;
    sent.map_err(|_| io::Error::other("the connection broke"))
}

async fn answer(answers: &mut Streaming<SnapshotAnswer>) -> io::Result<Answer> {
    let answer = answers.message().await.map_err(status)?;
    let answer = answer.ok_or_else(|| io::Error::other("the connection was closed"))?;
    answer.answer.ok_or_else(|| wire::invalid("an answer is empty"))
}

fn installed(vote: flotilla_proto::internal::v1::Vote) -> io::Result<RaftVote> {
    Ok(vote_to_raft(wire::vote_from_wire(Some(vote))?))
}
