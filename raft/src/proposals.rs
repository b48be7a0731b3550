//! Turns a stream of proposals into log entries: whatever waits goes into the next entry, up to a size.

use std::sync::{Arc, Mutex, PoisonError};

use openraft::errors::ClientWriteError;
use openraft::impls::ProgressResponder;
use openraft::raft::ClientWriteResult;
use openraft::type_config::alias::OneshotReceiverOf;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::group::{ProposeError, Raft};
use crate::lease;
use crate::log::type_config::{Command, OnNode, TypeConfig};
use crate::machine::Outcome;
use crate::network::Urgency;
use crate::types::{GroupId, Item};

/// Payload bytes after which an entry is full (a single larger proposal still goes, alone).
const ENTRY_BYTES_MAX: usize = 1 << 20;
/// Items in one entry at most.
const ENTRY_ITEMS_MAX: usize = 4096;
/// Entries of one group on their way at once, if they are large: one is synced while the next is made.
const ENTRIES_IN_FLIGHT: u32 = 2;
/// Payload bytes from which on an entry is worth a way of its own; smaller ones ride together in the next.
const LARGE_ENTRY_BYTES: usize = 128 << 10;

/// One item and who waits for its outcome.
pub(crate) struct Proposal {
    pub(crate) item: Item,
    pub(crate) reply: oneshot::Sender<Result<Outcome, ProposeError>>,
    /// The proposal's room in memory, given back when it is answered.
    pub(crate) permit: OwnedSemaphorePermit,
}

/// Makes the item that goes before all others of an entry, if the machine wants one (such as the leader's clock).
pub type Preamble = Arc<dyn Fn() -> Option<Item> + Send + Sync>;

/// The group's queue of proposals. Its length is bounded by admission.
pub(crate) struct Proposals {
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
    pub(crate) fn start(group: GroupId, raft: Raft, preamble: Option<Preamble>, urgency: Urgency) -> Self {
        #[expect(clippy::disallowed_methods, reason = "bounded by the admission semaphore")]
        let (tx, rx) = mpsc::unbounded_channel();
        let (in_flight, answered) = mpsc::channel(ENTRIES_IN_FLIGHT as usize);
        tokio::spawn(propose(group, (raft, urgency), preamble, rx, in_flight));
        tokio::spawn(complete(group, answered));
        Self { queue: Mutex::new(Some(tx)) }
    }

    pub(crate) fn submit(&self, proposal: Proposal) {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = queue.as_ref() {
            // A closed queue drops the proposal, and with it the reply: the outcome is unknown.
            let _ = queue.send(proposal);
        }
    }

    pub(crate) fn close(&self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

async fn propose(
    group: GroupId,
    (raft, urgency): (Raft, Urgency),
    preamble: Option<Preamble>,
    mut queue: mpsc::UnboundedReceiver<Proposal>,
    in_flight: mpsc::Sender<InFlight>,
) {
    let slots = Arc::new(Semaphore::new(ENTRIES_IN_FLIGHT as usize));
    let mut held_back = None;
    loop {
        let first = match held_back.take() {
            Some(first) => first,
            None => match queue.recv().await {
                Some(first) => first,
                None => return,
            },
        };
        let mut gathered = Gathered::new(first);
        held_back = gathered.fill(&mut queue);
        // A large entry goes while another is on its way; small ones wait for it together.
        let needed = if gathered.bytes >= LARGE_ENTRY_BYTES { 1 } else { ENTRIES_IN_FLIGHT };
        let Ok(slot) = slots.clone().acquire_many_owned(needed).await else { return };
        lease::confirmed(&raft, &urgency).await;
        // Whoever is about to submit does so first: else the first of many that come together would go alone, and all the
        // others wait for it.
        tokio::task::yield_now().await;
        if held_back.is_none() {
            held_back = gathered.fill(&mut queue);
        }
        let waiting = gathered.waiting;
        let preamble = preamble.as_ref().and_then(|preamble| preamble());
        let preamble_items = usize::from(preamble.is_some());
        let items = preamble.into_iter().chain(waiting.iter().map(|proposal| proposal.item.clone()));
        let command = Command(items.collect());
        let (responder, answer) = ProgressResponder::complete_only();
        if raft.client_write_ff(command, Some(responder)).await.is_err() {
            refuse(waiting, &ProposeError::Stopped { group });
            return;
        }
        if in_flight.send(InFlight { answer, preamble_items, waiting, slot }).await.is_err() {
            return;
        }
    }
}

/// What goes into one entry.
struct Gathered {
    waiting: Vec<Proposal>,
    bytes: usize,
}

impl Gathered {
    fn new(first: Proposal) -> Self {
        Self { bytes: first.item.payload.len(), waiting: vec![first] }
    }

    /// Takes what waits, up to an entry's size; what does not fit any more is handed back.
    fn fill(&mut self, queue: &mut mpsc::UnboundedReceiver<Proposal>) -> Option<Proposal> {
        while self.waiting.len() < ENTRY_ITEMS_MAX {
            let next = queue.try_recv().ok()?;
            if self.bytes + next.item.payload.len() > ENTRY_BYTES_MAX {
                return Some(next);
            }
            self.bytes += next.item.payload.len();
            self.waiting.push(next);
        }
        None
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
                    drop(proposal.permit);
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

fn refuse(waiting: Vec<Proposal>, error: &ProposeError) {
    for proposal in waiting {
        let _ = proposal.reply.send(Err(error.clone()));
    }
}
