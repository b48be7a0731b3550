//! How a group stands on this node: who leads it, who its replicas are, whether its core lives. Watched by one small
//! task per group, so that nobody has to poll a thousand groups.

use std::collections::{BTreeMap, BTreeSet};
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
use crate::log::type_config::{OnNode, RaftMembership, TypeConfig};
use crate::types::{GroupId, NodeId, ReplicaId};

type ServerMetrics = RaftServerMetrics<TypeConfig>;

/// What a replica believes about its group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standing {
    /// Who leads it, if that is known.
    pub leader: Option<ReplicaId>,
    /// The term that this replica is in.
    pub term: u64,
    /// Its replicas, by the last membership in the log.
    pub membership: Membership,
    /// Why its core ended by itself. [`Registry::restart`](crate::registry::Registry::restart) starts it again.
    pub died: Option<String>,
}

/// The replicas of a group, each with the node that it lives on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Membership {
    /// Who votes; while it changes, those of before and those of afterwards.
    pub voters: BTreeMap<ReplicaId, NodeId>,
    /// Who gets everything and does not vote.
    pub learners: BTreeMap<ReplicaId, NodeId>,
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

impl Standing {
    /// The node on which the leader lives, if both are known.
    #[must_use]
    pub fn leader_node(&self) -> Option<NodeId> {
        self.membership.node_of(self.leader?)
    }
}

impl Membership {
    /// Whether those voters who are none of `replicas` are a majority of all: then they can decide by themselves to go on
    /// without the others.
    #[must_use]
    pub fn can_spare(&self, replicas: &BTreeSet<ReplicaId>) -> bool {
        self.voters.keys().filter(|voter| !replicas.contains(voter)).count() > self.voters.len() / 2
    }

    /// Whether it is a replica, in whatever role.
    #[must_use]
    pub fn holds(&self, replica: ReplicaId) -> bool {
        self.node_of(replica).is_some()
    }

    /// Where a replica lives.
    #[must_use]
    pub fn node_of(&self, replica: ReplicaId) -> Option<NodeId> {
        self.voters.get(&replica).or_else(|| self.learners.get(&replica)).copied()
    }

    /// The voter that lives on a node; the newest, should the node have more than one.
    #[must_use]
    pub fn voter_on(&self, node: NodeId) -> Option<ReplicaId> {
        self.voters.iter().rev().find(|(_, on)| **on == node).map(|(id, _)| *id)
    }

    /// Who votes.
    #[must_use]
    pub fn voter_ids(&self) -> BTreeSet<ReplicaId> {
        self.voters.keys().copied().collect()
    }

    /// Nodes on which voters live.
    #[must_use]
    pub fn voter_nodes(&self) -> BTreeSet<NodeId> {
        self.voters.values().copied().collect()
    }

    pub(crate) fn of(stored: &RaftMembership) -> Self {
        let membership = stored.membership();
        let voters: BTreeSet<ReplicaId> = membership.voter_ids().collect();
        let nodes = membership.nodes().map(|(id, OnNode(node))| (*id, *node));
        let (voters, learners) = nodes.partition(|(id, _)| voters.contains(id));
        Self { voters, learners, joint: membership.get_joint_config().len() > 1 }
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

/// Who leads, for sure not this replica itself while it only did so before a restart.
fn leader(metrics: &ServerMetrics) -> Option<ReplicaId> {
    metrics.current_leader.filter(|leader| *leader != metrics.id || metrics.state == ServerState::Leader)
}

/// Who leads, as the core says now.
pub(crate) fn leader_now(raft: &Raft) -> Option<ReplicaId> {
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
