//! Other replicas for partitions that are there.

use std::collections::BTreeSet;

use super::nodes::{Nodes, Standing, crowd, mix};
use crate::controller::image::{Image, Partition};

/// The moves to start now: Raft group, and its replicas afterwards, the preferred leader first. `online` are the nodes that
/// can be reached, the asking one among them. Together with the moves under way there will be `at_most` at once; those
/// that cannot go on because too many nodes are offline are not counted, as they cost nothing.
///
/// First everything goes off nodes that leave, then replicas go to racks that have none, then from nodes with many
/// replicas to nodes with few, and where all of that is done, partitions prefer other leaders. Nothing goes to a node that
/// is not active or not online, and nothing is asked of a partition without a majority of its replicas.
/// The work is in the order of partitions times racks.
#[must_use]
pub fn moves(image: &Image, online: &BTreeSet<u64>, at_most: usize) -> Vec<(u64, Vec<u64>)> {
    let mut plan = Plan::new(image, online, at_most);
    if plan.nodes.any_leaves() {
        plan.each(has_leaving, evacuated);
    }
    // What leaves must be placed before loads are compared.
    if plan.room > 0 && plan.is_uneven() {
        if plan.nodes.racks_known() {
            plan.each(crowds, spread);
        }
        plan.balance();
        plan.each(|nodes, partition| led_by_another(nodes, partition).is_some(), led_by_another);
    }
    plan.moves
}

/// Moves under way that should be cancelled: they lead to a node that leaves, so the replica would have to move on at once,
/// or could never arrive.
#[must_use]
pub fn futile_moves(image: &Image) -> Vec<u64> {
    let nodes = Nodes::new(image, None);
    let leads_nowhere = |partition: &&Partition| partition.arriving().any(|replica| nodes.leaves(replica.node));
    let partitions = image.topics().flat_map(|topic| &topic.partitions);
    partitions.filter(leads_nowhere).map(|partition| partition.group_id).collect()
}

struct Plan<'a> {
    nodes: Nodes,
    /// Partitions that could start to move.
    resting: Vec<&'a Partition>,
    /// How many more may.
    room: usize,
    moves: Vec<(u64, Vec<u64>)>,
}

impl<'a> Plan<'a> {
    fn new(image: &'a Image, online: &BTreeSet<u64>, at_most: usize) -> Self {
        let nodes = Nodes::new(image, Some(online));
        // What is taken back to a node that leaves may never arrive there. Who votes meanwhile only its leader knows.
        let barred = |partition: &&Partition| partition.is_taken_back() && has_leaving(&nodes, partition);
        let partitions = image.topics().flat_map(|topic| &topic.partitions);
        let able = partitions.filter(|partition| nodes.has_quorum(partition) || barred(partition));
        let (resting, moving): (Vec<_>, Vec<_>) = able.partition(|partition| partition.target.is_none() || barred(partition));
        let goes_on = |partition: &&&Partition| partition.arriving().all(|replica| online.contains(&replica.node));
        let room = at_most.saturating_sub(moving.iter().filter(goes_on).count());
        Self { nodes, resting, room, moves: Vec::new() }
    }

    /// Asks `target` where those resting partitions should go that are `worth` the question, while there is room. They come in
    /// an order that looks drawn by lot, so that a new node does not get all partitions of one topic and none of another.
    /// Who moves rests no more.
    fn each(&mut self, worth: impl Fn(&Nodes, &Partition) -> bool, target: impl Fn(&Nodes, &Partition) -> Option<Vec<u64>>) {
        if self.room == 0 {
            return;
        }
        let candidates = self.resting.iter().filter(|partition| worth(&self.nodes, partition));
        let mut candidates: Vec<(u64, &Partition)> =
            candidates.map(|partition| (mix(0, partition.group_id), *partition)).collect();
        candidates.sort_unstable_by_key(|(lot, _)| *lot);
        let mut moved = BTreeSet::new();
        for (_, partition) in candidates {
            if let Some(target) = target(&self.nodes, partition) {
                self.nodes.replace(partition.nodes(), &target);
                self.moves.push((partition.group_id, target));
                moved.insert(partition.group_id);
                self.room -= 1;
            }
            if self.room == 0 {
                break;
            }
        }
        self.resting.retain(|partition| !moved.contains(&partition.group_id));
    }

    /// Whether there can be anything to do for nodes that stay. Most of the time there is not; about racks only the partitions
    /// know.
    fn is_uneven(&self) -> bool {
        let differ = |count: fn(&Standing) -> usize| {
            let most = self.nodes.taking_part().map(count).max().unwrap_or_default();
            most > self.nodes.taking_part().map(count).min().unwrap_or_default() + 1
        };
        self.nodes.racks_known() || differ(|node| node.replicas) || differ(|node| node.leaders)
    }

    /// From nodes above the average to those below: no replica moves twice. Where racks are in the way of that, whatever
    /// makes two nodes more alike.
    fn balance(&mut self) {
        let (count, sum) = self.nodes.taking_part().fold((0, 0), |(count, sum), node| (count + 1, sum + node.replicas));
        let (low, high) = (sum / usize::max(count, 1), sum.div_ceil(usize::max(count, 1)));
        self.relieve(|replicas| (replicas > high).then_some(high));
        self.relieve(|replicas| (replicas > low).then_some(low));
        self.relieve(|replicas| replicas.checked_sub(1));
    }

    /// `bound` says below how many replicas a node must be to relieve one that has so many; `None`: it needs no relief.
    fn relieve(&mut self, bound: impl Fn(usize) -> Option<usize>) {
        self.each(|nodes, partition| is_loaded(nodes, partition, &bound), |nodes, partition| relieved(nodes, partition, &bound));
    }
}

fn has_leaving(nodes: &Nodes, partition: &Partition) -> bool {
    partition.nodes().any(|node_id| nodes.leaves(node_id))
}

/// Off the nodes that leave, as far as there are others.
fn evacuated(nodes: &Nodes, partition: &Partition) -> Option<Vec<u64>> {
    let (mut target, left): (Vec<u64>, Vec<u64>) = partition.nodes().partition(|node_id| !nodes.leaves(*node_id));
    for node_id in &left {
        let joining = nodes.best(&target, partition.group_id).map(|node| node.node_id);
        target.push(joining.unwrap_or(*node_id));
    }
    let moves = left.iter().any(|node_id| !target.contains(node_id));
    moves.then(|| nodes.led(target, partition.nodes().next()))
}

/// Whether two of its replicas stand in one rack.
fn crowds(nodes: &Nodes, partition: &Partition) -> bool {
    let members = nodes.all(partition.nodes());
    members.iter().any(|node| node.takes_part && crowd(&members, node.rack) > 1)
}

/// From a rack that has several of its replicas to one that has at least two fewer. Only where every node says where it
/// stands: while racks are being written into one configuration after the other, nothing should move.
fn spread(nodes: &Nodes, partition: &Partition) -> Option<Vec<u64>> {
    let members = nodes.all(partition.nodes());
    let goes = members.iter().filter(|node| node.takes_part).max_by_key(|node| (crowd(&members, node.rack), node.replicas))?;
    let crowded = crowd(&members, goes.rack);
    let emptier = |rack| crowd(&members, rack) + 2 <= crowded;
    if !nodes.has_room(usize::MAX, emptier) {
        return None;
    }
    let key = |node: &Standing| (crowd(&members, node.rack), node.replicas, mix(partition.group_id, node.node_id));
    let joins = nodes.best_where(&members, key, |node| emptier(node.rack))?;
    Some(exchanged(nodes, partition, goes.node_id, joins.node_id))
}

/// Whether one of its nodes may find relief, as far as racks tell.
fn is_loaded(nodes: &Nodes, partition: &Partition, bound: impl Fn(usize) -> Option<usize>) -> bool {
    let members = nodes.all(partition.nodes());
    members.iter().any(|goes| finds_room(nodes, &members, goes, &bound).is_some())
}

/// Below how many replicas a node must be to relieve this one, if there seems to be such a node.
fn finds_room(nodes: &Nodes, members: &[&Standing], goes: &Standing, bound: impl Fn(usize) -> Option<usize>) -> Option<usize> {
    let bound = bound(goes.replicas).filter(|_| goes.takes_part)?;
    nodes.has_room(bound, |rack| stays_spread(members, goes, rack)).then_some(bound)
}

/// Whether a replica may go from this node to that rack: replicas stay spread as they are, or better.
fn stays_spread(members: &[&Standing], goes: &Standing, rack: usize) -> bool {
    rack == goes.rack || crowd(members, rack) < crowd(members, goes.rack)
}

/// From a node with many replicas to the one with the fewest, if that has fewer than `bound` says for the former.
fn relieved(nodes: &Nodes, partition: &Partition, bound: impl Fn(usize) -> Option<usize>) -> Option<Vec<u64>> {
    let members = nodes.all(partition.nodes());
    let exchanges = members.iter().filter_map(|goes| {
        let bound = finds_room(nodes, &members, goes, &bound)?;
        let key = |node: &Standing| (node.replicas, crowd(&members, node.rack), mix(partition.group_id, node.node_id));
        let may = |node: &Standing| node.replicas < bound && stays_spread(&members, goes, node.rack);
        Some((goes, nodes.best_where(&members, key, may)?))
    });
    let (goes, joins) = exchanges.max_by_key(|(goes, joins)| goes.replicas - joins.replicas)?;
    Some(exchanged(nodes, partition, goes.node_id, joins.node_id))
}

/// On the same nodes, but led by the one that leads the fewest.
fn led_by_another(nodes: &Nodes, partition: &Partition) -> Option<Vec<u64>> {
    let target = nodes.led(partition.nodes().collect(), partition.nodes().next());
    (!partition.nodes().eq(target.iter().copied())).then_some(target)
}

fn exchanged(nodes: &Nodes, partition: &Partition, goes: u64, joins: u64) -> Vec<u64> {
    let target = partition.nodes().map(|node_id| if node_id == goes { joins } else { node_id });
    nodes.led(target.collect(), partition.nodes().next())
}
