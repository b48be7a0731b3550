//! A group's replicas: who they are, how far they are, adding and removing them, handing over the lead.

use std::collections::{BTreeMap, BTreeSet};

use openraft::ChangeMembers;
use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::{ClientWriteError, InitializeError, RaftError};
use openraft::impls::EmptyNode;
use openraft::raft::TransferLeaderRequest;
use tokio::sync::watch;

use crate::group::Group;
use crate::log::convert::{log_id_from_raft, vote_from_raft};
use crate::log::type_config::TypeConfig;
use crate::standing::{Membership, Standing, leader_now};
use crate::types::{GroupId, NodeId, Vote};

/// No id of a node.
const NOBODY: NodeId = 0;

/// Why the replicas of a group were not changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ChangeError {
    /// Not changed: another node leads the group.
    #[error("this node does not lead group {group}")]
    NotLeader {
        /// The group.
        group: GroupId,
        /// Who leads it, if that is known.
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
    /// Begins the log with these voters, this node among them, unless it has begun.
    ///
    /// # Errors
    /// [`ChangeError::Refused`] if this node is none of them; [`ChangeError::Unknown`] if the group is stopped.
    pub async fn initialize(&self, voters: BTreeSet<NodeId>) -> Result<(), ChangeError> {
        let members: BTreeMap<NodeId, EmptyNode> = voters.into_iter().map(|id| (id, EmptyNode::new())).collect();
        match self.raft().initialize(members).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(RaftError::APIError(error)) => Err(ChangeError::Refused { group: self.id(), reason: error.to_string() }),
            Err(error) => Err(ChangeError::Unknown { group: self.id(), reason: error.to_string() }),
        }
    }

    /// Whether the log has begun: by this node, or by a leader that it heard of.
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
        self.membership().can_spare(&BTreeSet::from([*self.raft().node_id()]))
    }

    /// The voters that are not `online`, if without them there is no majority. Allocates only then.
    #[must_use]
    pub fn missing_for_quorum(&self, online: impl Fn(NodeId) -> bool) -> Option<Vec<NodeId>> {
        let standing = self.standing();
        let standing = standing.borrow();
        let voters = &standing.membership.voters;
        let reached = voters.iter().filter(|voter| online(**voter)).count();
        // Of a joint membership both halves are needed; that is found out by asking.
        let enough = reached > voters.len() / 2 || standing.membership.joint || voters.is_empty();
        (!enough).then(|| voters.iter().copied().filter(|voter| !online(*voter)).collect())
    }

    /// Who leads the group, as far as this node knows.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        leader_now(self.raft())
    }

    /// Whether this node believes that it leads.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.leader() == Some(*self.raft().node_id())
    }

    /// How far each replica's log agrees with that of this leader, by index; those of which nothing is known yet are
    /// missing. `None` if this node does not lead.
    #[must_use]
    pub fn progress(&self) -> Option<BTreeMap<NodeId, u64>> {
        let metrics = self.raft().data_metrics();
        let metrics = metrics.borrow_watched();
        let replication = metrics.replication.as_ref()?;
        Some(replication.iter().filter_map(|(node, matched)| Some((*node, matched.as_ref()?.index))).collect())
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

    /// Has `node` receive the log without a vote. Returns when that is committed; see [`Group::progress`] for how far
    /// the node is.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn add_learner(&self, node: NodeId) -> Result<(), ChangeError> {
        let added = self.raft().add_learner(node, EmptyNode::new(), false).await;
        added.map(|_| ()).map_err(|error| self.change_error(error))
    }

    /// Ends what [`Group::add_learner`] began.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn remove_learner(&self, node: NodeId) -> Result<(), ChangeError> {
        self.change(ChangeMembers::RemoveNodes(BTreeSet::from([node]))).await
    }

    /// Makes exactly these replicas the voters; who was one and is not among them gets nothing any more. All must be
    /// replicas already. Two steps (joint consensus): if it is cut off between them, the same call finishes it.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn change_voters(&self, voters: BTreeSet<NodeId>) -> Result<(), ChangeError> {
        self.change(ChangeMembers::ReplaceAllVoters(voters)).await
    }

    async fn change(&self, change: ChangeMembers<NodeId, EmptyNode>) -> Result<(), ChangeError> {
        let changed = self.raft().change_membership(change, false).await;
        changed.map(|_| ()).map_err(|error| self.change_error(error))
    }

    /// Asks `node`, a voter, to take over the lead, and returns at once. Nothing happens if this node does not lead.
    ///
    /// # Errors
    /// [`ChangeError::Unknown`] if the group is stopped.
    pub async fn transfer_leader(&self, node: NodeId) -> Result<(), ChangeError> {
        let asked = self.raft().trigger().transfer_leader(node).await;
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

    /// From now on this node grants votes, and asks for them, as if the lease had run out that `leader` has in a term up to
    /// `term`.
    pub(crate) async fn waive_lease(&self, leader: NodeId, term: u64) {
        let vote = self.raft().server_metrics().borrow_watched().vote;
        if vote.committed && vote.leader_id.voted_for == leader && vote.leader_id.term <= term {
            // This is what a leader that gives up says to those who are not to succeed it.
            let _ = self.raft().handle_transfer_leader(TransferLeaderRequest::new(vote, NOBODY, None)).await;
        }
    }

    /// The replicas of the group that this node leads, and the vote with which it does, if it does and they are committed.
    pub async fn settled(&self) -> Option<(Membership, Vote)> {
        self.read_barrier().await.ok()?;
        let metrics = self.raft().server_metrics();
        let metrics = metrics.borrow_watched();
        let membership = Membership::of(&metrics.membership_config);
        let settled = metrics.membership_config.log_id() == metrics.committed_membership_config.log_id() && !membership.joint;
        let vote = vote_from_raft(&metrics.vote);
        let leads = vote.committed && vote.voted_for == Some(metrics.id);
        (leads && settled).then_some((membership, vote))
    }

    /// The vote with which this node leads the group, if it does, and if it is committed that `node` is no replica of it, in
    /// no role.
    pub async fn leads_without(&self, node: NodeId) -> Option<Vote> {
        let (membership, vote) = self.settled().await?;
        (!membership.voters.contains(&node) && !membership.learners.contains(&node)).then_some(vote)
    }

    fn change_error(&self, error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> ChangeError {
        let group = self.id();
        match error {
            RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
                ChangeError::NotLeader { group, leader: forward.leader_id }
            }
            RaftError::APIError(other) => ChangeError::Refused { group, reason: other.to_string() },
            RaftError::Fatal(fatal) => ChangeError::Unknown { group, reason: fatal.to_string() },
        }
    }
}
