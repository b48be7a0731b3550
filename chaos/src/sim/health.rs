//! Nothing is called healthy that is not: what each node says of the cluster, held against what the world knows.
//!
//! A node may need a while to notice. So something has to be wrong for longer than [`NOTICE`], and a node that reaches the
//! others has to have said all the time since that all is well.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use flotilla_broker::{Broker, Image};

use super::node::Node;

/// How long something may be wrong without being noticed.
const NOTICE: Duration = Duration::from_secs(10);
/// Violations that are kept in words.
const KEPT_MAX: usize = 10;

/// Something that is not well, in the world's own knowledge.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Ailment {
    /// A node does not serve.
    NotServing(u64),
    /// A replica does not run where it should.
    ReplicaMissing { node: u64, group: u64 },
    /// Nobody leads a partition.
    Leaderless { group: u64 },
    /// No file of a node can grow, and a write has met that. (Space that nobody asked for is the server's to watch.)
    Full(u64),
}

impl std::fmt::Display for Ailment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotServing(node) => write!(f, "node {node} does not serve"),
            Self::ReplicaMissing { node, group } => {
                write!(f, "node {node} has no replica of group {group}, of which it should have one")
            }
            Self::Leaderless { group } => write!(f, "nobody leads group {group}"),
            Self::Full(node) => write!(f, "the disk of node {node} is full"),
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Truth {
    ailments: BTreeMap<Ailment, Duration>,
    /// Since when a node says that all is well, and reaches everybody.
    content: BTreeMap<u64, Duration>,
    /// What was said about already.
    told: BTreeSet<(u64, Ailment)>,
    violations: Vec<String>,
}

impl Truth {
    /// Looks at everything; `cuts` are directions in which nothing gets through.
    pub fn look(&mut self, now: Duration, nodes: &[Node], cuts: &BTreeMap<(u64, u64), u32>) {
        let found = ailments(nodes);
        self.ailments.retain(|ailment, _| found.contains(ailment));
        for ailment in found {
            self.ailments.entry(ailment).or_insert(now);
        }
        // Whoever is asked about the cluster asks all others.
        let is_troubled = |node: &Node| node.broker().is_some_and(|(broker, _)| !broker.troubles().now().is_empty());
        let troubled = nodes.iter().any(is_troubled);
        for node in nodes {
            let reaches_all = !cuts.keys().any(|(from, to)| [*from, *to].contains(&node.id()));
            let is_well = || node.broker().is_some_and(|(broker, _)| is_healthy(&broker).is_ok());
            let says_well = node.is_ready() && reaches_all && !troubled && is_well();
            if says_well {
                self.content.entry(node.id()).or_insert(now);
            } else {
                self.content.remove(&node.id());
            }
        }
        for (node, since) in &self.content {
            for (ailment, began) in &self.ailments {
                let unnoticed = now.saturating_sub(*began.max(since));
                if unnoticed > NOTICE && self.told.insert((*node, ailment.clone())) {
                    let what = format!("node {node} says for {NOTICE:?} that the cluster is healthy, and {ailment}");
                    tracing::error!(what, "violated");
                    if self.violations.len() < KEPT_MAX {
                        self.violations.push(what);
                    }
                }
            }
        }
    }

    /// What was violated, in words.
    #[must_use]
    pub fn violations(&self) -> &[String] {
        &self.violations
    }
}

/// Whether a node says that all is well; or what it says is not.
///
/// # Errors
/// What is not well, in words.
pub fn is_healthy(broker: &Broker) -> Result<(), String> {
    if let Some(trouble) = broker.troubles().now().first() {
        return Err(trouble.message.clone());
    }
    let cluster = broker.describe_cluster();
    if cluster.controller_leader.is_none() {
        return Err("the controller has no leader".to_owned());
    }
    if let Some(node) = cluster.nodes.iter().find(|node| !node.online) {
        return Err(format!("node {} is offline", node.node_id));
    }
    match (cluster.leaderless_partitions, cluster.under_replicated_partitions) {
        (0, 0) => Ok(()),
        (leaderless, under_replicated) => {
            Err(format!("{leaderless} partitions have no leader, {under_replicated} are under-replicated"))
        }
    }
}

fn ailments(nodes: &[Node]) -> BTreeSet<Ailment> {
    let mut found: BTreeSet<Ailment> =
        nodes.iter().filter(|node| !node.is_ready()).map(|node| Ailment::NotServing(node.id())).collect();
    found.extend(nodes.iter().filter(|node| node.disk().is_found_full()).map(|node| Ailment::Full(node.id())));
    let brokers: Vec<Broker> = nodes.iter().filter_map(|node| Some(node.broker()?.0)).collect();
    let newest = brokers.iter().map(Broker::image).max_by_key(|image| image.version());
    let Some(newest) = newest else { return found };
    let running: BTreeMap<u64, BTreeSet<u64>> =
        brokers.iter().map(|broker| (broker.node_id(), broker.groups().iter().map(|group| group.id().0).collect())).collect();
    for (group, replicas) in replicas(&newest) {
        let missing = replicas.iter().filter(|node| running.get(node).is_some_and(|groups| !groups.contains(&group)));
        found.extend(missing.map(|node| Ailment::ReplicaMissing { node: *node, group }));
        if !brokers.iter().any(|broker| broker.is_leader_here(group)) {
            found.insert(Ailment::Leaderless { group });
        }
    }
    found
}

/// The partitions that do not move.
fn replicas(image: &Image) -> Vec<(u64, Vec<u64>)> {
    let partitions = image.topics().flat_map(|topic| &topic.partitions);
    partitions.filter(|layout| layout.target.is_none()).map(|layout| (layout.group_id, layout.nodes().collect())).collect()
}
