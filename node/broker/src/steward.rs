//! What the controller's leader does for the cluster: its own group's membership follows the nodes, partitions leave
//! nodes that are leaving, and new nodes get their share.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use flotilla_machines::controller::{Image, Node, NodeState, plan};
use flotilla_proto::internal::v1;
use flotilla_proto::internal::v1::controller_command::Command;
use flotilla_raft::types::{Replica, ReplicaId};

use crate::broker::Broker;
use crate::enrol::{CONTROLLER_VOTERS_MAX, first_replica};

/// How often the cluster is looked at when nothing changes.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Partitions that move at the same time.
const MOVES_AT_ONCE: usize = 8;
/// How long replicas or leads must be spread unevenly before anything moves for that alone: a node that is restarted, or a
/// person who moves several partitions, is not to be answered with moves.
const BALANCE_PATIENCE: Duration = Duration::from_secs(15);
/// A learner of the controller's group this close behind becomes a voter.
const CAUGHT_UP_ENTRIES: u64 = 100;

impl Broker {
    /// Looks after the cluster whenever this node leads the controller, until the broker stops.
    pub(crate) async fn steward(self) {
        let mut image = self.inner.image.clone();
        let mut uneven_since = None;
        loop {
            let current = image.borrow_and_update().clone();
            if self.controller().is_leader() {
                self.keep_controller_membership(&current).await;
                self.plan_moves(&current, &mut uneven_since).await;
                self.forget_left_nodes(&current).await;
            } else {
                uneven_since = None;
            }
            tokio::select! {
                () = self.inner.stop.cancelled() => return,
                changed = image.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
        }
    }

    /// Every registered node learns the metadata, and up to five vote about it. One step at a time.
    async fn keep_controller_membership(&self, image: &Image) {
        let controller = self.controller();
        let membership = controller.membership();
        let Some(progress) = controller.progress() else { return };
        let without = self.inner.releases.of(0, &membership);
        let registered = image.nodes().map(|(node, of)| Replica { id: ReplicaId(of.controller_replica), node });
        let registered: Vec<Replica> = registered.filter(|replica| !without.contains(&replica.id)).collect();
        let is_registered = |id: &&ReplicaId| registered.iter().any(|replica| replica.id == **id);
        let left_out: BTreeSet<u64> = without.iter().filter_map(|id| membership.node_of(*id)).collect();
        let fit = |node_id| self.online(node_id) && !left_out.contains(&node_id);
        let chosen = choose_voters(&(&membership.voter_nodes() - &left_out), image, fit);
        // The first nodes vote before they are registered.
        let id_on = |node_id: &u64| match image.node(*node_id) {
            Some(node) => ReplicaId(node.controller_replica),
            None => first_replica(*node_id).id,
        };
        let voters: BTreeSet<ReplicaId> = chosen.iter().map(id_on).collect();
        let missing = registered.iter().find(|replica| !membership.holds(replica.id));
        let last = controller.last_index().unwrap_or(0);
        let caught_up = |id: &ReplicaId| {
            membership.voters.contains_key(id) || progress.get(id).is_some_and(|at| at.saturating_add(CAUGHT_UP_ENTRIES) >= last)
        };
        // Who drains or leaves, or whose clock is wrong, leads nothing; and a leader that is no voter any more leads nobody.
        let sound = |node_id: u64| image.node(node_id).is_none_or(Node::is_active) && !self.inner.clock.is_wrong(node_id);
        let may_lead = |replica: &Replica| voters.contains(&replica.id) && sound(replica.node);
        let own = Replica { id: controller.replica(), node: self.node_id() };
        let successor = (!may_lead(&own)).then(|| self.successor(&controller, may_lead)).flatten();
        let done = if membership.joint {
            controller.change_voters(voters).await
        } else if let Some(successor) = successor {
            controller.transfer_leader(successor).await
        } else if let Some(replica) = missing {
            controller.add_learner(*replica).await
        } else if !registered.is_empty() && voters != membership.voter_ids() && voters.iter().all(caught_up) {
            controller.change_voters(voters).await
        } else {
            match membership.learners.keys().find(|learner| !is_registered(learner)) {
                Some(stray) if !registered.is_empty() => controller.remove_learner(*stray).await,
                _ => Ok(()),
            }
        };
        if let Err(error) = done {
            tracing::debug!(%error, "the controller's membership did not change; it is tried again");
        }
    }

    async fn plan_moves(&self, image: &Image, uneven_since: &mut Option<Instant>) {
        let online: BTreeSet<u64> = image.nodes().map(|(node_id, _)| node_id).filter(|node_id| self.online(*node_id)).collect();
        // What moves to a node that leaves meanwhile would only have to move again.
        for group_id in plan::futile_moves(image) {
            tracing::info!(group_id, "giving up a move to a node that leaves");
            if let Ok(Err(refused)) = self.control(Command::CancelMove(v1::CancelMove { group_id })).await {
                tracing::warn!(group_id, %refused, "the move goes on");
            }
        }
        let planned = plan::moves(image, &online, MOVES_AT_ONCE);
        let moving = image.topics().flat_map(|topic| &topic.partitions).any(|partition| partition.target.is_some());
        if planned.is_empty() && !moving {
            *uneven_since = None;
        }
        let leaving = image.nodes().any(|(_, node)| node.state == NodeState::Leaving);
        if planned.is_empty() || !leaving && uneven_since.get_or_insert_with(Instant::now).elapsed() < BALANCE_PATIENCE {
            return;
        }
        for (group_id, target) in planned {
            tracing::info!(group_id, ?target, "moving a partition");
            let target = Some(v1::Replicas { nodes: target });
            if let Ok(Err(refused)) = self.control(Command::StartMove(v1::StartMove { group_id, target })).await {
                tracing::warn!(group_id, %refused, "the partition does not move");
            }
        }
    }

    /// A node that was asked to leave, and from which everything has moved away, is no more.
    async fn forget_left_nodes(&self, image: &Image) {
        let membership = self.controller().membership();
        for (node_id, node) in image.nodes() {
            let left = node.state == NodeState::Leaving && membership.voter_on(node_id).is_none() && !membership.joint;
            // Not this one itself: what a leader that is no voter proposes may never be committed. The next leader does it.
            if left && node_id != self.node_id() && !holds(image, node_id) {
                tracing::info!(node_id, "everything has moved off the node: it is removed");
                if let Ok(Err(refused)) = self.control(Command::RemoveNode(v1::RemoveNode { node_id })).await {
                    tracing::warn!(node_id, %refused, "the node is not removed");
                }
            }
        }
    }
}

/// Whether partitions name the node.
fn holds(image: &Image, node_id: u64) -> bool {
    image.topics().flat_map(|topic| &topic.partitions).any(|partition| partition.hosts().any(|host| host == node_id))
}

/// The controller's voters: those that it has, as long as they belong to the cluster, and others that are reachable, up to
/// an odd number of at most five. Who leaves votes for as long as it has partitions: it may never get rid of them. So does
/// one that is down, if nobody is there in its place: without it three nodes would have a single voter.
fn choose_voters(current: &BTreeSet<u64>, image: &Image, online: impl Fn(u64) -> bool) -> BTreeSet<u64> {
    // The first nodes vote before they are registered: they are about to be.
    let comes = |node_id: &u64| image.node(*node_id).is_none() && !image.removed(*node_id);
    let mut others = image.nodes().filter(|(node_id, node)| node.state != NodeState::Leaving && !current.contains(node_id));
    let replaceable = others.any(|(node_id, _)| online(node_id));
    let lingers = |node_id: &u64| current.contains(node_id) && holds(image, *node_id) && (online(*node_id) || !replaceable);
    let stays = |node_id: &u64| match image.node(*node_id) {
        Some(node) => node.state != NodeState::Leaving || lingers(node_id),
        None => comes(node_id),
    };
    let registered = image.nodes().map(|(node_id, _)| node_id).filter(stays).count();
    let candidates = registered + current.iter().filter(|node_id| comes(node_id)).count();
    let odd = |count: usize| if count.is_multiple_of(2) { count.saturating_sub(1) } else { count };
    let wanted = odd(candidates.min(CONTROLLER_VOTERS_MAX)).max(1);
    let mut chosen: BTreeSet<u64> = current.iter().copied().filter(stays).collect();
    // Dropping a voter that is merely down would cost a vote that may come back: only in exchange for one that is there.
    let spare = image
        .nodes()
        .map(|(node_id, _)| node_id)
        .filter(|node_id| stays(node_id) && !current.contains(node_id) && online(*node_id));
    for node_id in spare {
        if chosen.len() < wanted {
            chosen.insert(node_id);
        }
    }
    while chosen.len() > wanted {
        let drop = chosen.iter().copied().find(|node_id| !online(*node_id)).or_else(|| chosen.iter().next_back().copied());
        match drop {
            Some(node_id) => chosen.remove(&node_id),
            None => break,
        };
    }
    // Somebody has to decide who comes next.
    if chosen.is_empty() { current.clone() } else { chosen }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use flotilla_machines::controller::{ControllerMachine, command_payload};
    use flotilla_machines::item;

    use super::*;

    struct Ignored;

    impl flotilla_machines::Rows for Ignored {
        fn put(&mut self, _: u8, _: &[u8], _: Vec<u8>) {}
        fn delete(&mut self, _: u8, _: &[u8]) {}
    }

    fn machine(nodes: u64) -> ControllerMachine {
        let mut machine = ControllerMachine::default();
        for node_id in 1..=nodes {
            let register = v1::RegisterNode { node_id, address: format!("n{node_id}:1"), ..Default::default() };
            machine.apply(item::COMMAND, &command_payload(Command::RegisterNode(register)), &mut Ignored).outcome.unwrap();
        }
        machine
    }

    fn cluster(nodes: u64, leaving: &[u64]) -> Image {
        let mut machine = machine(nodes);
        let mut run = |command| machine.apply(item::COMMAND, &command_payload(command), &mut Ignored).outcome.unwrap();
        for node_id in leaving {
            run(Command::SetNodeState(v1::SetNodeState { node_id: *node_id, state: v1::NodeState::Leaving.into() }));
        }
        (*machine.image()).clone()
    }

    #[test]
    fn the_controller_has_an_odd_number_of_voters_up_to_five() {
        let voters = |nodes, current: &[u64]| {
            let current = current.iter().copied().collect();
            choose_voters(&current, &cluster(nodes, &[]), |_| true).len()
        };
        assert_eq!([1, 2, 3, 4, 5, 6, 9].map(|nodes| voters(nodes, &[1])), [1, 1, 3, 3, 5, 5, 5]);
    }

    #[test]
    fn the_first_voters_stay_until_they_are_registered_and_go_when_they_were_removed() {
        let current = BTreeSet::from([1, 2, 3]);
        assert_eq!(choose_voters(&current, &cluster(1, &[]), |node_id| node_id == 1), current);
        assert_eq!(choose_voters(&current, &cluster(2, &[]), |_| true), current);
        let mut without = machine(4);
        let mut run = |command| without.apply(item::COMMAND, &command_payload(command), &mut Ignored).outcome.unwrap();
        run(Command::SetNodeState(v1::SetNodeState { node_id: 3, state: v1::NodeState::Leaving.into() }));
        run(Command::RemoveNode(v1::RemoveNode { node_id: 3 }));
        assert_eq!(choose_voters(&current, &without.image(), |_| true), BTreeSet::from([1, 2, 4]));
    }

    #[test]
    fn voters_stay_while_they_belong_and_are_replaced_only_by_nodes_that_are_there() {
        let current = BTreeSet::from([1, 2, 3]);
        assert_eq!(choose_voters(&current, &cluster(4, &[]), |node_id| node_id != 2), current, "down is not gone");
        assert_eq!(choose_voters(&current, &cluster(4, &[2]), |_| true), BTreeSet::from([1, 3, 4]));
        assert_eq!(choose_voters(&current, &cluster(4, &[2]), |node_id| node_id != 4), BTreeSet::from([1, 3]));
    }

    #[test]
    fn who_leaves_votes_until_its_partitions_have_moved() {
        let current = BTreeSet::from([1, 2, 3]);
        let mut machine = machine(4);
        let mut run = |command| machine.apply(item::COMMAND, &command_payload(command), &mut Ignored).outcome.unwrap();
        let partitions = vec![v1::Replicas { nodes: vec![1, 2, 3] }];
        let (name, topic_id) = ("t".to_owned(), bytes::Bytes::from(vec![1; 16]));
        run(Command::CreateTopic(v1::CreateTopic { name, topic_id, replication_factor: 3, config: None, partitions }));
        run(Command::SetNodeState(v1::SetNodeState { node_id: 3, state: v1::NodeState::Leaving.into() }));
        let image = machine.image();
        assert_eq!(choose_voters(&current, &image, |_| true), current);
        assert_eq!(choose_voters(&current, &image, |node_id| node_id < 3), current, "nobody is there in its place");
        assert_eq!(choose_voters(&current, &image, |node_id| node_id != 3), BTreeSet::from([1, 2, 4]), "it is gone");
    }
}
