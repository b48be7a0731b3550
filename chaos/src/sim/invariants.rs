//! What holds at every moment, whatever fails: one leader per term, who has everything that was committed before; logs that
//! match; nothing committed that changes, no replica that forgets what it had applied while it runs or has applied something
//! else than another, and no alarm of the tripwire, which sees the same from inside.
//! Looks into all nodes while they run; [`checkers`](crate::checkers) judge what clients were told.

use std::collections::{BTreeMap, BTreeSet};

use flotilla_broker::{Broker, Image};
use flotilla_raft::group::Group;
use flotilla_raft::inspect::Fingerprint;
use flotilla_raft::tripwire::Point;
use flotilla_raft::types::{GroupId, LogId, NodeId, ReplicaId};

/// Violations that are kept in words; the first one is what matters.
const KEPT_MAX: usize = 20;

/// Applied, and last entry.
type Reach = (Option<LogId>, Option<LogId>);

/// What was seen so far, on all nodes and in all their lives.
#[derive(Debug, Default)]
pub struct Invariants {
    /// Who led a group in a term.
    leaders: BTreeMap<(GroupId, u64), ReplicaId>,
    /// Leaders that were looked at when they had just begun.
    began: BTreeSet<(GroupId, u64)>,
    /// What an entry holds, by group, index and term.
    entries: BTreeMap<(GroupId, u64, u64), u32>,
    /// What was applied somewhere, by group and index: the term and what it holds.
    committed: BTreeMap<(GroupId, u64), (u64, u32)>,
    /// The hash chain over what was applied, by group, where the chain began, and index.
    chains: BTreeMap<(GroupId, u64, u64), u32>,
    /// How far each replica was looked at: applied and last entry.
    looked: BTreeMap<(NodeId, GroupId, ReplicaId), Reach>,
    /// Who the replicas of each group were, and how often they became others.
    replicas: BTreeMap<u64, BTreeSet<NodeId>>,
    reconfigurations: usize,
    /// The newest metadata that was looked at.
    version: u64,
    violations: Vec<String>,
}

impl Invariants {
    /// Looks at a node that runs.
    pub fn look(&mut self, broker: &Broker) {
        let node = broker.node_id();
        self.look_at_replicas(&broker.image());
        for group in broker.groups() {
            let id = group.id();
            let (leader, term) = {
                let standing = group.watch();
                let standing = standing.borrow();
                (standing.leader, standing.term)
            };
            let extent = group.extent();
            if let Some(leader) = leader {
                self.leads(id, term, leader);
                if leader == group.replica() && self.began.insert((id, term)) {
                    self.has_all_committed(id, term, leader, extent.last);
                }
            }
            if let Some(alarm) = group.halted() {
                self.violated(format!("group {id}: node {node} raises an alarm: {alarm}"));
            }
            let key = (node, id, group.replica());
            let (applied, last) = self.looked.get(&key).copied().unwrap_or_default();
            if (applied, last) == (extent.applied, extent.last) {
                continue;
            }
            // One that was removed never comes again: the next replica on that node is another one.
            if let (Some(before), Some(now)) = (applied, extent.applied)
                && now < before
            {
                self.violated(format!("group {id}: node {node} had applied {before}, and without a restart only {now}"));
            }
            self.chains(node, &group);
            let applied = applied.filter(|applied| Some(*applied) <= extent.applied);
            // What was applied does not change in one life of a replica; what is behind it may be replaced.
            let readable = extent.purged.map_or(0, |purged| purged.index + 1);
            let mut from = applied.map_or(0, |applied| applied.index + 1).max(readable);
            let to = extent.last.map_or(0, |last| last.index + 1);
            while from < to {
                // What cannot be read is no contradiction; whoever needs it says so.
                let Ok(read) = group.fingerprints(from, to) else { break };
                let Some(last) = read.last() else { break };
                from = last.log_id.index + 1;
                for entry in read {
                    self.holds(node, id, entry, extent.applied);
                }
            }
            self.looked.insert(key, (extent.applied, extent.last));
        }
    }

    /// A node begins another life: its replicas are looked at from their beginning.
    pub fn restarted(&mut self, node: NodeId) {
        self.looked.retain(|(looked, ..), _| *looked != node);
    }

    /// What was violated, in words.
    #[must_use]
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    /// How many entries are known to be committed.
    #[must_use]
    pub fn committed(&self) -> usize {
        self.committed.len()
    }

    /// How often a group had another leader than in the term before.
    #[must_use]
    pub fn leader_changes(&self) -> usize {
        let all: Vec<_> = self.leaders.iter().collect();
        all.windows(2).filter(|pair| matches!(pair, [(a, one), (b, other)] if a.0 == b.0 && one != other)).count()
    }

    /// How often the replicas of a partition became others.
    #[must_use]
    pub fn reconfigurations(&self) -> usize {
        self.reconfigurations
    }

    fn look_at_replicas(&mut self, image: &Image) {
        if image.version() <= self.version {
            return;
        }
        self.version = image.version();
        for layout in image.topics().flat_map(|topic| &topic.partitions) {
            let now: BTreeSet<NodeId> = layout.nodes().collect();
            let before = self.replicas.insert(layout.group_id, now.clone());
            self.reconfigurations += usize::from(before.is_some_and(|before| before != now));
        }
    }

    /// Who begins to lead has everything that was committed in terms before.
    fn has_all_committed(&mut self, group: GroupId, term: u64, leader: ReplicaId, last: Option<LogId>) {
        let of_group = self.committed.range((group, 0)..=(group, u64::MAX));
        let before = of_group.rev().map(|((_, index), (term, _))| LogId { term: *term, index: *index });
        let Some(committed) = before.into_iter().find(|committed| committed.term < term) else { return };
        if last.is_none_or(|last| last.index < committed.index) {
            let last = last.map_or_else(|| "nothing".to_owned(), |last| last.to_string());
            self.violated(format!(
                "group {group}: replica {leader} leads in term {term} and has {last}; {committed} is committed"
            ));
        }
    }

    fn leads(&mut self, group: GroupId, term: u64, leader: ReplicaId) {
        let known = *self.leaders.entry((group, term)).or_insert_with(|| {
            tracing::info!(%group, term, %leader, "leads");
            leader
        });
        if known != leader {
            self.violated(format!("group {group} has two leaders in term {term}: replicas {known} and {leader}"));
        }
    }

    fn holds(&mut self, node: NodeId, group: GroupId, entry: Fingerprint, applied: Option<LogId>) {
        let LogId { term, index } = entry.log_id;
        let known = *self.entries.entry((group, index, term)).or_insert(entry.checksum);
        if known != entry.checksum {
            self.violated(format!("group {group}: entry {} of node {node} is not what another node has there", entry.log_id));
        }
        if applied.is_some_and(|applied| index <= applied.index) {
            let committed = (term, entry.checksum);
            let known = *self.committed.entry((group, index)).or_insert(committed);
            if known != committed {
                let before = LogId { term: known.0, index };
                self.violated(format!("group {group}: node {node} has applied {} where {before} was committed", entry.log_id));
            }
        }
    }

    fn chains(&mut self, node: NodeId, group: &Group) {
        let (id, (track, _)) = (group.id(), group.track());
        for Point { index, hash } in track.points {
            let known = *self.chains.entry((id, track.from, index)).or_insert(hash);
            if known != hash {
                self.violated(format!(
                    "group {id}: node {node} has applied something else through entry {index} than another node"
                ));
            }
        }
    }

    fn violated(&mut self, what: String) {
        tracing::error!(what, "violated");
        if self.violations.len() < KEPT_MAX {
            self.violations.push(what);
        }
    }
}
