//! The nodes as a plan sees them: what each holds once all that is under way and all that is planned has arrived.

use std::collections::{BTreeMap, BTreeSet};

use crate::controller::image::{Image, Partition};
use crate::controller::node::NodeState;
use crate::controller::replica;

/// All nodes of the cluster.
pub(super) struct Nodes {
    /// By id.
    standings: Vec<Standing>,
    /// Of each rack, the fewest replicas that a node has which may get more. Absent: there is no such node.
    least: Vec<Option<usize>>,
    /// The fewest of all.
    fewest: usize,
    /// Whether every node that stays says where it stands.
    racks_known: bool,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Standing {
    pub node_id: u64,
    /// Number of its rack. Nodes that do not say where they stand may stand together: they share one.
    pub rack: usize,
    /// Whether replicas may move to it and, for balance, away from it.
    pub takes_part: bool,
    /// Whether everything on it goes.
    pub leaves: bool,
    pub online: bool,
    pub replicas: usize,
    /// Partitions that prefer it as their leader.
    pub leaders: usize,
}

impl Nodes {
    /// With `online`, only such nodes take part; without, all that are active do.
    pub(super) fn new(image: &Image, online: Option<&BTreeSet<u64>>) -> Self {
        let names: BTreeSet<&str> = image.nodes().map(|(_, node)| &*node.rack).collect();
        let racks: BTreeMap<&str, usize> = names.into_iter().zip(0..).collect();
        let standings = image.nodes().map(|(node_id, node)| {
            let online = online.is_none_or(|online| online.contains(&node_id));
            Standing {
                node_id,
                rack: racks.get(&*node.rack).copied().unwrap_or_default(),
                takes_part: online && node.is_active(),
                leaves: node.state == NodeState::Leaving,
                online,
                replicas: 0,
                leaders: 0,
            }
        });
        let racks_known = image.nodes().all(|(_, node)| node.state == NodeState::Leaving || !node.rack.is_empty());
        let mut nodes = Self { standings: standings.collect(), least: vec![None; racks.len()], fewest: 0, racks_known };
        for partition in image.topics().flat_map(|topic| &topic.partitions) {
            nodes.count(replica::nodes(partition.target.as_ref().unwrap_or(&partition.replicas)), 1);
        }
        nodes.find_least();
        nodes
    }

    /// Those that take part.
    pub(super) fn taking_part(&self) -> impl Iterator<Item = &Standing> {
        self.standings.iter().filter(|node| node.takes_part)
    }

    pub(super) fn get(&self, node_id: u64) -> Option<&Standing> {
        let at = self.standings.binary_search_by_key(&node_id, |node| node.node_id).ok()?;
        self.standings.get(at)
    }

    /// Whether replicas on that node must go.
    pub(super) fn leaves(&self, node_id: u64) -> bool {
        self.get(node_id).is_none_or(|node| node.leaves)
    }

    pub(super) fn any_leaves(&self) -> bool {
        self.standings.iter().any(|node| node.leaves)
    }

    pub(super) fn racks_known(&self) -> bool {
        self.racks_known
    }

    /// Whether a majority of the replicas is online: without it nothing about the partition can change.
    pub(super) fn has_quorum(&self, partition: &Partition) -> bool {
        let online = partition.nodes().filter(|node_id| self.get(*node_id).is_some_and(|node| node.online));
        online.count() > partition.replicas.len() / 2
    }

    /// The members of a partition with what is known about them.
    pub(super) fn all(&self, members: impl Iterator<Item = u64>) -> Vec<&Standing> {
        members.filter_map(|node_id| self.get(node_id)).collect()
    }

    /// The best node to join `members`: in a rack with few of them, with few replicas; equals are told apart by a number
    /// drawn from `salt`, so that the partitions of one node have their other replicas on many nodes.
    pub(super) fn best(&self, members: &[u64], salt: u64) -> Option<&Standing> {
        let members = self.all(members.iter().copied());
        self.best_where(&members, |node| (crowd(&members, node.rack), node.replicas, mix(salt, node.node_id)), |_| true)
    }

    /// The node of those that take part, are no members and fulfil `may`, with the least `key`.
    pub(super) fn best_where<K: Ord>(
        &self,
        members: &[&Standing],
        key: impl Fn(&Standing) -> K,
        may: impl Fn(&Standing) -> bool,
    ) -> Option<&Standing> {
        let is_member = |node: &Standing| members.iter().any(|member| member.node_id == node.node_id);
        self.taking_part().filter(|node| may(node) && !is_member(node)).min_by_key(|node| key(node))
    }

    /// Whether a rack that fulfils `may` has a node with fewer than `bound` replicas that may get more. Cheap: asked of every
    /// partition before nodes are compared one by one.
    pub(super) fn has_room(&self, bound: usize, may: impl Fn(usize) -> bool) -> bool {
        let has_room = |(least, rack): (&Option<usize>, usize)| least.is_some_and(|least| least < bound) && may(rack);
        self.fewest < bound && self.least.iter().zip(0..).any(has_room)
    }

    /// `members` in the order in which they should lead: the first is `preferred` if it is there, unless another one leads
    /// fewer partitions by more than one. `preferred` is counted as leading this partition already.
    pub(super) fn led(&self, mut members: Vec<u64>, preferred: Option<u64>) -> Vec<u64> {
        let preferred = preferred.filter(|preferred| members.contains(preferred));
        let candidates = members.iter().filter_map(|node_id| self.get(*node_id)).filter(|node| node.takes_part);
        let fewest = candidates.min_by_key(|node| node.leaders);
        let leader = match preferred.map(|preferred| (preferred, self.get(preferred))) {
            Some((_, Some(known))) if known.takes_part => {
                fewest.filter(|node| node.leaders + 1 < known.leaders).map_or(known.node_id, |node| node.node_id)
            }
            // It is away for a while; when it is back, it should find its partitions.
            Some((preferred, _)) => preferred,
            None => match fewest {
                Some(node) => node.node_id,
                None => return members,
            },
        };
        if let Some(at) = members.iter().position(|node_id| *node_id == leader) {
            members.remove(at);
            members.insert(0, leader);
        }
        members
    }

    /// A new partition is on these nodes.
    pub(super) fn add(&mut self, replicas: &[u64]) {
        self.count(replicas.iter().copied(), 1);
        self.find_least();
    }

    /// A partition goes from these nodes to those.
    pub(super) fn replace(&mut self, before: impl Iterator<Item = u64>, after: &[u64]) {
        self.count(before, -1);
        self.count(after.iter().copied(), 1);
        self.find_least();
    }

    fn count(&mut self, replicas: impl Iterator<Item = u64>, change: isize) {
        for (node_id, at) in replicas.zip(0..) {
            if let Ok(found) = self.standings.binary_search_by_key(&node_id, |node| node.node_id)
                && let Some(node) = self.standings.get_mut(found)
            {
                node.replicas = node.replicas.saturating_add_signed(change);
                if at == 0 {
                    node.leaders = node.leaders.saturating_add_signed(change);
                }
            }
        }
    }

    fn find_least(&mut self) {
        self.least.fill(None);
        for node in self.standings.iter().filter(|node| node.takes_part) {
            if let Some(least) = self.least.get_mut(node.rack) {
                *least = Some(least.map_or(node.replicas, |least| least.min(node.replicas)));
            }
        }
        self.fewest = self.least.iter().flatten().min().copied().unwrap_or(usize::MAX);
    }
}

/// Number of members in a rack.
pub(super) fn crowd(members: &[&Standing], rack: usize) -> usize {
    members.iter().filter(|node| node.rack == rack).count()
}

/// A number that looks drawn by lot but is the same everywhere (the finalizer of SplitMix64, Steele et al. 2014).
pub(super) fn mix(salt: u64, number: u64) -> u64 {
    let mut mixed = salt.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(number);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
