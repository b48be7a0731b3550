//! What the leader of a partition does for its group: makes the Raft membership what the metadata says, and hands over
//! the lead where another replica should have it.
//!
//! The goal is `target` while the partition moves, and `replicas` otherwise. Each pass looks at where the membership is
//! and takes the next step: learners first, then, when they have caught up, voters, then the word to the controller. So
//! whoever leads next goes on where the last one stopped, and a move that was cancelled is undone by the same steps: it has
//! the present replicas as its target. What the metadata does not say any more must not be done, though, however late this node
//! hears of it: another leader may have come further, and nodes delete what it left behind. So members change only where this
//! node, while it leads, has made sure that it knows all that is decided. A replica
//! whose node asks to be let go, because its data is damaged (`release.rs`), is left out of the goal for as long as it asks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use flotilla_machines::controller::{Image, NodeState};
use flotilla_proto::internal::v1;
use flotilla_proto::internal::v1::controller_command::Command;
use flotilla_raft::group::Group;
use flotilla_raft::planted::{Bug, is_planted};
use flotilla_raft::standing::Membership;
use flotilla_raft::types::{Replica, ReplicaId};
use futures::StreamExt;
use tokio::time::Instant;

use crate::broker::{Broker, Hosted};
use crate::establish::Unfounded;
use crate::partition::Partition;
use crate::peer_calls::Proposed;
use crate::reconcile::replicas;

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
        let (mut settled, mut unfounded) = (Settled::default(), Unfounded::default());
        loop {
            let current = image.borrow_and_update().clone();
            leaders.borrow_and_update();
            settled.look(&self, &current);
            let busy = self.membership_pass(&current, &mut unfounded).await;
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
                () = self.inner.founding.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// One pass over the groups led here. `true`: something is under way.
    async fn membership_pass(&self, image: &Image, unfounded: &mut Unfounded) -> bool {
        let (mut copies, mut steps, mut counted_on) = (0, Vec::new(), Vec::new());
        let (led, mut waits) = (self.led(image), false);
        unfounded.keep(|group_id| led.iter().any(|led| !led.founded && led.partition.group.id().0 == group_id));
        for Led { partition, term, goal, fresh, founded, move_epoch } in led {
            let (group_id, group) = (partition.group.id().0, &partition.group);
            let established = |ids: &BTreeSet<ReplicaId>| v1::EstablishedReplicas {
                group_id,
                replica_ids: ids.iter().map(|id| id.0).collect(),
            };
            if !founded {
                match unfounded.is_due(group, &partition.founding) {
                    true => counted_on.push(established(&fresh)),
                    false => waits = true,
                }
                continue;
            }
            let Some(step) = next_step(group, &self.in_sync_replicas(group), &goal, move_epoch) else { continue };
            if let Step::ChangeVoters(voters) = &step {
                let not_yet: BTreeSet<ReplicaId> = voters.intersection(&fresh).copied().collect();
                if !not_yet.is_empty() {
                    counted_on.push(established(&not_yet));
                    continue;
                }
            }
            if matches!(step, Step::AddLearner(_) | Step::AwaitLearners) {
                copies += 1;
                if copies > COPIES_AT_ONCE {
                    continue;
                }
            }
            steps.push((partition, term, goal, step));
        }
        let busy = !steps.is_empty() || !counted_on.is_empty() || waits;
        self.establish(counted_on).await;
        let changes = steps.iter().any(|(.., step)| step.changes_members());
        // Asked after the terms were looked at: whoever leads in a later one is not led by what this node knows.
        if changes && !(self.knows_what_is_decided().await && self.image().version() == image.version()) {
            steps.retain(|(.., step)| !step.changes_members());
        }
        let taken = steps.into_iter().map(|(partition, term, goal, step)| self.take(partition, term, goal, step));
        let mut running = futures::stream::iter(taken).buffer_unordered(STEPS_AT_ONCE);
        while running.next().await.is_some() {}
        busy
    }

    /// Partitions that this node leads.
    fn led(&self, image: &Image) -> Vec<Led> {
        let hosted = self.inner.hosted.load();
        let led = hosted.iter().filter_map(|(group_id, hosted)| {
            let Hosted::Running(partition) = hosted else { return None };
            if !partition.group.is_leader() {
                return None;
            }
            let term = partition.group.leads_in()?;
            let layout = image.partition(*group_id)?;
            let mut goal = replicas(layout.target.as_ref().unwrap_or(&layout.replicas));
            let without = self.inner.releases.of(*group_id, &partition.group.membership());
            goal.retain(|replica| !without.contains(&replica.id));
            // Whoever it moves to does not found it.
            let founded = layout.is_founded();
            let fresh = layout.all().filter(|replica| replica.fresh && (founded || layout.replicas.contains(replica)));
            let fresh = fresh.map(|replica| ReplicaId(replica.id)).collect();
            let moving = layout.target.is_some() && without.is_empty();
            let move_epoch = moving.then_some(layout.move_epoch);
            Some(Led { partition: partition.clone(), term, goal, fresh, founded, move_epoch })
        });
        led.collect()
    }

    async fn take(&self, partition: Arc<Partition>, term: u64, goal: Vec<Replica>, step: Step) {
        let group = &partition.group;
        if step.changes_members() && group.leads_in() != Some(term) {
            return;
        }
        let done = match step {
            Step::AddLearner(replica) => group.add_learner(replica).await,
            Step::AwaitLearners => Ok(()),
            Step::ChangeVoters(voters) => group.change_voters(voters).await,
            Step::HandOver(to) => group.transfer_leader(to).await,
            Step::RemoveLearner(replica) => group.remove_learner(replica).await,
            Step::Finish { move_epoch } => {
                // Those who are no replicas any more delete what they have once the controller knows. Before it is committed
                // that nobody needs them, that would be too early.
                let there = |membership: &Membership| membership.voter_ids() == ids(&goal);
                let is_there = group.settled().await.is_some_and(|membership| there(&membership));
                if !is_there && !is_planted(Bug::MoveFinishedEarly) {
                    return;
                }
                let nodes: Vec<u64> = goal.iter().map(|replica| replica.node).collect();
                let replicas = Some(v1::Replicas { nodes: nodes.clone() });
                let command = Command::FinishMove(v1::FinishMove { group_id: group.id().0, replicas, move_epoch });
                match self.control_anywhere(command).await {
                    Proposed::Done(_) => {
                        tracing::info!(topic = %partition.topic, partition = partition.number, replicas = ?nodes, "moved");
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
        for Led { partition, goal, move_epoch, .. } in self.led(image) {
            let fit =
                |replica: &Replica| replica.node != self.node_id() && active(replica.node) && settled.is(replica.node, leave);
            let preferred = goal.first().copied().filter(|first| first.node != self.node_id());
            let wanted = match preferred {
                Some(first) if move_epoch.is_none() && fit(&first) => Some(first),
                _ if leave => goal.iter().copied().find(fit),
                _ => None,
            };
            let Some(to) = wanted else { continue };
            if self.in_sync_replicas(&partition.group).contains_key(&to.id) {
                transfers.push((partition, to));
            }
            if transfers.len() >= TRANSFERS_AT_ONCE {
                break;
            }
        }
        for (partition, to) in &transfers {
            if let Err(error) = partition.group.transfer_leader(to.id).await {
                tracing::debug!(group = %partition.group.id(), %to, %error, "the lead was not handed over");
            }
        }
        !transfers.is_empty()
    }
}

/// A partition that this node leads.
struct Led {
    partition: Arc<Partition>,
    /// In which this node leads it.
    term: u64,
    /// The replicas that it should have.
    goal: Vec<Replica>,
    /// On whom it may not count yet.
    fresh: BTreeSet<ReplicaId>,
    founded: bool,
    /// Which move of it that is, if it moves.
    move_epoch: Option<u64>,
}

/// What brings a group nearer to its goal.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    AddLearner(Replica),
    /// They copy.
    AwaitLearners,
    ChangeVoters(BTreeSet<ReplicaId>),
    /// Let another replica lead.
    HandOver(ReplicaId),
    RemoveLearner(ReplicaId),
    /// Tell the controller.
    Finish {
        move_epoch: u64,
    },
}

impl Step {
    /// Whether it makes somebody a replica, or exchanges who votes.
    fn changes_members(&self) -> bool {
        matches!(self, Self::AddLearner(_) | Self::ChangeVoters(_) | Self::RemoveLearner(_))
    }
}

/// This replica leads the group; `in_sync` are the voters that have everything and can be reached.
fn next_step(group: &Group, in_sync: &BTreeMap<ReplicaId, u64>, goal: &[Replica], move_epoch: Option<u64>) -> Option<Step> {
    let membership = group.membership();
    let (me, goal_ids) = (group.replica(), ids(goal));
    // A leader that is to go hands over first: once it is no voter any more, it leads nobody, and the others would find that
    // out only by their timers.
    let goes = !goal_ids.contains(&me);
    if goes && let Some(successor) = goal.iter().find(|replica| in_sync.contains_key(&replica.id)) {
        return Some(Step::HandOver(successor.id));
    }
    // First, also where an exchange of voters was left half way: the goal may have become another one since, with a replica
    // of which that knows nothing. Adding it ends the exchange.
    if let Some(missing) = goal.iter().find(|replica| !membership.holds(replica.id)) {
        return Some(Step::AddLearner(*missing));
    }
    if membership.joint {
        return Some(Step::ChangeVoters(goal_ids));
    }
    let voters = membership.voter_ids();
    if voters != goal_ids && is_planted(Bug::MoveFinishedEarly) {
        return move_epoch.map(|move_epoch| Step::Finish { move_epoch });
    }
    if voters != goal_ids {
        let progress = group.progress()?;
        let last = group.last_index().unwrap_or(0);
        let caught_up = |id: &ReplicaId| progress.get(id).is_some_and(|at| at.saturating_add(CAUGHT_UP_ENTRIES) >= last);
        let ready = goal_ids.difference(&voters).all(caught_up);
        let next: BTreeSet<ReplicaId> = goal_ids.iter().copied().chain(goes.then_some(me)).collect();
        // Whoever is to lead instead cannot be reached at the moment.
        let waits = !ready || next == voters;
        return Some(if waits { Step::AwaitLearners } else { Step::ChangeVoters(next) });
    }
    if let Some(stray) = membership.learners.keys().find(|learner| !goal_ids.contains(learner)) {
        return Some(Step::RemoveLearner(*stray));
    }
    move_epoch.map(|move_epoch| Step::Finish { move_epoch })
}

fn ids(replicas: &[Replica]) -> BTreeSet<ReplicaId> {
    replicas.iter().map(|replica| replica.id).collect()
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
