//! Comparing the replicas of all groups, because somebody wants to know: what they have applied, by the points of their hash
//! chains ([`flotilla_raft::tripwire`]). The bytes of the segments are a matter of `scrub.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use flotilla_proto::internal::v1;
use flotilla_raft::tripwire::{CHECKPOINT_ENTRIES, Compared, Track, track_from_wire, track_to_wire};
use futures::future::join_all;
use tokio::time::Instant;

use crate::broker::Broker;

/// How long a replica may take to apply what another one had applied when it was asked first: more than passes between two
/// heartbeats, which say what is committed.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Groups asked for at once.
const GROUPS_PER_CALL: usize = 1_000;
/// Points remembered of a replica over all looks.
const POINTS_KEPT: usize = 128;

/// What was found of a group's replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedGroup {
    /// Topic and number; `None`: the controller.
    pub partition: Option<(Arc<str>, u32)>,
    /// By node.
    pub replicas: Vec<(u64, Finding)>,
}

/// What was found of a replica, compared with the one with which most agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// It has applied the same as another one.
    Equal {
        /// The last entry that was compared.
        through: u64,
    },
    /// It has applied something else.
    Differs {
        /// The first entry at which that shows.
        at: u64,
    },
    /// It is the one with which the others are compared, and none is equal to it.
    Alone,
    /// It is too far behind to be compared.
    Behind {
        /// The last entry that it has applied.
        applied: Option<u64>,
    },
    /// Its chain began with another entry.
    NotComparable,
    /// It does not run.
    Down,
    /// Its node did not answer.
    Unreachable,
}

/// What the nodes told of one group so far.
#[derive(Default)]
struct Told {
    nodes: BTreeSet<u64>,
    /// By node; `None`: the replica does not run there.
    replicas: BTreeMap<u64, Option<Replica>>,
    /// The last entry that any of them had applied at the first look.
    goal: Option<u64>,
}

struct Replica {
    applied: Option<u64>,
    track: Track,
}

impl Broker {
    /// Compares the replicas of all groups, as far as their nodes can be reached: the controller's first, then by topic.
    pub async fn verify_replicas(&self) -> Vec<VerifiedGroup> {
        let _alone = self.inner.verifying.lock().await;
        let image = self.image();
        let partitions =
            image.topics().flat_map(|topic| (0..).zip(&topic.partitions).map(move |(number, of)| (topic, number, of)));
        let mut named = vec![(0, None)];
        let mut told = BTreeMap::from([(0, Told::of(image.nodes().map(|(node_id, _)| node_id)))]);
        for (topic, number, layout) in partitions {
            named.push((layout.group_id, Some((topic.name.clone(), number))));
            told.insert(layout.group_id, Told::of(layout.nodes()));
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.look_at_replicas(&mut told).await;
            if Instant::now() >= deadline || told.values().all(Told::is_settled) {
                break;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        let verified = |(group_id, partition): (u64, _)| {
            let replicas = told.get(&group_id).map(|told| told.findings(CHECKPOINT_ENTRIES)).unwrap_or_default();
            VerifiedGroup { partition, replicas }
        };
        named.into_iter().map(verified).collect()
    }

    /// What this node's replicas of these groups have applied, each once, however often it is asked for.
    pub(crate) fn told_tracks(&self, group_ids: impl IntoIterator<Item = u64>) -> Vec<v1::ReplicaTrack> {
        let group = |group_id| if group_id == 0 { Some((*self.controller()).clone()) } else { self.hosted_group(group_id) };
        let told = |group_id| {
            let (track, applied) = group(group_id)?.track();
            Some(v1::ReplicaTrack { group_id, applied, track: Some(track_to_wire(&track)) })
        };
        group_ids.into_iter().collect::<BTreeSet<u64>>().into_iter().filter_map(told).collect()
    }

    /// Asks the nodes for what is not settled.
    async fn look_at_replicas(&self, told: &mut BTreeMap<u64, Told>) {
        let mut asked: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for (group_id, told) in told.iter().filter(|(_, told)| !told.is_settled()) {
            for node_id in told.nodes.iter().filter(|node_id| self.online(**node_id)) {
                asked.entry(*node_id).or_default().push(*group_id);
            }
        }
        let calls = asked.iter().flat_map(|(node_id, groups)| groups.chunks(GROUPS_PER_CALL).map(|groups| (*node_id, groups)));
        let calls = calls.map(|(node_id, groups)| async move { (node_id, groups, self.tracks_of(node_id, groups).await) });
        for (node_id, groups, answer) in join_all(calls).await {
            let Some(answer) = answer else { continue };
            let mut answer: BTreeMap<u64, v1::ReplicaTrack> =
                answer.into_iter().map(|replica| (replica.group_id, replica)).collect();
            for group_id in groups {
                if let Some(told) = told.get_mut(group_id) {
                    told.take(node_id, answer.remove(group_id));
                }
            }
        }
        for told in told.values_mut().filter(|told| told.goal.is_none()) {
            told.goal = told.running().filter_map(|(_, replica)| replica.applied).max();
        }
    }

    async fn tracks_of(&self, node_id: u64, group_ids: &[u64]) -> Option<Vec<v1::ReplicaTrack>> {
        if node_id == self.node_id() {
            return Some(self.told_tracks(group_ids.iter().copied()));
        }
        self.inner.calls.tracks(&self.peer_address(node_id)?, group_ids.to_vec()).await
    }
}

impl Told {
    fn of(nodes: impl Iterator<Item = u64>) -> Self {
        Self { nodes: nodes.collect(), ..Self::default() }
    }

    /// What a node says of its replica; nothing if that does not run.
    fn take(&mut self, node_id: u64, said: Option<v1::ReplicaTrack>) {
        let Some(v1::ReplicaTrack { applied, track, .. }) = said else {
            self.replicas.insert(node_id, None);
            return;
        };
        // What makes no sense was not said.
        let Ok(track) = track_from_wire(track.unwrap_or_default()) else { return };
        match self.replicas.get_mut(&node_id) {
            Some(Some(replica)) => {
                replica.applied = applied;
                replica.track.extend(&track, POINTS_KEPT);
            }
            _ => _ = self.replicas.insert(node_id, Some(Replica { applied, track })),
        }
    }

    fn running(&self) -> impl Iterator<Item = (u64, &Replica)> {
        self.replicas.iter().filter_map(|(node_id, replica)| Some((*node_id, replica.as_ref()?)))
    }

    /// Whether another look would not tell more.
    fn is_settled(&self) -> bool {
        self.goal.is_some() && !self.findings(0).iter().any(|(_, finding)| matches!(finding, Finding::Behind { .. }))
    }

    /// The replica with which most agree; of several, the one that has applied most.
    fn reference(&self) -> Option<&Replica> {
        let agree = |one: &Replica| {
            let equal = |(_, other): &(u64, &Replica)| matches!(one.track.against(&other.track), Compared::Equal(_));
            self.running().filter(equal).count()
        };
        self.running().map(|(_, replica)| replica).max_by_key(|replica| (agree(replica), replica.applied))
    }

    /// What is found of each replica. One that may lack the last `slack` entries before the goal is not called behind.
    fn findings(&self, slack: u64) -> Vec<(u64, Finding)> {
        let reference = self.reference();
        let finding = |node_id: &u64| match (self.replicas.get(node_id), reference) {
            (Some(Some(replica)), Some(reference)) => (*node_id, self.finding(replica, reference, slack)),
            (Some(_), _) => (*node_id, Finding::Down),
            (None, _) => (*node_id, Finding::Unreachable),
        };
        self.nodes.iter().map(finding).collect()
    }

    fn finding(&self, replica: &Replica, reference: &Replica, slack: u64) -> Finding {
        if std::ptr::eq(replica, reference) {
            let others = self.running().filter(|(_, other)| !std::ptr::eq(*other, reference));
            let equal = others.filter_map(|(_, other)| match other.track.against(&reference.track) {
                Compared::Equal(through) => Some(through),
                Compared::Differs(_) | Compared::Nothing => None,
            });
            return equal.max().map_or(Finding::Alone, |through| Finding::Equal { through });
        }
        let goal = self.goal.unwrap_or_default().saturating_sub(slack);
        match replica.track.against(&reference.track) {
            Compared::Differs(at) => Finding::Differs { at },
            Compared::Equal(through) if through >= goal => Finding::Equal { through },
            Compared::Nothing if replica.track.from != reference.track.from => Finding::NotComparable,
            Compared::Equal(_) | Compared::Nothing => Finding::Behind { applied: replica.applied },
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;

    fn said(applied: u64, from: u64, points: &[(u64, u32)]) -> Option<v1::ReplicaTrack> {
        let (indexes, hashes) = points.iter().copied().unzip();
        Some(v1::ReplicaTrack { group_id: 7, applied: Some(applied), track: Some(v1::Track { from, indexes, hashes }) })
    }

    fn told(goal: u64, replicas: Vec<(u64, Option<v1::ReplicaTrack>)>) -> Told {
        let mut told = Told { goal: Some(goal), ..Told::of([1, 2, 3].into_iter()) };
        replicas.into_iter().for_each(|(node_id, said)| told.take(node_id, said));
        told
    }

    fn findings(told: &Told) -> [Finding; 3] {
        let found = told.findings(CHECKPOINT_ENTRIES);
        [1, 2, 3].map(|node_id| found.iter().find(|(found, _)| *found == node_id).unwrap().1)
    }

    #[test]
    fn replicas_are_equal_where_they_were_compared() {
        let at_rest = || said(300, 0, &[(255, 1), (300, 2)]);
        let all = told(300, vec![(1, at_rest()), (2, at_rest()), (3, at_rest())]);
        assert_eq!(findings(&all), [Finding::Equal { through: 300 }; 3]);
        assert!(all.is_settled());
        let moving = told(310, vec![(1, said(310, 0, &[(255, 1), (310, 3)])), (2, at_rest()), (3, at_rest())]);
        assert!(!moving.is_settled(), "it may come yet");
        assert_eq!(findings(&moving), [Finding::Equal { through: 255 }; 3], "through the last checkpoint, and no further");
    }

    #[test]
    fn who_is_not_compared_is_not_called_equal() {
        let one = said(900, 0, &[(767, 1), (900, 2)]);
        let found = told(900, vec![(1, one.clone()), (2, said(300, 0, &[(255, 7)])), (3, None)]);
        assert_eq!(findings(&found), [Finding::Alone, Finding::Behind { applied: Some(300) }, Finding::Down]);
        let found = told(900, vec![(1, said(900, 256, &[(767, 7), (900, 8)])), (3, one.clone())]);
        assert_eq!(findings(&found), [Finding::NotComparable, Finding::Unreachable, Finding::Alone]);
        let found = told(900, vec![(1, one.clone()), (2, said(500, 0, &[(255, 1), (500, 9)])), (3, one)]);
        assert!(!found.is_settled());
        assert_eq!(findings(&found)[1], Finding::Behind { applied: Some(500) }, "what it has been equal in is too long ago");
    }

    #[test]
    fn who_differs_is_told_from_those_who_agree() {
        let right = || said(300, 0, &[(255, 1), (300, 2)]);
        let wrong = || said(300, 0, &[(255, 9), (300, 8)]);
        let found = told(300, vec![(1, wrong()), (2, right()), (3, right())]);
        let equal = Finding::Equal { through: 300 };
        assert_eq!(findings(&found), [Finding::Differs { at: 255 }, equal, equal]);
        assert!(found.is_settled());
        let found = told(300, vec![(1, wrong()), (2, right()), (3, None)]);
        assert_eq!(findings(&found), [Finding::Differs { at: 255 }, Finding::Alone, Finding::Down]);
    }

    #[test]
    fn what_makes_no_sense_is_not_taken() {
        let nonsense = said(300, 0, &[(300, 1), (255, 2)]);
        assert_eq!(findings(&told(300, vec![(1, nonsense)]))[0], Finding::Unreachable);
    }
}
