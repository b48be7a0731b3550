//! The leader's side of a replica that is damaged or lost: its own node asks that the group go on without it, for as long as it asks.
//! Where the other voters are a majority, memberships are made so (`moves.rs`, `steward.rs`). When that is committed, the metadata
//! gives the node another replica of the group, under an id of its own, which copies from the others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flotilla_proto::internal::v1;
use flotilla_proto::internal::v1::controller_command::Command;
use flotilla_raft::group::Group;
use flotilla_raft::standing::Membership;
use flotilla_raft::types::ReplicaId;
use futures::StreamExt;
use tokio::time::Instant;
use tonic::Status;

use crate::broker::Broker;
use crate::peer_calls::Proposed;

/// A node that has not asked for so long does not want it any more.
const ASKED_WITHIN: Duration = Duration::from_secs(5);
/// How long a leader may take to confirm that it leads, so that one that does not holds up no other group.
const CONFIRM_PATIENCE: Duration = Duration::from_secs(1);
/// Groups that are looked at together.
const GROUPS_AT_ONCE: usize = 32;

/// Which replicas asked to be let go of by which group, and when they did last.
#[derive(Default)]
pub(crate) struct Releases {
    asked: Mutex<BTreeMap<u64, BTreeMap<ReplicaId, Instant>>>,
}

impl Releases {
    fn ask(&self, group_id: u64, replica: ReplicaId) {
        self.lock().entry(group_id).or_default().insert(replica, Instant::now());
    }

    fn done(&self, group_id: u64, replica: ReplicaId) {
        let mut asked = self.lock();
        if let Some(replicas) = asked.get_mut(&group_id) {
            replicas.remove(&replica);
        }
    }

    /// Whether a replica has asked to be let go, and is not yet.
    pub(crate) fn is_asked(&self, group_id: u64, replica: ReplicaId) -> bool {
        let asked = self.lock();
        let since = asked.get(&group_id).and_then(|replicas| replicas.get(&replica));
        since.is_some_and(|since| since.elapsed() < ASKED_WITHIN)
    }

    /// The replicas without which the group is to go on for now, as far as it can.
    pub(crate) fn of(&self, group_id: u64, membership: &Membership) -> BTreeSet<ReplicaId> {
        let mut asked = self.lock();
        let Some(replicas) = asked.get_mut(&group_id) else { return BTreeSet::new() };
        replicas.retain(|_, since| since.elapsed() < ASKED_WITHIN);
        let replicas: BTreeSet<ReplicaId> = replicas.keys().copied().collect();
        if replicas.is_empty() {
            asked.remove(&group_id);
        }
        if membership.can_spare(&replicas) { replicas } else { BTreeSet::new() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, BTreeMap<ReplicaId, Instant>>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Broker {
    /// Answers a node that has damaged or lost these replicas.
    pub(crate) async fn release(&self, request: v1::ReleaseRequest) -> Result<v1::ReleaseResponse, Status> {
        let v1::ReleaseRequest { node_id, directory_id, replicas } = request;
        // A node that lost everything and came back under its old id is no member whose replicas are to be healed.
        let known = self.image().node(node_id).and_then(|node| node.directory_id);
        if known.is_none_or(|known| known.0[..] != directory_id[..]) {
            return Err(Status::failed_precondition(format!("node {node_id} is not registered with these data")));
        }
        let controller_asked = replicas.iter().any(|lost| lost.group_id == 0);
        let led = replicas.into_iter().filter_map(|lost| Some((lost, self.led_group(lost.group_id)?)));
        let answers = futures::stream::iter(led.map(|(lost, group)| self.release_one(node_id, lost, group)));
        let mut response = v1::ReleaseResponse::default();
        for answer in answers.buffer_unordered(GROUPS_AT_ONCE).collect::<Vec<_>>().await {
            match answer {
                Released::Renewed { group_id: 0, replica_id } => response.controller_replica = replica_id,
                Released::Needed(group_id) => response.needed.push(group_id),
                Released::Renewed { .. } | Released::NotYet => {}
            }
        }
        let elsewhere = self.controller_leader().filter(|leader| controller_asked && *leader != self.node_id());
        response.controller_address = elsewhere.and_then(|leader| self.peer_address(leader)).unwrap_or_default();
        Ok(response)
    }

    async fn release_one(&self, node_id: u64, lost: v1::LostReplica, group: Group) -> Released {
        let (membership, group_id) = (group.membership(), lost.group_id);
        let lost = match self.controller_replica(node_id).filter(|named| group_id == 0 && *named != lost.replica_id) {
            // It does not know which one it has lost, or did not get the answer when it asked before. The one that is named may
            // have been counted on since: it is never given out a second time.
            Some(named) => v1::LostReplica { group_id, replica_id: named },
            None => lost,
        };
        let replica = ReplicaId(lost.replica_id);
        if group_id != 0 && self.replica_on(group_id, node_id) != Some(replica) {
            // Another took its place already, or it lives elsewhere.
            return Released::NotYet;
        }
        let gone = async { !membership.holds(replica) && group.leads_without(replica).await };
        if matches!(tokio::time::timeout(CONFIRM_PATIENCE, gone).await, Ok(true)) {
            self.inner.releases.done(group_id, replica);
            return self.renew(node_id, lost).await;
        }
        self.inner.releases.ask(group_id, replica);
        if membership.can_spare(&BTreeSet::from([replica])) { Released::NotYet } else { Released::Needed(group_id) }
    }

    /// The group goes on without the replica: another is to take its place.
    async fn renew(&self, node_id: u64, lost: v1::LostReplica) -> Released {
        let v1::LostReplica { group_id, replica_id } = lost;
        match self.control_anywhere(Command::RenewReplica(v1::RenewReplica { group_id, replica_id })).await {
            Proposed::Done(done) => {
                tracing::warn!(
                    group_id,
                    node_id,
                    replica_id,
                    renewed = done.replica_id,
                    "another replica takes its place, and copies"
                );
                Released::Renewed { group_id, replica_id: done.replica_id }
            }
            Proposed::Refused(reason) => {
                tracing::warn!(group_id, node_id, replica_id, reason, "no other replica takes its place");
                Released::NotYet
            }
            Proposed::NotLeader(_) | Proposed::Unknown(_) => Released::NotYet,
        }
    }

    fn replica_on(&self, group_id: u64, node_id: u64) -> Option<ReplicaId> {
        self.image().partition(group_id)?.on(node_id).map(|replica| ReplicaId(replica.id))
    }

    fn controller_replica(&self, node_id: u64) -> Option<u64> {
        self.image().node(node_id).map(|node| node.controller_replica)
    }

    fn led_group(&self, group_id: u64) -> Option<Group> {
        let group = if group_id == 0 { Some((*self.controller()).clone()) } else { self.hosted_group(group_id) };
        group.filter(Group::is_leader)
    }
}

enum Released {
    /// Another replica is in its place, or nobody needs to be.
    Renewed {
        group_id: u64,
        replica_id: Option<u64>,
    },
    /// Without the replica the others are no majority.
    Needed(u64),
    NotYet,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_is_left_out_only_if_the_others_are_a_majority() {
        let releases = Releases::default();
        let membership = |voters: &[u64]| {
            let voters = voters.iter().map(|id| (ReplicaId(*id), *id)).collect();
            Membership { voters, ..Membership::default() }
        };
        let set = |ids: &[u64]| ids.iter().copied().map(ReplicaId).collect::<BTreeSet<_>>();
        let three = membership(&[1, 2, 3]);
        assert_eq!(releases.of(7, &three), set(&[]));
        releases.ask(7, ReplicaId(3));
        assert_eq!(releases.of(7, &three), set(&[3]));
        assert_eq!(releases.of(8, &three), set(&[]), "another group");
        for too_few in [membership(&[3]), membership(&[2, 3]), membership(&[])] {
            assert_eq!(releases.of(7, &too_few), set(&[]), "{too_few:?}");
        }
        releases.ask(7, ReplicaId(2));
        assert_eq!(releases.of(7, &three), set(&[]), "two of three are too many");
        assert_eq!(releases.of(7, &membership(&[1, 2, 3, 4, 5])), set(&[2, 3]));
        releases.done(7, ReplicaId(2));
        assert_eq!(releases.of(7, &three), set(&[3]));
    }
}
