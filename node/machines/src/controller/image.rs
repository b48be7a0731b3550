//! The cluster's metadata as everyone reads it: immutable, versioned, in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use super::config::TopicConfig;
use super::node::Node;
use super::replica::{self, Replica};

/// All metadata at one version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    pub(super) version: u64,
    nodes: BTreeMap<u64, Node>,
    /// Ids of nodes that were removed: nobody gets them again.
    removed: BTreeSet<u64>,
    topics: BTreeMap<Arc<str>, Arc<Topic>>,
    names: BTreeMap<TopicId, Arc<str>>,
    /// First group id of each run of partitions that were created together; group ids are handed out in order, so a
    /// run has consecutive numbers on both sides.
    runs: BTreeMap<u64, Run>,
    partition_count: usize,
    /// 0: replicas have the ids of their nodes.
    next_replica_id: u64,
}

/// A topic: its layout and configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Its name, unique while it exists.
    pub name: Arc<str>,
    /// Its identity: a topic created again under the same name has another one.
    pub id: TopicId,
    /// Copies of each partition.
    pub replication_factor: u32,
    /// Every value in force.
    pub config: TopicConfig,
    /// Machine time of its creation, in milliseconds since the Unix epoch.
    pub created_at_ms: i64,
    /// By number.
    pub partitions: Vec<Partition>,
}

/// A partition: where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// The Raft group that holds it. Never reused.
    pub group_id: u64,
    /// Its copies, each on a node of its own; the first is the preferred leader.
    pub replicas: Vec<Replica>,
    /// The replicas after the move that is under way, if one is: the present ones where a move was cancelled, and is taken
    /// back. Who stays on its node stays the same replica.
    pub target: Option<Vec<Replica>>,
    /// Others to which it was moving before that move was cancelled. They may vote in the group until its leader says
    /// otherwise, so they keep what they have.
    pub former: Vec<Replica>,
    /// Rises with each target. Replica ids do not make it superfluous: a move that is taken back for the second time has the same
    /// target as the first time, and what was reported of the first says nothing about the second.
    pub move_epoch: u64,
}

impl Partition {
    /// All its replicas, each once: those that it has, and those that it moves to or was moving to. They are on different nodes.
    pub fn all(&self) -> impl Iterator<Item = Replica> {
        self.replicas.iter().copied().chain(self.arriving()).chain(self.former.iter().copied())
    }

    /// The nodes that host it, each once.
    pub fn hosts(&self) -> impl Iterator<Item = u64> {
        self.all().map(|replica| replica.node)
    }

    /// The nodes that have a copy, the preferred leader first.
    pub fn nodes(&self) -> impl Iterator<Item = u64> + Clone {
        replica::nodes(&self.replicas)
    }

    /// The nodes that are to have one after the move that is under way.
    #[must_use]
    pub fn target_nodes(&self) -> Option<Vec<u64>> {
        Some(replica::nodes(self.target.as_ref()?).collect())
    }

    /// The replica that lives on a node.
    #[must_use]
    pub fn on(&self, node_id: u64) -> Option<Replica> {
        self.all().find(|replica| replica.node == node_id)
    }

    /// Whether its log has begun, for good: replicas that come later copy it.
    #[must_use]
    pub fn is_founded(&self) -> bool {
        self.replicas.iter().any(|replica| !replica.fresh)
    }

    pub(super) fn each_mut(&mut self, change: impl FnMut(&mut Replica)) {
        self.replicas.iter_mut().chain(self.target.iter_mut().flatten()).chain(&mut self.former).for_each(change);
    }

    /// Gives it a target.
    pub(super) fn move_to(&mut self, target: Vec<Replica>) {
        self.target = Some(target);
        self.move_epoch += 1;
    }

    /// Whether a move was cancelled, and its leader has not yet put everything back.
    #[must_use]
    pub fn is_taken_back(&self) -> bool {
        self.target.as_ref() == Some(&self.replicas)
    }

    /// The replicas that it moves to and has not got yet.
    pub fn arriving(&self) -> impl Iterator<Item = Replica> {
        self.target.iter().flatten().copied().filter(|replica| !self.replicas.contains(replica))
    }
}

/// A UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(pub [u8; 16]);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Run {
    topic: Arc<str>,
    first_partition: u32,
    partition_count: u32,
}

impl Image {
    /// Number of changes that led here: rises with each.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The id that the next replica gets: all below it were handed out, and who is not named any more is removed for good.
    /// `None`: replicas have the ids of their nodes.
    #[must_use]
    pub fn next_replica_id(&self) -> Option<u64> {
        (self.next_replica_id != 0).then_some(self.next_replica_id)
    }

    pub(super) fn set_next_replica_id(&mut self, next: u64) {
        self.next_replica_id = next;
    }

    /// The topic of that name.
    #[must_use]
    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.get(name)
    }

    /// The topic of that id.
    #[must_use]
    pub fn topic_by_id(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.topics.get(self.names.get(&id)?)
    }

    /// All topics, by name.
    pub fn topics(&self) -> impl ExactSizeIterator<Item = &Arc<Topic>> {
        self.topics.values()
    }

    /// The topic and the number of the partition that a Raft group holds.
    #[must_use]
    pub fn partition_of_group(&self, group_id: u64) -> Option<(&Arc<Topic>, u32)> {
        let (first, run) = self.runs.range(..=group_id).next_back()?;
        let within = u32::try_from(group_id - first).ok()?;
        if within >= run.partition_count {
            return None;
        }
        Some((self.topics.get(&run.topic)?, run.first_partition + within))
    }

    /// The node of that id.
    #[must_use]
    pub fn node(&self, node_id: u64) -> Option<&Node> {
        self.nodes.get(&node_id)
    }

    /// All nodes, by id.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = (u64, &Node)> {
        self.nodes.iter().map(|(id, node)| (*id, node))
    }

    /// Ids of all nodes that there are or were, and of those that there will never be.
    pub(super) fn node_ids(&self) -> impl Iterator<Item = u64> {
        self.nodes.keys().chain(&self.removed).copied()
    }

    /// Whether there was a node of that id which was removed, or the id is reserved; nobody may use it.
    #[must_use]
    pub fn removed(&self, node_id: u64) -> bool {
        self.removed.contains(&node_id)
    }

    /// Number of nodes that were ever removed.
    #[must_use]
    pub fn removed_count(&self) -> usize {
        self.removed.len()
    }

    /// The partition that a Raft group holds.
    #[must_use]
    pub fn partition(&self, group_id: u64) -> Option<&Partition> {
        let (topic, number) = self.partition_of_group(group_id)?;
        topic.partitions.get(number as usize)
    }

    /// Partitions of all topics together.
    #[must_use]
    pub fn partition_count(&self) -> usize {
        self.partition_count
    }

    pub(super) fn insert_node(&mut self, node_id: u64, node: Node) {
        self.nodes.insert(node_id, node);
    }

    pub(super) fn remove_node(&mut self, node_id: u64) {
        self.nodes.remove(&node_id);
        self.removed.insert(node_id);
    }

    /// Adds the topic, or replaces the one of its name.
    pub(super) fn insert_topic(&mut self, topic: Arc<Topic>) {
        self.remove_topic(&topic.name);
        self.partition_count += topic.partitions.len();
        self.names.insert(topic.id, Arc::clone(&topic.name));
        self.runs.extend(runs(&topic));
        self.topics.insert(Arc::clone(&topic.name), topic);
    }

    pub(super) fn remove_topic(&mut self, name: &str) {
        if let Some(topic) = self.topics.remove(name) {
            self.partition_count -= topic.partitions.len();
            self.names.remove(&topic.id);
            for (first, _) in runs(&topic) {
                self.runs.remove(&first);
            }
        }
    }
}

fn runs(topic: &Topic) -> Vec<(u64, Run)> {
    let mut runs: Vec<(u64, Run)> = Vec::new();
    for (partition, number) in topic.partitions.iter().zip(0..) {
        match runs.last_mut() {
            Some((first, run)) if partition.group_id.checked_sub(*first) == Some(run.partition_count.into()) => {
                run.partition_count += 1;
            }
            _ => runs
                .push((partition.group_id, Run { topic: Arc::clone(&topic.name), first_partition: number, partition_count: 1 })),
        }
    }
    runs
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_uuid(&self.0, f)
    }
}

/// The 36 characters of RFC 9562.
pub(super) fn write_uuid(bytes: &[u8; 16], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (byte, at) in bytes.iter().zip(0..) {
        if matches!(at, 4 | 6 | 8 | 10) {
            f.write_str("-")?;
        }
        write!(f, "{byte:02x}")?;
    }
    Ok(())
}
