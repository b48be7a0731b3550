//! Campaigns for groups that have no leader, or whose leader's node is gone.
//!
//! What finds a dead node quickly is the link to it:
//! when it breaks, every replica of a group led there waives its own leader's lease, and campaigns with a pre-vote after
//! a delay of its own. A peer grants that only if its own link to the leader is broken too: else its lease holds. So a link
//! that broke between two nodes disturbs nobody, and a slow network still gets the full timeout. A leader that asks for
//! votes itself has given up its lead: its lease is over too.
//!
//! A node that comes back with another boot number led nothing since. A group without any leader (a vote that was split)
//! is tried again soon; one whose leader says nothing although its node can be reached (a core that hangs), once its lease
//! is over. openraft's own timers are off: a thousand groups would tick.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::StreamExt;
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

use super::Groups;
use crate::group::Group;
use crate::network::{LinkState, Peers};
use crate::standing::{Changes, Standing};
use crate::types::{GroupId, NodeId, ReplicaId};

/// Replicas campaign one after the other, so that votes are not split. Who comes first differs from group to group, so
/// that those who are left share the leads.
const RANK_DELAY: Duration = Duration::from_millis(40);
/// Where many groups want a leader at once each election takes longer: so much is added for each of them,
const CROWD_DELAY: Duration = Duration::from_millis(2);
/// for so many at most.
const CROWD_MAX: usize = 300;
/// Plus up to this, by chance.
const JITTER: Duration = Duration::from_millis(30);
/// How long a group may be without any leader before the first attempt: an election may be under way.
const LEADERLESS_DELAY: Duration = Duration::from_millis(150);
/// Between attempts: at first, and at most.
const AGAIN_MIN: Duration = Duration::from_millis(100);
const AGAIN_MAX: Duration = Duration::from_secs(1);
/// A leader that says nothing for so long leads no more: as long as its lease is.
pub(crate) const SILENCE_MAX: Duration = Duration::from_millis(super::start::ELECTION_MS_MAX);
/// How often it is looked who is silent.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Changes that come together are looked at together.
const GATHER: Duration = Duration::from_millis(5);
/// Groups that are told to do something at the same time: hundreds lose their leader at once, and each answers by itself.
const STEPS_AT_ONCE: usize = 64;

/// Looks after the groups of a node.
pub(super) struct Elections {
    peers: Peers,
    groups: Arc<Groups>,
    campaigns: BTreeMap<GroupId, Campaign>,
    /// The life in which each peer was seen last, and since when in the terms of the groups that it led.
    boots: BTreeMap<NodeId, u64>,
    /// Groups whose leader came back in another life: with the term in which it led.
    orphans: BTreeMap<GroupId, (ReplicaId, u64)>,
    chance: Chance,
}

/// One group that wants a leader.
struct Campaign {
    /// Whose lead is over; `None`: nobody's is known.
    over: Option<ReplicaId>,
    due: Instant,
    again: Duration,
}

/// What a group is told.
struct Step {
    group: Group,
    /// Whose lease is over, and up to which term.
    waive: Option<(ReplicaId, u64)>,
    /// Whether to ask for votes.
    elect: bool,
}

/// Numbers that look random, other ones on each node.
struct Chance {
    state: AtomicU64,
}

impl Elections {
    pub(super) fn new(peers: Peers, groups: Arc<Groups>, boot: u64) -> Self {
        let chance = Chance { state: AtomicU64::new(peers.node_id().wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ boot) };
        let (campaigns, boots, orphans) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { peers, groups, campaigns, boots, orphans, chance }
    }

    /// Runs until `stop`.
    pub(super) async fn run(mut self, changes: Arc<Changes>, stop: CancellationToken) {
        let (mut links, mut changed) = (self.peers.links(), changes.subscribe());
        loop {
            let look = Instant::now() + LOOK_INTERVAL;
            let next = self.campaigns.values().map(|campaign| campaign.due).fold(look, Instant::min);
            tokio::select! {
                () = stop.cancelled() => return,
                alive = links.changed() => if alive.is_err() { return },
                alive = changed.changed() => if alive.is_err() { return },
                () = tokio::time::sleep_until(next) => {}
            }
            let up = links.borrow_and_update().clone();
            self.note_boots(&up);
            self.look(&up).await;
            tokio::time::sleep(GATHER).await;
        }
    }

    fn running(&self) -> Vec<Group> {
        self.groups.all_running()
    }

    /// Who came back in another life led nothing since.
    fn note_boots(&mut self, up: &BTreeMap<NodeId, LinkState>) {
        let back = |(node, state): (&NodeId, &LinkState)| {
            let before = self.boots.insert(*node, state.boot);
            before.is_some_and(|before| before != state.boot).then_some(*node)
        };
        let back: Vec<NodeId> = up.iter().filter_map(back).collect();
        if back.is_empty() {
            return;
        }
        for group in self.running() {
            let standing = group.standing();
            let standing = standing.borrow();
            let node = standing.leader_node().filter(|node| back.contains(node));
            if let Some(leader) = standing.leader.filter(|_| node.is_some()) {
                self.orphans.insert(group.id(), (leader, standing.term));
            }
        }
    }

    /// Looks at all groups: begins, goes on with and ends campaigns.
    async fn look(&mut self, up: &BTreeMap<NodeId, LinkState>) {
        let groups = self.running();
        let here = |group: &GroupId| groups.binary_search_by_key(group, Group::id).is_ok();
        self.campaigns.retain(|group, _| here(group));
        self.orphans.retain(|group, _| here(group));
        let mut steps = Vec::new();
        for group in groups {
            let standing = group.standing();
            let standing = standing.borrow();
            match self.wants_leader(&group, &standing, up) {
                Some(over) => steps.extend(self.campaign(&group, &standing, over, up)),
                None => drop(self.campaigns.remove(&group.id())),
            }
        }
        futures::stream::iter(steps).for_each_concurrent(STEPS_AT_ONCE, Step::take).await;
    }

    /// Whether this node is to campaign for the group, and whose lead is over then.
    fn wants_leader(
        &mut self,
        group: &Group,
        standing: &Standing,
        up: &BTreeMap<NodeId, LinkState>,
    ) -> Option<Option<ReplicaId>> {
        let (id, me) = (group.id(), group.replica());
        let voters = &standing.membership.voters;
        if standing.died.is_some() || !voters.contains_key(&me) || !group.may_elect() {
            return None;
        }
        let orphan = self.orphans.get(&id).copied();
        if orphan.is_some_and(|orphan| Some(orphan) != standing.leader.map(|leader| (leader, standing.term))) {
            self.orphans.remove(&id);
        }
        // Who votes alone waits for nobody: whoever led before has just given the group up.
        // Where a leader lives of whom this log does not tell yet, only its words tell that it is there.
        let linked = standing.leader_node().is_none_or(|node| up.contains_key(&node));
        let speaks = linked && group.silence() < SILENCE_MAX;
        let leads = voters.len() > 1 && speaks && !self.orphans.contains_key(&id);
        match standing.leader {
            Some(leader) if leader == me || leads => None,
            over => Some(over),
        }
    }

    fn campaign(
        &mut self,
        group: &Group,
        standing: &Standing,
        over: Option<ReplicaId>,
        up: &BTreeMap<NodeId, LinkState>,
    ) -> Option<Step> {
        let (now, crowd) = (Instant::now(), self.crowd());
        let waive = over.map(|leader| (leader, standing.term));
        let known = self.campaigns.get_mut(&group.id()).filter(|campaign| campaign.over == over);
        let Some(campaign) = known else {
            let delay = self.first_delay(group, standing, over);
            self.campaigns.insert(group.id(), Campaign { over, due: now + delay, again: AGAIN_MIN });
            return waive.map(|_| Step { group: group.clone(), waive, elect: false });
        };
        if campaign.due > now {
            return None;
        }
        campaign.due = now + crowd + campaign.again + self.chance.below(campaign.again);
        campaign.again = AGAIN_MAX.min(campaign.again * 2);
        let near = quorum_is_near(self.peers.node_id(), standing, up);
        near.then(|| Step { group: group.clone(), waive, elect: true })
    }

    /// How much longer than a single election those take that are wanted now.
    fn crowd(&self) -> Duration {
        CROWD_DELAY * u32::try_from(self.campaigns.len().min(CROWD_MAX)).unwrap_or(u32::MAX)
    }

    fn first_delay(&self, group: &Group, standing: &Standing, over: Option<ReplicaId>) -> Duration {
        let rank = rank(group.id(), standing.membership.voters.keys(), over, group.replica());
        let base = if over.is_none() { LEADERLESS_DELAY + self.crowd() } else { Duration::ZERO };
        base + (RANK_DELAY + self.crowd()) * rank + self.chance.below(JITTER)
    }
}

/// How many of the voters, without the one whose lead is over, campaign before this one.
fn rank<'a>(group: GroupId, voters: impl Iterator<Item = &'a ReplicaId>, over: Option<ReplicaId>, me: ReplicaId) -> u32 {
    let left: Vec<ReplicaId> = voters.copied().filter(|voter| Some(*voter) != over).collect();
    let place = left.iter().position(|voter| *voter == me).unwrap_or(0) as u64;
    u32::try_from(place.wrapping_add(group.0) % (left.len() as u64).max(1)).unwrap_or(u32::MAX).min(10)
}

/// Whether this node and those to whom it has links can elect anybody.
fn quorum_is_near(me: NodeId, standing: &Standing, up: &BTreeMap<NodeId, LinkState>) -> bool {
    let voters = &standing.membership.voters;
    let near = voters.values().filter(|node| **node == me || up.contains_key(node)).count();
    // Of a joint membership both halves are needed; that is found out by asking.
    near > voters.len() / 2 || standing.membership.joint
}

impl Step {
    async fn take(self) {
        let Self { group, waive, elect } = self;
        if let Some((leader, term)) = waive {
            group.waive_lease(leader, term).await;
        }
        if elect {
            tracing::debug!(group = %group.id(), over = ?waive, "campaigns early");
            // A core that has died meanwhile is somebody else's matter.
            let _ = group.raft().trigger().elect(true).await;
        }
    }
}

impl Chance {
    /// Splitmix64.
    fn next(&self) -> u64 {
        let state = self.state.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&self, most: Duration) -> Duration {
        most.mul_f64((self.next() >> 11) as f64 / (1_u64 << 53) as f64)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn those_who_are_left_campaign_one_after_the_other_and_each_of_them_first_somewhere() {
        let voters = [1, 4, 7].map(ReplicaId);
        let left = |over: Option<ReplicaId>| voters.iter().copied().filter(move |voter| Some(*voter) != over);
        for over in [None, Some(1), Some(4), Some(7)].map(|over| over.map(ReplicaId)) {
            let count = left(over).count();
            for group in (0..9).map(GroupId) {
                let ranks: BTreeSet<u32> = left(over).map(|me| rank(group, voters.iter(), over, me)).collect();
                assert!(ranks.into_iter().eq(0..count as u32), "{group} without {over:?}");
            }
            for me in left(over) {
                let first = (0..12).filter(|group| rank(GroupId(*group), voters.iter(), over, me) == 0);
                assert_eq!(first.count(), 12 / count, "replica {me} without {over:?}");
            }
        }
    }
}
