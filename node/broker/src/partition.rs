//! One partition that this node hosts.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use flotilla_machines::item;
use flotilla_machines::partition::{PartitionMachine, PartitionOutcome, command_payload};
use flotilla_proto::internal::v1::partition_command::Command;
use flotilla_raft::failure::Failure;
use flotilla_raft::group::{Group, ProposeError, Ticket};
use flotilla_raft::network::Peers;
use flotilla_raft::planted::{Bug, is_planted};
use flotilla_raft::types::Item;
use tokio::sync::watch;

use crate::error::{Failed, FetchError, NotServing, not_leader};
use crate::establish::Founding;
use crate::hosts::Shared;

/// How long a reader waits at once for a new leader to learn what is committed.
const CATCH_UP_PATIENCE: Duration = Duration::from_secs(1);
/// After how long without a leader, and without a majority that could elect one, a replica serves what it knows of. Longer
/// than the links of a node take to come up after a start, and than between two heartbeats.
const FORSAKEN_AFTER: Duration = Duration::from_secs(3);

/// The ends of a partition's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ends {
    /// The first offset that is still there.
    pub log_start_offset: u64,
    /// One behind the last record that this replica knows to be committed. There may be more: see [`Partition::barrier`].
    pub high_watermark: u64,
}

/// See the module. Cheap to clone through its [`Arc`].
pub(crate) struct Partition {
    pub(crate) topic: Arc<str>,
    pub(crate) number: u32,
    pub(crate) group: Group,
    pub(crate) machine: Shared<PartitionMachine>,
    ends: watch::Receiver<Ends>,
    failure: Failure,
    peers: Peers,
    pub(crate) founding: Founding,
    /// The term in which this replica, leading, is known to have applied what earlier leaders acknowledged; 0: in none.
    caught_up_term: AtomicU64,
}

/// A proposed item whose place in the log's order is fixed.
pub(crate) struct PartitionTicket {
    partition: Arc<Partition>,
    ticket: Ticket,
}

impl Partition {
    pub(crate) fn new(
        (topic, number): (Arc<str>, u32),
        group: Group,
        machine: Shared<PartitionMachine>,
        ends: watch::Receiver<Ends>,
        (failure, peers, founding): (Failure, Peers, Founding),
    ) -> Self {
        Self { topic, number, group, machine, ends, failure, peers, founding, caught_up_term: AtomicU64::new(0) }
    }

    /// In words, for messages.
    pub(crate) fn describe(&self) -> String {
        format!("partition {} of topic {:?}", self.number, self.topic)
    }

    pub(crate) fn ends(&self) -> Ends {
        *self.ends.borrow()
    }

    /// Whether somebody has accepted that there is nothing under these offsets.
    pub(crate) fn is_lost(&self, offsets: Range<u64>) -> bool {
        let lost = self.machine.lock().lost();
        lost.start <= offsets.start && offsets.end <= lost.end
    }

    /// Changes of the ends, from now on.
    pub(crate) fn watch(&self) -> watch::Receiver<Ends> {
        self.ends.clone()
    }

    /// Waits for room, then proposes a batch; returns once its place in the order is fixed.
    pub(crate) async fn submit_batch(self: &Arc<Self>, batch: Bytes) -> Result<PartitionTicket, Failed> {
        self.submit(Item { kind: item::BATCH, payload: batch }).await
    }

    /// Proposes a command and waits for its outcome.
    pub(crate) async fn command(self: &Arc<Self>, command: Command) -> Result<PartitionOutcome, Failed> {
        let item = Item { kind: item::COMMAND, payload: command_payload(command) };
        self.submit(item).await?.outcome().await
    }

    async fn submit(self: &Arc<Self>, item: Item) -> Result<PartitionTicket, Failed> {
        if let Some(reason) = self.failure.get() {
            return Err(Failed::NotServing(NotServing::StorageFailed { reason }));
        }
        self.require_quorum().map_err(Failed::NotServing)?;
        if !self.founding.done(self.group.id().0).await {
            return Err(Failed::NotServing(NotServing::NotReady { what: self.describe() }));
        }
        let admitted = self.group.admit(item.payload.len()).await.map_err(|error| self.failed(error))?;
        Ok(PartitionTicket { partition: self.clone(), ticket: admitted.submit(item) })
    }

    /// Refuses what could only wait: without a majority nothing is committed or confirmed.
    fn require_quorum(&self) -> Result<(), NotServing> {
        match self.group.missing_for_quorum() {
            None => Ok(()),
            Some(offline) => Err(NotServing::NoQuorum { what: self.describe(), offline }),
        }
    }

    fn is_me(&self, node_id: u64) -> bool {
        node_id == self.peers.node_id()
    }

    fn failed(&self, error: ProposeError) -> Failed {
        match error {
            ProposeError::Stopped { .. } if self.group.watch().borrow().died.is_some() && self.failure.get().is_none() => {
                Failed::NotServing(NotServing::NotReady { what: self.describe() })
            }
            ProposeError::Unknown { .. } if is_planted(Bug::UnknownCalledFailed) => {
                Failed::NotServing(NotServing::NotReady { what: self.describe() })
            }
            error => Failed::of(error, || self.describe(), self.failure.get()),
        }
    }

    /// Returns once everything acknowledged before this call can be read here: then [`Partition::ends`] are the log's.
    pub(crate) async fn barrier(&self) -> Result<(), NotServing> {
        self.require_quorum()?;
        let barrier = self.group.read_barrier().await;
        barrier.map_err(|error| match not_leader(error, || self.describe()) {
            // Whoever else may lead, it is not known who.
            Ok(NotServing::NotLeader { what, leader }) if leader.as_ref().is_none_or(|(node_id, _)| self.is_me(*node_id)) => {
                NotServing::Unconfirmed { what }
            }
            Ok(not_serving) => not_serving,
            Err(reason) => NotServing::Damaged { what: self.describe(), reason },
        })
    }

    /// Whether this replica may be read. Once a term its leader applies all that earlier leaders acknowledged before it
    /// says yes, in a round to the other replicas: one that was just elected may know of an older high watermark than a
    /// client saw at its predecessor. So may a replica that does not lead: it is read only where nobody can lead. What it
    /// has is committed then, though there may be more.
    pub(crate) async fn may_be_read(&self) -> bool {
        // Before the barrier: one that was passed in this term says nothing of a later one.
        let term = self.group.term();
        if self.group.is_leader() {
            if self.caught_up_term.load(Ordering::Acquire) == term {
                return true;
            }
            if let Ok(Ok(())) = tokio::time::timeout(CATCH_UP_PATIENCE, self.barrier()).await {
                self.caught_up_term.fetch_max(term, Ordering::AcqRel);
                return true;
            }
        }
        self.group.silence() >= FORSAKEN_AFTER && self.require_quorum().is_err()
    }

    /// Whether nobody was told of a later end of the log, as far as can be known without asking the other replicas.
    pub(crate) fn is_end_certain(&self) -> bool {
        if is_planted(Bug::EndAlwaysCertain) {
            return true;
        }
        let caught_up = self.caught_up_term.load(Ordering::Acquire) == self.group.term();
        caught_up && self.group.is_leader() && self.require_quorum().is_ok()
    }

    /// Returns when the log goes on behind `offset`, or after `patience`.
    pub(crate) async fn wait_for(&self, offset: u64, patience: Duration) -> Result<(), FetchError> {
        let mut ends = self.watch();
        let behind = ends.wait_for(|ends| ends.high_watermark > offset);
        match tokio::time::timeout(patience, behind).await {
            Ok(Ok(_)) | Err(_) => Ok(()),
            Ok(Err(_)) => Err(NotServing::ShuttingDown.into()),
        }
    }

    /// Returns when the partition is closing.
    pub(crate) async fn closed(&self) -> FetchError {
        let mut ends = self.watch();
        while ends.changed().await.is_ok() {}
        NotServing::ShuttingDown.into()
    }
}

impl PartitionTicket {
    pub(crate) async fn outcome(self) -> Result<PartitionOutcome, Failed> {
        let outcome = self.ticket.outcome().await.map_err(|error| self.partition.failed(error))?;
        match outcome.downcast::<PartitionOutcome>() {
            Ok(outcome) => Ok(*outcome),
            Err(_) => Err(Failed::Unknown { reason: "the partition answered something else: report this as a defect".into() }),
        }
    }
}
