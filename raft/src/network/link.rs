//! One link: what is asked over it, and who waits for which answer. Both ends are alike once it is up.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flotilla_proto::internal::v1::frame::Kind;
use flotilla_proto::internal::v1::{Done, Frame};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::outbox::{Outbox, Pace};
use super::peers::LinkState;
use super::wire::frame_bytes;
use crate::types::{GroupId, NodeId, ReplicaId};

/// Bytes of appends that may be on their way over one link, from being made until they are durable at the peer.
pub(super) const APPEND_BYTES_MAX: usize = 64 << 20;
/// Bytes that one unit of that budget stands for.
pub(super) const APPEND_UNIT_BYTES: usize = 1024;
/// Appends of one stream that may be on their way. Its receiver takes that many without waiting.
pub(super) const STREAM_APPENDS_MAX: usize = 64;

/// See the module.
pub(super) struct Link {
    pub(super) peer: NodeId,
    pub(super) state: LinkState,
    pub(super) outbox: Arc<Outbox>,
    /// Cancelled when the link is closed, by whoever.
    pub(super) closed: CancellationToken,
    /// Room for appends, in units.
    pub(super) budget: Arc<Semaphore>,
    waiting: Mutex<HashMap<u64, Waiting>>,
    next_id: AtomicU64,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum LinkError {
    #[error("there is no link to node {0}")]
    Down(NodeId),
    #[error("node {peer} refused: {reason}")]
    Refused { peer: NodeId, reason: String },
    #[error("node {0} answered something else than was asked")]
    Malformed(NodeId),
}

enum Waiting {
    Answer(oneshot::Sender<Kind>),
    Results(mpsc::Sender<Kind>),
}

/// A stream of appends, from the side that sends them. Ends when dropped.
pub(super) struct AppendStream {
    pub(super) link: Arc<Link>,
    group: GroupId,
    to: ReplicaId,
    pub(super) id: u64,
    pub(super) results: mpsc::Receiver<Kind>,
}

/// Takes the question back when it is dropped, answered or not.
struct Asked<'a> {
    link: &'a Link,
    id: u64,
}

impl Link {
    pub(super) fn new(peer: NodeId, state: LinkState, outbox: Arc<Outbox>) -> Self {
        Self {
            peer,
            state,
            outbox,
            closed: CancellationToken::new(),
            budget: Arc::new(Semaphore::new(APPEND_BYTES_MAX / APPEND_UNIT_BYTES)),
            waiting: Mutex::default(),
            next_id: AtomicU64::new(1),
        }
    }

    /// Sends a frame that nobody in particular is meant by, an answer for instance; a link whose peer does not read is closed.
    pub(super) fn send(&self, group: GroupId, request_id: u64, kind: Kind, pace: Pace) {
        let bytes = frame_bytes(&kind);
        self.push(Frame { group_id: group.0, request_id, kind: Some(kind), to_replica: 0 }, bytes, pace);
    }

    fn push(&self, frame: Frame, bytes: usize, pace: Pace) {
        if !self.outbox.push(frame, bytes, pace) {
            self.close();
        }
    }

    /// Asks a replica and waits for the answer.
    ///
    /// # Errors
    /// See [`LinkError`].
    pub(super) async fn ask(&self, (group, to): (GroupId, ReplicaId), kind: Kind, pace: Pace) -> Result<Kind, LinkError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (tx, rx) = oneshot::channel();
        let asked = Asked { link: self, id };
        self.wait_for(id, Waiting::Answer(tx));
        let bytes = frame_bytes(&kind);
        self.push(Frame { group_id: group.0, request_id: id, kind: Some(kind), to_replica: to.0 }, bytes, pace);
        let answer = rx.await;
        drop(asked);
        match answer {
            Ok(Kind::Refused(reason)) => Err(LinkError::Refused { peer: self.peer, reason }),
            Ok(answer) => Ok(answer),
            Err(_) => Err(LinkError::Down(self.peer)),
        }
    }

    /// Begins a stream of appends to a replica.
    pub(super) fn open_stream(self: &Arc<Self>, group: GroupId, to: ReplicaId) -> AppendStream {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (tx, results) = mpsc::channel(STREAM_APPENDS_MAX);
        self.wait_for(id, Waiting::Results(tx));
        AppendStream { link: self.clone(), group, to, id, results }
    }

    fn wait_for(&self, id: u64, waiting: Waiting) {
        let mut all = self.lock();
        // A closed link has let go of everybody who waited: nobody would answer.
        if !self.closed.is_cancelled() {
            all.insert(id, waiting);
        }
    }

    /// Passes an answer on; `false` if the peer answers more than was asked. Answers that nobody waits for any more
    /// are dropped.
    pub(super) fn answered(&self, id: u64, kind: Kind) -> bool {
        let mut waiting = self.lock();
        match waiting.remove(&id) {
            Some(Waiting::Answer(asker)) => {
                let _ = asker.send(kind);
                true
            }
            Some(Waiting::Results(results)) => {
                let sent = results.try_send(kind);
                waiting.insert(id, Waiting::Results(results));
                !matches!(sent, Err(mpsc::error::TrySendError::Full(_)))
            }
            None => true,
        }
    }

    /// Ends the link: whoever waits for an answer gets none.
    pub(super) fn close(&self) {
        self.closed.cancel();
        self.outbox.close();
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AppendStream {
    /// Sends the next append of the stream, of about `bytes`.
    pub(super) fn send(&self, append: flotilla_proto::internal::v1::Append, bytes: usize, pace: Pace) {
        let kind = Some(Kind::Append(append));
        let frame = Frame { group_id: self.group.0, request_id: self.id, kind, to_replica: self.to.0 };
        self.link.push(frame, bytes, pace);
    }
}

impl Drop for AppendStream {
    fn drop(&mut self) {
        if self.link.lock().remove(&self.id).is_some() {
            self.link.send(self.group, self.id, Kind::End(Done {}), Pace::Idle);
        }
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.link.lock().remove(&self.id);
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "link {} to node {}", self.state.number, self.peer)
    }
}
