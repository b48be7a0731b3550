//! What the leader of a partition does for its group: makes the Raft membership what the metadata says, and hands over
//! the lead where another replica should have it.
//!
//! The goal is `target` while the partition moves, and `replicas` otherwise. Each pass looks at where the membership is
//! and takes the next step: learners first, then, when they have caught up, voters, then the word to the controller. So
//! whoever leads next goes on where the last one stopped, and a move that was cancelled is undone by the same steps: it has
//! the present replicas as its target. A replica
//! whose node asks to be let go, because its data is damaged (`release.rs`), is left out of the goal for as long as it asks.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use flotilla_machines::controller::{Image, NodeState};
use flotilla_proto::internal::v1;
use flotilla_proto::internal::v1::controller_command::Command;
use flotilla_raft::group::Group;
use flotilla_raft::standing::Membership;
use futures::StreamExt;
use tokio::time::Instant;

use crate::broker::{Broker, Hosted};
use crate::partition::Partition;
use crate::peer_calls::Proposed;

/// How often moves that are under way are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// Leads that change together are looked at together.
const GATHER: Duration = Duration::from_millis(50);
/// Partitions of one node that copy data to new replicas at the same time.
const COPIES_AT_ONCE: usize = 4;
/// Groups looked after at the same time.
const STEPS_AT_ONCE: usize = 32;
/// A learner this close behind the leader becomes a voter.
const CAUGHT_UP_ENTRIES: u64 = 100;
/// How long a preferred leader must have been reachable before it gets the lead back.
const PREFERRED_SETTLED: Duration = Duration::from_secs(5);
/// Leads handed over in one pass.
const TRANSFERS_AT_ONCE: usize = 16;

impl Broker {
    /// Looks after the partitions that this node leads until the broker stops.
    pub(crate) async fn keep_memberships(self) {
        let mut image = self.inner.image.clone();
        let mut leaders = self.inner.registry.leader_changes();
        let mut settled = Settled::default();
        loop {
            let current = image.borrow_and_update().clone();
            leaders.borrow_and_update();
            settled.look(&self, &current);
            let busy = self.membership_pass(&current).await;
            let handed_over = self.transfer_pass(&current, &settled).await;
            let pause = if busy || handed_over { LOOK_INTERVAL } else { LOOK_INTERVAL * 4 };
            tokio::select! {
                () = self.inner.stop.cancelled() => return,
                changed = image.changed() => if changed.is_err() { return },
                changed = leaders.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    tokio::time::sleep(GATHER).await;
                }
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// One pass over the groups led here. `true`: something is under way.
    async fn membership_pass(&self, image: &Image) -> bool {
        let mut copies = 0;
        let mut steps = Vec::new();
        for (partition, goal, move_epoch) in self.led(image) {
            let in_sync = self.in_sync(partition.group.id().0);
            let Some(step) = next_step(&partition.group, (self.node_id(), &in_sync), &goal, move_epoch) else { continue };
            if matches!(step, Step::AddLearner(_) | Step::AwaitLearners) {
                copies += 1;
                if copies > COPIES_AT_ONCE {
                    continue;
                }
            }
            steps.push((partition, goal, step));
        }
        let busy = !steps.is_empty();
        let mut running =
            futures::stream::iter(steps.into_iter().map(|(partition, goal, step)| self.take(partition, goal, step)))
                .buffer_unordered(STEPS_AT_ONCE);
        while running.next().await.is_some() {}
        busy
    }

    /// Partitions that this node leads: the replicas that each should have, and which move of it that is, if it moves.
    fn led(&self, image: &Image) -> Vec<(Arc<Partition>, Vec<u64>, Option<u64>)> {
        let hosted = self.inner.hosted.load();
        let led = hosted.iter().filter_map(|(group_id, hosted)| {
            let Hosted::Running(partition) = hosted else { return None };
            if !partition.group.is_leader() {
                return None;
            }
            let (topic, number) = image.partition_of_group(*group_id)?;
            let layout = topic.partitions.get(number as usize)?;
            let mut goal = layout.target.as_ref().unwrap_or(&layout.replicas).clone();
            let without = self.inner.releases.of(*group_id, &partition.group.membership());
            goal.retain(|node_id| !without.contains(node_id));
            let moving = layout.target.is_some() && without.is_empty();
            Some((partition.clone(), goal, moving.then_some(layout.move_epoch)))
        });
        led.collect()
    }

    async fn take(&self, partition: Arc<Partition>, goal: Vec<u64>, step: Step) {
        let group = &partition.group;
        let done = match step {
            Step::AddLearner(node_id) => group.add_learner(node_id).await,
            Step::AwaitLearners => Ok(()),
            Step::ChangeVoters(voters) => group.change_voters(voters).await,
            Step::HandOver(node_id) => group.transfer_leader(node_id).await,
            Step::RemoveLearner(node_id) => group.remove_learner(node_id).await,
            Step::Finish { move_epoch } => {
                // Those who are no replicas any more delete what they have once the controller knows. Before it is committed
                // that nobody needs them, that would be too early.
                let there = |membership: &Membership| membership.voters.iter().eq(&goal.iter().copied().collect::<BTreeSet<_>>());
                if !group.settled().await.is_some_and(|(membership, _)| there(&membership)) {
                    return;
                }
                let replicas = Some(v1::Replicas { nodes: goal.clone() });
                let command = Command::FinishMove(v1::FinishMove { group_id: group.id().0, replicas, move_epoch });
                match self.control_anywhere(command).await {
                    Proposed::Done(_) => {
                        tracing::info!(topic = %partition.topic, partition = partition.number, replicas = ?goal, "moved");
                    }
                    Proposed::Refused(reason) => {
                        tracing::warn!(topic = %partition.topic, partition = partition.number, reason, "the move was not finished");
                    }
                    Proposed::NotLeader(_) | Proposed::Unknown(_) => {}
                }
                Ok(())
            }
        };
        if let Err(error) = done {
            tracing::debug!(group = %group.id(), %error, "a step of a move failed; it is tried again");
        }
    }

    /// Hands over leads that other replicas should have. `true`: some were.
    async fn transfer_pass(&self, image: &Image, settled: &Settled) -> bool {
        let active = |node_id: u64| {
            let active = image.node(node_id).is_some_and(|node| node.state == NodeState::Active);
            active && !self.is_stopping(node_id) && !self.inner.clock.is_wrong(node_id)
        };
        let leave = !active(self.node_id()) || self.inner.handing_over.is_cancelled();
        let mut transfers = Vec::new();
        for (partition, goal, move_epoch) in self.led(image) {
            let group_id = partition.group.id().0;
            let fit = |node_id: &u64| *node_id != self.node_id() && active(*node_id) && settled.is(*node_id, leave);
            let preferred = goal.first().copied().filter(|first| *first != self.node_id());
            let wanted = match preferred {
                Some(first) if move_epoch.is_none() && fit(&first) => Some(first),
                _ if leave => goal.iter().copied().find(|node_id| fit(node_id)),
                _ => None,
            };
            let Some(to) = wanted else { continue };
            if self.in_sync(group_id).contains(&to) {
                transfers.push((partition, to));
            }
            if transfers.len() >= TRANSFERS_AT_ONCE {
                break;
            }
        }
        for (partition, to) in &transfers {
            if let Err(error) = partition.group.transfer_leader(*to).await {
                tracing::debug!(group = %partition.group.id(), to, %error, "the lead was not handed over");
            }
        }
        !transfers.is_empty()
    }
}

/// What brings a group nearer to its goal.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    AddLearner(u64),
    /// They copy.
    AwaitLearners,
    ChangeVoters(BTreeSet<u64>),
    /// Let another replica lead.
    HandOver(u64),
    RemoveLearner(u64),
    /// Tell the controller.
    Finish {
        move_epoch: u64,
    },
}

/// `me` leads the group; `in_sync` are the voters that have everything and can be reached.
fn next_step(group: &Group, (me, in_sync): (u64, &[u64]), goal: &[u64], move_epoch: Option<u64>) -> Option<Step> {
    let membership = group.membership();
    let goal_set: BTreeSet<u64> = goal.iter().copied().collect();
    // A leader that is to go hands over first: once it is no voter any more, it leads nobody, and the others would find that
    // out only by their timers.
    let goes = !goal_set.contains(&me);
    if goes && let Some(successor) = goal.iter().find(|node_id| in_sync.contains(node_id)) {
        return Some(Step::HandOver(*successor));
    }
    if membership.joint {
        return Some(Step::ChangeVoters(goal_set));
    }
    let (voters, learners) = (membership.voters, membership.learners);
    if let Some(missing) = goal.iter().find(|node_id| !voters.contains(node_id) && !learners.contains(node_id)) {
        return Some(Step::AddLearner(*missing));
    }
    if voters != goal_set {
        let progress = group.progress()?;
        let last = group.last_index().unwrap_or(0);
        let caught_up = |node_id: &u64| progress.get(node_id).is_some_and(|at| at.saturating_add(CAUGHT_UP_ENTRIES) >= last);
        let ready = goal.iter().filter(|node_id| !voters.contains(node_id)).all(caught_up);
        let next: BTreeSet<u64> = goal_set.iter().copied().chain(goes.then_some(me)).collect();
        // Whoever is to lead instead cannot be reached at the moment.
        let waits = !ready || next == voters;
        return Some(if waits { Step::AwaitLearners } else { Step::ChangeVoters(next) });
    }
    if let Some(stray) = learners.difference(&goal_set).next() {
        return Some(Step::RemoveLearner(*stray));
    }
    move_epoch.map(|move_epoch| Step::Finish { move_epoch })
}

/// Since when nodes are reachable: a node that has just come back is left alone for a while.
#[derive(Default)]
struct Settled {
    since: std::collections::BTreeMap<u64, Instant>,
}

impl Settled {
    fn look(&mut self, broker: &Broker, image: &Image) {
        let now = Instant::now();
        self.since.retain(|node_id, _| broker.online(*node_id) && image.node(*node_id).is_some());
        for (node_id, _) in image.nodes().filter(|(node_id, _)| broker.online(*node_id)) {
            self.since.entry(node_id).or_insert(now);
        }
    }

    /// `at_once`: it need only be reachable.
    fn is(&self, node_id: u64, at_once: bool) -> bool {
        self.since.get(&node_id).is_some_and(|since| at_once || since.elapsed() >= PREFERRED_SETTLED)
    }
}
