//! A group's replicas: who they are, how far they are, adding and removing them, handing over the lead.

use std::collections::{BTreeMap, BTreeSet};

use openraft::ChangeMembers;
use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::{ClientWriteError, InitializeError, RaftError};
use openraft::raft::TransferLeaderRequest;
use tokio::sync::watch;

use crate::group::Group;
use crate::log::convert::{log_id_from_raft, members, vote_from_raft};
use crate::log::type_config::{OnNode, TypeConfig};
use crate::standing::{Membership, Standing, leader_now};
use crate::types::{GroupId, NodeId, Replica, ReplicaId};

/// No id of a replica.
const NOBODY: ReplicaId = ReplicaId(0);

/// Why the replicas of a group were not changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ChangeError {
    /// Not changed: another node leads the group.
    #[error("this node does not lead group {group}")]
    NotLeader {
        /// The group.
        group: GroupId,
        /// The node that leads it, if that is known.
        leader: Option<NodeId>,
    },
    /// Not changed: another change is on its way, or this one makes no sense. Look at the membership and try again.
    #[error("the replicas of group {group} were not changed: {reason}")]
    Refused {
        /// The group.
        group: GroupId,
        /// Why.
        reason: String,
    },
    /// The group stopped or lost its leader; the change may take effect, wholly or in part.
    #[error("group {group} lost its leader or stopped while its replicas were changed: {reason}")]
    Unknown {
        /// The group.
        group: GroupId,
        /// What happened.
        reason: String,
    },
}

impl Group {
    /// Begins the log with these voters, this replica among them, unless it has begun.
    ///
    /// # Errors
    /// [`ChangeError::Refused`] if this replica is none of them; [`ChangeError::Unknown`] if the group is stopped.
    pub async fn initialize(&self, voters: &[Replica]) -> Result<(), ChangeError> {
        match self.raft().initialize(members(voters)).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(RaftError::APIError(error)) => Err(ChangeError::Refused { group: self.id(), reason: error.to_string() }),
            Err(error) => Err(ChangeError::Unknown { group: self.id(), reason: error.to_string() }),
        }
    }

    /// Whether the log has begun: by this replica, or by a leader that it heard of.
    pub async fn is_initialized(&self) -> bool {
        self.raft().is_initialized().await.unwrap_or(false)
    }

    /// How the group stands; the watch changes when leader, term or membership do, or its core dies.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Standing> {
        self.standing()
    }

    /// The replicas by the last membership in this node's log, be it committed or not.
    #[must_use]
    pub fn membership(&self) -> Membership {
        Membership::of(&self.raft().server_metrics().borrow_watched().membership_config)
    }

    /// Whether the other voters can decide by themselves to go on without this replica.
    #[must_use]
    pub fn can_be_spared(&self) -> bool {
        self.membership().can_spare(&BTreeSet::from([self.replica()]))
    }

    /// The voters that this node does not reach, if without them there is no majority. Allocates only then.
    #[must_use]
    pub fn missing_for_quorum(&self) -> Option<Vec<NodeId>> {
        self.quorum().missing()
    }

    /// Who leads the group, as far as this node knows.
    #[must_use]
    pub fn leader(&self) -> Option<ReplicaId> {
        leader_now(self.raft())
    }

    /// The node that leads the group, as far as this one knows. One that lags may hear a leader of whom its own log does not
    /// tell yet.
    #[must_use]
    pub fn leader_node(&self) -> Option<NodeId> {
        let leader = self.leader()?;
        if leader == self.replica() { Some(self.node()) } else { self.standing().borrow().membership.node_of(leader) }
    }

    /// Whether this replica believes that it leads.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.leader() == Some(self.replica())
    }

    /// The term in which this replica leads, if it believes that it does.
    #[must_use]
    pub fn leads_in(&self) -> Option<u64> {
        let standing = self.standing();
        let standing = standing.borrow();
        (standing.leader == Some(self.replica())).then_some(standing.term)
    }

    /// How far each replica's log agrees with that of this leader, by index; those of which nothing is known yet are
    /// missing. `None` if this replica does not lead.
    #[must_use]
    pub fn progress(&self) -> Option<BTreeMap<ReplicaId, u64>> {
        let metrics = self.raft().data_metrics();
        let metrics = metrics.borrow_watched();
        let replication = metrics.replication.as_ref()?;
        Some(replication.iter().filter_map(|(id, matched)| Some((*id, matched.as_ref()?.index))).collect())
    }

    /// Index of the last entry in this node's log.
    #[must_use]
    pub fn last_index(&self) -> Option<u64> {
        self.log().last().map(|last| last.index)
    }

    /// Index of the last entry that this node knows to be committed.
    #[must_use]
    pub fn committed_index(&self) -> Option<u64> {
        self.raft().data_metrics().borrow_watched().local_committed.map(|committed| committed.index)
    }

    /// Whether everything that this node knows to be committed is applied here.
    #[must_use]
    pub fn is_applied(&self) -> bool {
        let metrics = self.raft().data_metrics();
        let metrics = metrics.borrow_watched();
        metrics.last_applied >= metrics.local_committed
    }

    /// Has `replica` receive the log without a vote. Returns when that is committed; see [`Group::progress`] for how far
    /// it is.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn add_learner(&self, replica: Replica) -> Result<(), ChangeError> {
        let added = self.raft().add_learner(replica.id, OnNode(replica.node), false).await;
        added.map(|_| ()).map_err(|error| self.change_error(error))
    }

    /// Ends what [`Group::add_learner`] began.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn remove_learner(&self, replica: ReplicaId) -> Result<(), ChangeError> {
        self.change(ChangeMembers::RemoveNodes(BTreeSet::from([replica]))).await
    }

    /// Makes exactly these replicas the voters; who was one and is not among them gets nothing any more. All must be
    /// replicas already. Two steps (joint consensus): if it is cut off between them, the same call finishes it.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn change_voters(&self, voters: BTreeSet<ReplicaId>) -> Result<(), ChangeError> {
        self.change(ChangeMembers::ReplaceAllVoters(voters)).await
    }

    async fn change(&self, change: ChangeMembers<ReplicaId, OnNode>) -> Result<(), ChangeError> {
        let changed = self.raft().change_membership(change, false).await;
        changed.map(|_| ()).map_err(|error| self.change_error(error))
    }

    /// Asks a voter to take over the lead, and returns at once. Nothing happens if this replica does not lead.
    ///
    /// # Errors
    /// [`ChangeError::Unknown`] if the group is stopped.
    pub async fn transfer_leader(&self, to: ReplicaId) -> Result<(), ChangeError> {
        let asked = self.raft().trigger().transfer_leader(to).await;
        asked.map_err(|error| ChangeError::Unknown { group: self.id(), reason: error.to_string() })
    }

    /// An offer of the lead as openraft is to get it. It waits until what the leader has was written here, and takes nothing
    /// for written that was so before the core started: where nothing is appended, a replica that was restarted would never
    /// lead. What this replica has need not be asked for.
    pub(crate) fn without_what_is_here(&self, offer: TransferLeaderRequest<TypeConfig>) -> TransferLeaderRequest<TypeConfig> {
        match self.log().last() >= offer.last_log_id().map(log_id_from_raft) {
            true => TransferLeaderRequest::new(*offer.from_leader(), *offer.to_node_id(), None),
            false => offer,
        }
    }

    /// From now on this replica grants votes, and asks for them, as if the lease had run out that `leader` has in a term up
    /// to `term`.
    pub(crate) async fn waive_lease(&self, leader: ReplicaId, term: u64) {
        let vote = self.raft().server_metrics().borrow_watched().vote;
        if vote.committed && vote.leader_id.voted_for == leader && vote.leader_id.term <= term {
            // This is what a leader that gives up says to those who are not to succeed it.
            let _ = self.raft().handle_transfer_leader(TransferLeaderRequest::new(vote, NOBODY, None)).await;
        }
    }

    /// The replicas of the group that this one leads, if it does and they are committed.
    pub async fn settled(&self) -> Option<Membership> {
        self.read_barrier().await.ok()?;
        let metrics = self.raft().server_metrics();
        let metrics = metrics.borrow_watched();
        let membership = Membership::of(&metrics.membership_config);
        let settled = metrics.membership_config.log_id() == metrics.committed_membership_config.log_id() && !membership.joint;
        let vote = vote_from_raft(&metrics.vote);
        let leads = vote.committed && vote.voted_for == Some(metrics.id);
        (leads && settled).then_some(membership)
    }

    /// Whether this replica leads the group, and it is committed that `replica` has no role in it.
    pub async fn leads_without(&self, replica: ReplicaId) -> bool {
        self.settled().await.is_some_and(|membership| !membership.holds(replica))
    }

    fn change_error(&self, error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> ChangeError {
        let group = self.id();
        match error {
            RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
                ChangeError::NotLeader { group, leader: forward.leader_node.map(|OnNode(node)| node) }
            }
            RaftError::APIError(other) => ChangeError::Refused { group, reason: other.to_string() },
            RaftError::Fatal(fatal) => ChangeError::Unknown { group, reason: fatal.to_string() },
        }
    }
}
