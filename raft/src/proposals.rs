//! Turns a stream of proposals into log entries: whatever waits goes into the next entry, up to a size.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openraft::errors::ClientWriteError;
use openraft::impls::ProgressResponder;
use openraft::raft::ClientWriteResult;
use openraft::type_config::alias::OneshotReceiverOf;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::admission::Room;
use crate::group::{ProposeError, Raft};
use crate::lease;
use crate::log::type_config::{Command, OnNode, TypeConfig};
use crate::machine::Outcome;
use crate::network::Urgency;
use crate::quorum::Quorum;
use crate::types::{GroupId, Item};

/// Payload bytes after which an entry is full (a single larger proposal still goes, alone).
const ENTRY_BYTES_MAX: usize = 1 << 20;
/// Items in one entry at most.
const ENTRY_ITEMS_MAX: usize = 4096;
/// Entries of one group on their way at once, if they are large: one is synced while the next is made.
const ENTRIES_IN_FLIGHT: u32 = 2;
/// Payload bytes from which on an entry is worth a way of its own; smaller ones ride together in the next.
const LARGE_ENTRY_BYTES: usize = 128 << 10;
/// How often it is looked whether anybody still waits for what cannot go out.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// One item and who waits for its outcome.
pub(crate) struct Proposal {
    pub(crate) item: Item,
    pub(crate) reply: oneshot::Sender<Result<Outcome, ProposeError>>,
    /// In memory, given back when it is answered.
    pub(crate) room: Room,
}

/// Makes the item that goes before all others of an entry, if the machine wants one (such as the leader's clock).
pub type Preamble = Arc<dyn Fn() -> Option<Item> + Send + Sync>;

/// The group's queue of proposals. Its length is bounded by admission.
pub(crate) struct Proposals {
    group: GroupId,
    queue: Mutex<Option<mpsc::UnboundedSender<Proposal>>>,
}

struct InFlight {
    answer: OneshotReceiverOf<TypeConfig, ClientWriteResult<TypeConfig>>,
    preamble_items: usize,
    waiting: Vec<Proposal>,
    /// Its place among the entries on their way.
    slot: OwnedSemaphorePermit,
}

impl Proposals {
    /// Starts the two tasks that serve the queue; they end when it is closed or the core is gone.
    pub(crate) fn start(group: GroupId, (raft, urgency): (Raft, Urgency), quorum: Quorum, preamble: Option<Preamble>) -> Self {
        #[expect(clippy::disallowed_methods, reason = "bounded by admission")]
        let (tx, rx) = mpsc::unbounded_channel();
        let (in_flight, answered) = mpsc::channel(ENTRIES_IN_FLIGHT as usize);
        let slots = Arc::new(Semaphore::new(ENTRIES_IN_FLIGHT as usize));
        let proposer = Proposer { group, raft, urgency, quorum, preamble, slots, in_flight };
        tokio::spawn(proposer.run(Backlog { queue: rx, held: VecDeque::new() }));
        tokio::spawn(complete(group, answered));
        Self { group, queue: Mutex::new(Some(tx)) }
    }

    pub(crate) fn submit(&self, proposal: Proposal) {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = match queue.as_ref() {
            Some(queue) => queue.send(proposal).err().map(|refused| refused.0),
            None => Some(proposal),
        };
        drop(queue);
        refuse(refused, &ProposeError::Stopped { group: self.group });
    }

    pub(crate) fn close(&self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl Proposal {
    /// Whether nobody waits for it any more. One that was not appended yet need not be.
    fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }
}

/// Makes entries of the backlog.
struct Proposer {
    group: GroupId,
    raft: Raft,
    urgency: Urgency,
    quorum: Quorum,
    preamble: Option<Preamble>,
    slots: Arc<Semaphore>,
    in_flight: mpsc::Sender<InFlight>,
}

impl Proposer {
    async fn run(self, mut backlog: Backlog) {
        while let Some(first) = backlog.first().await {
            let mut gathered = Gathered::default();
            gathered.put(first);
            gathered.fill(&mut backlog);
            let Some(slot) = self.slot(&mut gathered, &mut backlog).await else { continue };
            lease::confirmed(&self.raft, &self.urgency).await;
            // Whoever is about to submit does so first: else the first of many that come together would go alone, and all the
            // others wait for it.
            tokio::task::yield_now().await;
            gathered.fill(&mut backlog);
            if self.enter(gathered.waiting, slot).await.is_err() {
                return refuse(backlog.take(), &ProposeError::Stopped { group: self.group });
            }
        }
    }

    /// Waits for a place among the entries on their way. `None`: nothing is left that wants one. What has no majority is
    /// refused, and who has left is forgotten, so that neither keeps its room from others.
    async fn slot(&self, gathered: &mut Gathered, backlog: &mut Backlog) -> Option<OwnedSemaphorePermit> {
        loop {
            if let Some(offline) = self.quorum.missing() {
                let error = ProposeError::NoQuorum { group: self.group, offline };
                refuse(std::mem::take(&mut gathered.waiting), &error);
                refuse(backlog.take(), &error);
                return None;
            }
            // A large entry goes while another is on its way; small ones wait for it together.
            let needed = if gathered.bytes >= LARGE_ENTRY_BYTES { 1 } else { ENTRIES_IN_FLIGHT };
            if let Ok(slot) = self.slots.clone().try_acquire_many_owned(needed) {
                return Some(slot);
            }
            tokio::select! {
                biased;
                slot = self.slots.clone().acquire_many_owned(needed) => return slot.ok(),
                _ = self.quorum.lost() => {}
                () = tokio::time::sleep(LOOK_INTERVAL) => {
                    backlog.forget_abandoned();
                    gathered.forget_abandoned();
                    if gathered.waiting.is_empty() {
                        return None;
                    }
                }
            }
        }
    }

    /// Proposes one entry. An error: the group's core is gone.
    async fn enter(&self, waiting: Vec<Proposal>, slot: OwnedSemaphorePermit) -> Result<(), ()> {
        let preamble = self.preamble.as_ref().and_then(|preamble| preamble());
        let preamble_items = usize::from(preamble.is_some());
        let items = preamble.into_iter().chain(waiting.iter().map(|proposal| proposal.item.clone()));
        let command = Command(items.collect());
        let (responder, answer) = ProgressResponder::complete_only();
        if self.raft.client_write_ff(command, Some(responder)).await.is_err() {
            refuse(waiting, &ProposeError::Stopped { group: self.group });
            return Err(());
        }
        self.in_flight.send(InFlight { answer, preamble_items, waiting, slot }).await.map_err(|_| ())
    }
}

/// What is to be proposed, in order.
struct Backlog {
    queue: mpsc::UnboundedReceiver<Proposal>,
    /// Taken out of the queue already.
    held: VecDeque<Proposal>,
}

impl Backlog {
    /// Waits for the next one for which somebody waits.
    async fn first(&mut self) -> Option<Proposal> {
        loop {
            let next = match self.held.pop_front() {
                Some(next) => next,
                None => self.queue.recv().await?,
            };
            if !next.is_abandoned() {
                return Some(next);
            }
        }
    }

    /// The next one, if it is there and has up to `bytes_max`.
    fn next(&mut self, bytes_max: usize) -> Option<Proposal> {
        loop {
            let next = self.held.pop_front().or_else(|| self.queue.try_recv().ok())?;
            if next.is_abandoned() {
                continue;
            }
            if next.item.payload.len() <= bytes_max {
                return Some(next);
            }
            self.held.push_front(next);
            return None;
        }
    }

    /// Everything.
    fn take(&mut self) -> VecDeque<Proposal> {
        self.held.extend(std::iter::from_fn(|| self.queue.try_recv().ok()));
        std::mem::take(&mut self.held)
    }

    fn forget_abandoned(&mut self) {
        self.held = self.take();
        self.held.retain(|proposal| !proposal.is_abandoned());
    }
}

/// What goes into one entry.
#[derive(Default)]
struct Gathered {
    waiting: Vec<Proposal>,
    bytes: usize,
}

impl Gathered {
    fn put(&mut self, proposal: Proposal) {
        self.bytes += proposal.item.payload.len();
        self.waiting.push(proposal);
    }

    fn forget_abandoned(&mut self) {
        self.waiting.retain(|proposal| !proposal.is_abandoned());
        self.bytes = self.waiting.iter().map(|proposal| proposal.item.payload.len()).sum();
    }

    /// Takes what waits, up to an entry's size.
    fn fill(&mut self, backlog: &mut Backlog) {
        while self.waiting.len() < ENTRY_ITEMS_MAX
            && let Some(next) = backlog.next(ENTRY_BYTES_MAX.saturating_sub(self.bytes))
        {
            self.put(next);
        }
    }
}

async fn complete(group: GroupId, mut in_flight: mpsc::Receiver<InFlight>) {
    while let Some(InFlight { answer, preamble_items, waiting, slot }) = in_flight.recv().await {
        let answer = answer.await;
        drop(slot);
        match answer {
            Ok(Ok(response)) => {
                let outcomes = response.data.0.into_iter().skip(preamble_items);
                for (proposal, outcome) in waiting.into_iter().zip(outcomes) {
                    drop(proposal.room);
                    let _ = proposal.reply.send(Ok(outcome));
                }
            }
            Ok(Err(error)) => refuse(waiting, &write_error(group, &error)),
            Err(_) => {
                refuse(waiting, &ProposeError::Unknown { group, reason: "the node is stopping, or gave the partition up".into() })
            }
        }
    }
}

fn write_error(group: GroupId, error: &ClientWriteError<TypeConfig>) -> ProposeError {
    match error {
        ClientWriteError::ForwardToLeader(forward) => {
            ProposeError::NotLeader { group, leader: forward.leader_node.map(|OnNode(node)| node) }
        }
        other => ProposeError::Unknown { group, reason: other.to_string() },
    }
}

fn refuse(waiting: impl IntoIterator<Item = Proposal>, error: &ProposeError) {
    for proposal in waiting {
        let _ = proposal.reply.send(Err(error.clone()));
    }
}
