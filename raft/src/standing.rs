//! How a group stands on this node: who leads it, who its replicas are, whether its core lives. Watched by one small
//! task per group, so that nobody has to poll a thousand groups.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use openraft::async_runtime::WatchReceiver as _;
use openraft::metrics::RaftServerMetrics;
use openraft::type_config::alias::WatchReceiverOf;
use openraft::{RaftMetrics, ServerState};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::group::Raft;
use crate::heard::Heard;
use crate::log::type_config::{RaftMembership, TypeConfig};
use crate::types::{GroupId, NodeId};

type ServerMetrics = RaftServerMetrics<TypeConfig>;

/// What this node believes about a group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standing {
    /// Who leads it, if that is known.
    pub leader: Option<NodeId>,
    /// The term that this node is in.
    pub term: u64,
    /// Its replicas, by the last membership in the log.
    pub membership: Membership,
    /// Why its core ended by itself. [`Registry::restart`](crate::registry::Registry::restart) starts it again.
    pub died: Option<String>,
}

/// The replicas of a group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Membership {
    /// Who votes; while it changes, those of before and those of afterwards.
    pub voters: BTreeSet<NodeId>,
    /// Who gets everything and does not vote.
    pub learners: BTreeSet<NodeId>,
    /// Whether voters are being exchanged: both the old and the new ones must agree to everything.
    pub joint: bool,
}

/// Which groups changed, over all groups of a node.
#[derive(Debug)]
pub(crate) struct Changes {
    groups: Mutex<BTreeSet<GroupId>>,
    count: watch::Sender<u64>,
    /// Times that this node began to lead a group.
    elections_won: AtomicU64,
}

impl Membership {
    /// Whether those voters who are none of `nodes` are a majority of all: then they can decide by themselves to go on
    /// without the others.
    #[must_use]
    pub fn can_spare(&self, nodes: &BTreeSet<NodeId>) -> bool {
        self.voters.difference(nodes).count() > self.voters.len() / 2
    }

    pub(crate) fn of(stored: &RaftMembership) -> Self {
        let membership = stored.membership();
        Self {
            voters: membership.voter_ids().collect(),
            learners: membership.learner_ids().collect(),
            joint: membership.get_joint_config().len() > 1,
        }
    }
}

impl Changes {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { groups: Mutex::default(), count: watch::Sender::new(0), elections_won: AtomicU64::new(0) })
    }

    pub(crate) fn note(&self, group: GroupId) {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner).insert(group);
        self.count.send_modify(|count| *count = count.wrapping_add(1));
    }

    pub(crate) fn take(&self) -> BTreeSet<GroupId> {
        std::mem::take(&mut *self.groups.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.count.subscribe()
    }

    pub(crate) fn elections_won(&self) -> u64 {
        self.elections_won.load(Ordering::Relaxed)
    }
}

/// Who leads, for sure not this node itself while it only did so before a restart.
fn leader(metrics: &ServerMetrics) -> Option<NodeId> {
    metrics.current_leader.filter(|leader| *leader != metrics.id || metrics.state == ServerState::Leader)
}

/// Who leads, as the core says now.
pub(crate) fn leader_now(raft: &Raft) -> Option<NodeId> {
    leader(&raft.server_metrics().borrow_watched())
}

/// What a group's watcher looks at. No handle of the core: that would keep it alive.
pub(crate) struct Watched {
    group: GroupId,
    server: WatchReceiverOf<TypeConfig, ServerMetrics>,
    all: WatchReceiverOf<TypeConfig, RaftMetrics<TypeConfig>>,
    damage: watch::Receiver<Option<String>>,
    heard: Arc<Heard>,
}

impl Watched {
    pub(crate) fn new(group: GroupId, raft: &Raft, damage: watch::Receiver<Option<String>>, heard: Arc<Heard>) -> Self {
        Self { group, server: raft.server_metrics(), all: raft.metrics(), damage, heard }
    }

    /// Keeps `standing` up to date until the group is stopped or its core has died. `machine_gone` is cancelled when
    /// the task ends that applies entries.
    pub(crate) async fn keep(
        mut self,
        standing: watch::Sender<Standing>,
        changes: Arc<Changes>,
        (stopping, machine_gone): (CancellationToken, CancellationToken),
    ) {
        let me = self.server.borrow_watched().id;
        loop {
            let now = self.now();
            let led = |standing: &Standing| (standing.leader == Some(me)).then_some(standing.term);
            if led(&now).is_some() && led(&now) != led(&standing.borrow()) {
                changes.elections_won.fetch_add(1, Ordering::Relaxed);
            }
            // Whoever leads since now is not silent, however long the one before was.
            if (now.leader, now.term) != (standing.borrow().leader, standing.borrow().term) {
                self.heard.note();
            }
            let changed = standing.send_if_modified(|before| {
                let differs = *before != now;
                *before = now;
                differs
            });
            if changed {
                changes.note(self.group);
            }
            tokio::select! {
                biased;
                () = stopping.cancelled() => return,
                () = machine_gone.cancelled() => break,
                alive = self.server.changed() => if alive.is_err() { break },
                Ok(()) = self.damage.changed() => changes.note(self.group),
            }
        }
        // A core that is stopped ends a moment later than it is told to.
        if stopping.is_cancelled() {
            return;
        }
        let reason = match &self.all.borrow_watched().running_state {
            Err(fatal) => fatal.to_string(),
            Ok(()) => "a task of it panicked".to_owned(),
        };
        tracing::error!(group = %self.group, reason, "the group's core died; it is to be started again from the disk");
        standing.send_modify(|standing| (standing.leader, standing.died) = (None, Some(reason)));
        changes.note(self.group);
    }

    fn now(&self) -> Standing {
        let metrics = self.server.borrow_watched();
        let membership = Membership::of(&metrics.membership_config);
        Standing { leader: leader(&metrics), term: metrics.vote.leader_id.term, membership, died: None }
    }
}
