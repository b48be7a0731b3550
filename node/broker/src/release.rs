//! The leader's side of a damaged replica: its own node asks that the group go on without it, for as long as it asks.
//! Where the other voters are a majority, memberships are made so (`moves.rs`, `steward.rs`); only when that is committed
//! is the node told, and begins again without data. When it does not ask any more, it becomes a replica again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flotilla_proto::internal::v1;
use flotilla_raft::group::Group;
use flotilla_raft::standing::Membership;
use futures::StreamExt;
use tokio::time::Instant;
use tonic::Status;

use crate::broker::Broker;

/// A node that has not asked for so long does not want it any more.
const ASKED_WITHIN: Duration = Duration::from_secs(5);
/// How long a leader may take to confirm that it leads, so that one that does not holds up no other group.
const CONFIRM_PATIENCE: Duration = Duration::from_secs(1);
/// Groups that are looked at together.
const GROUPS_AT_ONCE: usize = 32;

/// Which nodes asked to be no replica of which group, and when they did last.
#[derive(Default)]
pub(crate) struct Releases {
    asked: Mutex<BTreeMap<u64, BTreeMap<u64, Instant>>>,
}

impl Releases {
    fn ask(&self, group_id: u64, node_id: u64) {
        self.lock().entry(group_id).or_default().insert(node_id, Instant::now());
    }

    fn done(&self, group_id: u64, node_id: u64) {
        let mut asked = self.lock();
        if let Some(nodes) = asked.get_mut(&group_id) {
            nodes.remove(&node_id);
        }
    }

    /// Whether a node has asked to be let go, and is not yet.
    pub(crate) fn is_asked(&self, group_id: u64, node_id: u64) -> bool {
        let asked = self.lock();
        let since = asked.get(&group_id).and_then(|nodes| nodes.get(&node_id));
        since.is_some_and(|since| since.elapsed() < ASKED_WITHIN)
    }

    /// The nodes without which the group is to go on for now, as far as it can.
    pub(crate) fn of(&self, group_id: u64, membership: &Membership) -> BTreeSet<u64> {
        let mut asked = self.lock();
        let Some(nodes) = asked.get_mut(&group_id) else { return BTreeSet::new() };
        nodes.retain(|_, since| since.elapsed() < ASKED_WITHIN);
        let nodes: BTreeSet<u64> = nodes.keys().copied().collect();
        if nodes.is_empty() {
            asked.remove(&group_id);
        }
        if membership.can_spare(&nodes) { nodes } else { BTreeSet::new() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, BTreeMap<u64, Instant>>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Broker {
    /// Answers a node whose data of these groups is damaged.
    pub(crate) async fn release(&self, request: v1::ReleaseRequest) -> Result<v1::ReleaseResponse, Status> {
        let v1::ReleaseRequest { node_id, directory_id, group_ids } = request;
        // A node that lost everything and came back under its old id is no replica that is to be healed.
        let known = self.image().node(node_id).and_then(|node| node.directory_id);
        if known.is_none_or(|known| known.0[..] != directory_id[..]) {
            return Err(Status::failed_precondition(format!("node {node_id} is not registered with these data")));
        }
        let controller_asked = group_ids.contains(&0);
        let led = group_ids.into_iter().filter_map(|group_id| Some((group_id, self.led_group(group_id)?)));
        let answers = futures::stream::iter(led.map(|(group_id, group)| self.release_one(node_id, group_id, group)));
        let mut response = v1::ReleaseResponse::default();
        for answer in answers.buffer_unordered(GROUPS_AT_ONCE).collect::<Vec<_>>().await {
            match answer {
                Released::Yes(group) => response.released.push(group),
                Released::Needed(group_id) => response.needed.push(group_id),
                Released::NotYet => {}
            }
        }
        let elsewhere = self.controller_leader().filter(|leader| controller_asked && *leader != self.node_id());
        response.controller_address = elsewhere.and_then(|leader| self.peer_address(leader)).unwrap_or_default();
        Ok(response)
    }

    async fn release_one(&self, node_id: u64, group_id: u64, group: Group) -> Released {
        let membership = group.membership();
        let holds = membership.voters.contains(&node_id) || membership.learners.contains(&node_id);
        let released = async { if holds { None } else { group.leads_without(node_id).await } };
        if let Ok(Some(vote)) = tokio::time::timeout(CONFIRM_PATIENCE, released).await {
            self.inner.releases.done(group_id, node_id);
            tracing::warn!(group_id, node_id, "the group goes on without a damaged replica, which will copy from the others");
            let leader = vote.voted_for.unwrap_or_default();
            return Released::Yes(v1::ReleasedGroup { group_id, term: vote.term, leader });
        }
        self.inner.releases.ask(group_id, node_id);
        if membership.can_spare(&BTreeSet::from([node_id])) { Released::NotYet } else { Released::Needed(group_id) }
    }

    fn led_group(&self, group_id: u64) -> Option<Group> {
        let group = if group_id == 0 { Some((*self.controller()).clone()) } else { self.hosted_group(group_id) };
        group.filter(Group::is_leader)
    }
}

enum Released {
    Yes(v1::ReleasedGroup),
    /// Without the node the others are no majority.
    Needed(u64),
    NotYet,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_is_left_out_only_if_the_others_are_a_majority() {
        let releases = Releases::default();
        let membership = |voters: &[u64]| Membership { voters: voters.iter().copied().collect(), ..Membership::default() };
        let three = membership(&[1, 2, 3]);
        assert_eq!(releases.of(7, &three), BTreeSet::new());
        releases.ask(7, 3);
        assert_eq!(releases.of(7, &three), BTreeSet::from([3]));
        assert_eq!(releases.of(8, &three), BTreeSet::new(), "another group");
        for too_few in [membership(&[3]), membership(&[2, 3]), membership(&[])] {
            assert_eq!(releases.of(7, &too_few), BTreeSet::new(), "{too_few:?}");
        }
        releases.ask(7, 2);
        assert_eq!(releases.of(7, &three), BTreeSet::new(), "two of three are too many");
        assert_eq!(releases.of(7, &membership(&[1, 2, 3, 4, 5])), BTreeSet::from([2, 3]));
        releases.done(7, 2);
        assert_eq!(releases.of(7, &three), BTreeSet::from([3]));
    }
}
