//! What holds at every moment, whatever fails: one leader per term, logs that match, and nothing committed that changes.
//! Looks into all nodes while they run; [`checkers`](crate::checkers) judge what clients were told.

use std::collections::BTreeMap;

use flotilla_broker::Broker;
use flotilla_raft::inspect::Fingerprint;
use flotilla_raft::types::{GroupId, LogId, NodeId, ReplicaId};

/// Violations that are kept in words; the first one is what matters.
const KEPT_MAX: usize = 20;

/// What was seen so far, on all nodes and in all their lives.
#[derive(Debug, Default)]
pub struct Invariants {
    /// Who led a group in a term.
    leaders: BTreeMap<(GroupId, u64), ReplicaId>,
    /// What an entry holds, by group, index and term.
    entries: BTreeMap<(GroupId, u64, u64), u32>,
    /// What was applied somewhere, by group and index: the term and what it holds.
    committed: BTreeMap<(GroupId, u64), (u64, u32)>,
    /// How far each replica was looked at: applied and last entry.
    looked: BTreeMap<(NodeId, GroupId), (Option<LogId>, Option<LogId>)>,
    violations: Vec<String>,
}

impl Invariants {
    /// Looks at a node that runs.
    pub fn look(&mut self, broker: &Broker) {
        let node = broker.node_id();
        for group in broker.groups() {
            let id = group.id();
            let (leader, term) = {
                let standing = group.watch();
                let standing = standing.borrow();
                (standing.leader, standing.term)
            };
            if let Some(leader) = leader {
                self.leads(id, term, leader);
            }
            let extent = group.extent();
            let (applied, last) = self.looked.get(&(node, id)).copied().unwrap_or_default();
            if (applied, last) == (extent.applied, extent.last) {
                continue;
            }
            // A replica that was removed and came again begins with nothing.
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
            self.looked.insert((node, id), (extent.applied, extent.last));
        }
    }

    /// A node begins another life: its replicas are looked at from their beginning.
    pub fn restarted(&mut self, node: NodeId) {
        self.looked.retain(|(looked, _), _| *looked != node);
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

    fn violated(&mut self, what: String) {
        tracing::error!(what, "violated");
        if self.violations.len() < KEPT_MAX {
            self.violations.push(what);
        }
    }
}
