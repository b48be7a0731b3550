//! Who leads which partition: each node tells all others what it leads, over the links between them.
//!
//! It is a hint, not a promise: a node that is asked and does not lead says so. What is told with a higher term wins;
//! what a node told that cannot be reached any more does not count.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flotilla_proto::internal::v1;
use flotilla_raft::group::Group;
use flotilla_raft::network::LinkState;
use flotilla_raft::types::{GroupId, ReplicaId};
use prost::Message;
use tokio::sync::watch;

use crate::broker::{Broker, Hosted};

/// How often what changes without anybody saying so (who is in sync) is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Changes that come together are told together: a look at a thousand groups is not for free.
const GATHER: Duration = Duration::from_millis(5);
/// Groups in one message.
const GROUPS_PER_MESSAGE: usize = 10_000;
/// A replica that lags by no more than this many entries is in sync.
const IN_SYNC_ENTRIES_MAX: u64 = 1_000;

/// Who leads a group, as its leader said.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Led {
    node_id: u64,
    term: u64,
    in_sync: Vec<u64>,
}

/// See the module.
pub(crate) struct Leaders {
    known: Mutex<BTreeMap<u64, Led>>,
    /// Nodes that said that they are about to end.
    stopping: Mutex<BTreeSet<u64>>,
    version: watch::Sender<u64>,
}

impl Default for Leaders {
    fn default() -> Self {
        Self { known: Mutex::default(), stopping: Mutex::default(), version: watch::Sender::new(0) }
    }
}

impl Leaders {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Led>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what a node said that it leads.
    fn learn(&self, node_id: u64, said: v1::Leading) {
        // A node's next life says that it is not.
        let mut stopping = self.stopping.lock().unwrap_or_else(PoisonError::into_inner);
        if said.stopping {
            stopping.insert(node_id)
        } else {
            stopping.remove(&node_id)
        };
        drop(stopping);
        let mut known = self.lock();
        if said.all {
            let named: BTreeSet<u64> = said.groups.iter().map(|group| group.group_id).collect();
            known.retain(|group_id, led| led.node_id != node_id || named.contains(group_id));
        }
        for v1::LedGroup { group_id, term, in_sync } in said.groups {
            let newer = known.get(&group_id).is_none_or(|led| led.term <= term);
            if in_sync.is_empty() {
                if known.get(&group_id).is_some_and(|led| led.node_id == node_id && led.term <= term) {
                    known.remove(&group_id);
                }
            } else if newer {
                known.insert(group_id, Led { node_id, term, in_sync });
            }
        }
        drop(known);
        self.version.send_modify(|version| *version += 1);
    }

    /// Forgets groups that are no more.
    pub(crate) fn keep(&self, exists: impl Fn(u64) -> bool) {
        self.lock().retain(|group_id, _| exists(*group_id));
    }

    /// Rises whenever something was learnt.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }
}

impl Broker {
    /// The node that leads a partition's group, as far as is known here; `None` while there is none.
    #[must_use]
    pub fn leader_of(&self, group_id: u64) -> Option<u64> {
        if self.is_leader_here(group_id) {
            return Some(self.node_id());
        }
        let told = self.inner.leaders.lock().get(&group_id).map(|led| (led.node_id, led.term));
        let told = told.filter(|(node_id, _)| *node_id != self.node_id() && self.online(*node_id));
        // A replica may know of a newer one.
        let own = self.hosted_group(group_id).and_then(|group| Some((group.leader_node()?, group.term())));
        let own = own.filter(|(node_id, _)| *node_id != self.node_id() && self.online(*node_id));
        told.max_by_term(own)
    }

    /// Whether this node leads a partition's group.
    #[must_use]
    pub fn is_leader_here(&self, group_id: u64) -> bool {
        self.hosted_group(group_id).is_some_and(|group| group.is_leader())
    }

    /// Replicas that have everything committed, as the leader said.
    #[must_use]
    pub fn in_sync(&self, group_id: u64) -> Vec<u64> {
        if self.is_leader_here(group_id) {
            return self.in_sync_here(group_id);
        }
        let told = self.inner.leaders.lock().get(&group_id).map(|led| led.in_sync.clone()).unwrap_or_default();
        told.into_iter().filter(|node_id| self.online(*node_id)).collect()
    }

    /// The nodes that hold a partition's group; none if there is no such partition.
    #[must_use]
    pub fn replicas_of(&self, group_id: u64) -> Vec<u64> {
        let image = self.image();
        let found = image.partition_of_group(group_id);
        let layout = found.and_then(|(topic, number)| topic.partitions.get(number as usize));
        layout.map(|layout| layout.nodes().collect()).unwrap_or_default()
    }

    /// The nodes that vote in the controller's group.
    #[must_use]
    pub fn controller_voters(&self) -> Vec<u64> {
        self.controller().membership().voter_nodes().into_iter().collect()
    }

    /// Whether this node can reach another one at the moment.
    #[must_use]
    pub fn online(&self, node_id: u64) -> bool {
        node_id == self.node_id() || self.inner.peers.is_up(node_id)
    }

    /// The links to other nodes that are up, watched.
    #[must_use]
    pub fn links(&self) -> watch::Receiver<BTreeMap<u64, LinkState>> {
        self.inner.peers.links()
    }

    /// Whether a node said that it is about to end.
    pub(crate) fn is_stopping(&self, node_id: u64) -> bool {
        self.inner.leaders.stopping.lock().unwrap_or_else(PoisonError::into_inner).contains(&node_id)
    }

    /// host:port at which other nodes reach a node.
    #[must_use]
    pub fn peer_address(&self, node_id: u64) -> Option<String> {
        self.image().node(node_id).map(|node| node.peer_address.clone())
    }

    /// host:port at which clients reach a node.
    #[must_use]
    pub fn node_address(&self, node_id: u64) -> Option<String> {
        self.image().node(node_id).map(|node| node.address.clone())
    }

    pub(crate) fn hosted_group(&self, group_id: u64) -> Option<Group> {
        match self.inner.hosted.load().get(&group_id) {
            Some(Hosted::Running(partition)) => Some(partition.group.clone()),
            _ => None,
        }
    }

    pub(crate) fn in_sync_here(&self, group_id: u64) -> Vec<u64> {
        let group = self.hosted_group(group_id);
        group.map_or_else(Vec::new, |group| self.in_sync_replicas(&group).into_values().collect())
    }

    /// The voters of a group led here that have (nearly) everything and can be reached, with their nodes. A node may have
    /// another replica of the group, which is none of them.
    pub(crate) fn in_sync_replicas(&self, group: &Group) -> BTreeMap<ReplicaId, u64> {
        let Some(progress) = group.progress() else { return BTreeMap::new() };
        let committed = group.committed_index().unwrap_or(0);
        let near = |id: ReplicaId, node_id: u64| {
            progress.get(&id).is_some_and(|matched| matched.saturating_add(IN_SYNC_ENTRIES_MAX) >= committed)
                && self.online(node_id)
                && !self.inner.releases.is_asked(group.id().0, id)
        };
        let voters = group.membership().voters.into_iter();
        voters.filter(|(id, node_id)| *id == group.replica() || near(*id, *node_id)).collect()
    }

    /// Tells the other nodes what this one leads, and takes in what they tell, until the broker stops.
    pub(crate) async fn exchange_leaders(self) {
        let mut told: BTreeMap<u64, (u64, Vec<u64>)> = BTreeMap::new();
        let mut heard = self.inner.peers.casts();
        let mut links = self.inner.peers.links();
        // Over links that are up already others have told what they lead, and nobody listened.
        let mut asks = true;
        links.mark_changed();
        let mut greeted = BTreeMap::new();
        let mut changes = self.inner.registry.leader_changes();
        let mut look = tokio::time::interval(LOOK_INTERVAL);
        let mut announced = false;
        loop {
            tokio::select! {
                () = self.inner.stop.cancelled() => return,
                () = self.inner.handing_over.cancelled(), if !announced => {
                    announced = true;
                    let up = self.inner.peers.links().borrow().clone();
                    up.keys().for_each(|node_id| self.cast_all(*node_id, &told, false));
                }
                cast = heard.recv() => {
                    let Some((node_id, bytes)) = cast else { return };
                    match v1::Leading::decode(bytes) {
                        Ok(v1::Leading { clock_ms: Some(clock_ms), .. }) => self.inner.clock.heard(node_id, clock_ms),
                        Ok(said) => {
                            if said.asks {
                                self.cast_all(node_id, &told, false);
                            }
                            self.inner.leaders.learn(node_id, said);
                        }
                        Err(error) => tracing::warn!(node_id, %error, "a peer said something unreadable"),
                    }
                    continue;
                }
                changed = links.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let up = links.borrow_and_update().clone();
                    for (node_id, link) in up.iter().filter(|(node_id, link)| greeted.get(*node_id) != Some(*link)) {
                        tracing::info!(node_id, link = link.number, "linked");
                        self.cast_all(*node_id, &told, asks);
                    }
                    (greeted, asks) = (up, false);
                    self.inner.leaders.version.send_modify(|version| *version += 1);
                }
                changed = changes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    tokio::time::sleep(GATHER).await;
                }
                _ = look.tick() => {}
            }
            self.tell_changes(&mut told);
        }
    }

    fn tell_changes(&self, told: &mut BTreeMap<u64, (u64, Vec<u64>)>) {
        let now: BTreeMap<u64, (u64, Vec<u64>)> = self.led_here();
        let mut groups: Vec<v1::LedGroup> = Vec::new();
        for (group_id, (term, in_sync)) in &now {
            if told.get(group_id) != Some(&(*term, in_sync.clone())) {
                groups.push(v1::LedGroup { group_id: *group_id, term: *term, in_sync: in_sync.clone() });
            }
        }
        for (group_id, (term, _)) in told.iter().filter(|(group_id, _)| !now.contains_key(group_id)) {
            groups.push(v1::LedGroup { group_id: *group_id, term: *term, in_sync: Vec::new() });
        }
        if groups.is_empty() {
            return;
        }
        for some in groups.chunks(GROUPS_PER_MESSAGE) {
            let stopping = self.inner.handing_over.is_cancelled();
            let message = v1::Leading { all: false, groups: some.to_vec(), stopping, ..Default::default() }.encode_to_vec();
            let message = bytes::Bytes::from(message);
            for node_id in self.inner.peers.links().borrow().keys() {
                self.inner.peers.cast(*node_id, message.clone());
            }
        }
        *told = now;
        self.inner.leaders.version.send_modify(|version| *version += 1);
    }

    fn cast_all(&self, node_id: u64, told: &BTreeMap<u64, (u64, Vec<u64>)>, asks: bool) {
        let group = |(group_id, (term, in_sync)): (&u64, &(u64, Vec<u64>))| v1::LedGroup {
            group_id: *group_id,
            term: *term,
            in_sync: in_sync.clone(),
        };
        let groups: Vec<v1::LedGroup> = told.iter().map(group).collect();
        let stopping = self.inner.handing_over.is_cancelled();
        let (mut first, chunks) = (true, groups.chunks(GROUPS_PER_MESSAGE));
        let none: &[v1::LedGroup] = &[];
        for some in chunks.chain(groups.is_empty().then_some(none)) {
            let message = v1::Leading { all: first, groups: some.to_vec(), stopping, asks: first && asks, clock_ms: None };
            self.inner.peers.cast(node_id, message.encode_to_vec().into());
            first = false;
        }
    }

    fn led_here(&self) -> BTreeMap<u64, (u64, Vec<u64>)> {
        let hosted = self.inner.hosted.load();
        let led = hosted.iter().filter_map(|(group_id, hosted)| match hosted {
            Hosted::Running(partition) if partition.group.is_leader() => {
                Some((*group_id, (partition.group.term(), self.in_sync_here(*group_id))))
            }
            _ => None,
        });
        led.collect()
    }
}

/// Of two that are known to lead, who does in the higher term.
trait MaxByTerm {
    fn max_by_term(self, other: Self) -> Option<u64>;
}

impl MaxByTerm for Option<(u64, u64)> {
    fn max_by_term(self, other: Self) -> Option<u64> {
        [self, other].into_iter().flatten().max_by_key(|(_, term)| *term).map(|(node_id, _)| node_id)
    }
}

impl Broker {
    /// Returns when every partition of `groups` has a leader that this node knows, or `false` after `patience`.
    pub(crate) async fn wait_led(&self, groups: &[GroupId], patience: Duration) -> bool {
        let mut changed = self.inner.leaders.watch();
        let mut hosted = self.inner.registry.leader_changes();
        let mut open = groups.to_vec();
        let led = async {
            loop {
                // Who was led once is not looked at again: there may be a thousand, and each changes by itself.
                open.retain(|group| self.leader_of(group.0).is_none());
                if open.is_empty() {
                    return;
                }
                tokio::select! {
                    told = changed.changed() => if told.is_err() { return },
                    own = hosted.changed() => if own.is_err() { return },
                }
            }
        };
        tokio::time::timeout(patience, led).await.is_ok()
    }
}
