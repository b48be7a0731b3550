//! Keeps what this node hosts in step with the metadata: starts groups that appeared, removes groups that went.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use flotilla_machines::controller::{self, Image, Partition as Layout, Topic};
use flotilla_machines::partition::PartitionMachine;
use flotilla_raft::group::Group;
use flotilla_raft::planted::{Bug, is_planted};
use flotilla_raft::registry::{Begin, StartError};
use flotilla_raft::roster::Roster;
use flotilla_raft::types::{GroupId, Replica, ReplicaId};
use futures::StreamExt;
use tokio::sync::watch;

use crate::broker::{Broker, Hosted};
use crate::establish::Founding;
use crate::hosts::{PartitionHost, Shared};
use crate::partition::{Ends, Partition};

/// Groups that start at the same time.
const STARTS_AT_ONCE: usize = 64;
/// How long the preferred leader of a new partition has to begin it, and the others after it, one after the other.
const BEGIN_PATIENCE: Duration = Duration::from_secs(2);

/// A partition that the metadata places on this node.
struct Wanted {
    topic: Arc<str>,
    number: u32,
    group: GroupId,
    /// The one that is to be here.
    replica: controller::Replica,
    layout: Layout,
}

impl Broker {
    /// Follows the metadata until the broker stops.
    pub(crate) async fn follow_metadata(self) {
        let mut image = self.inner.image.clone();
        loop {
            let current = image.borrow_and_update().clone();
            self.reconcile(&current).await;
            self.inner.reconciled.send_replace(current.version());
            tokio::select! {
                () = self.inner.stop.cancelled() => return,
                changed = image.changed() => if changed.is_err() { return },
            }
        }
    }

    /// One pass. Idempotent: a crash in the middle is repaired by the next pass after the restart.
    pub(crate) async fn reconcile(&self, image: &Image) {
        // A replica of the controller that has not learnt anything yet says nothing about what should be here.
        if image.nodes().len() == 0 {
            return;
        }
        let _hosting = self.inner.hosting.lock().await;
        let wanted = self.wanted(image);
        let mut hosted: BTreeMap<u64, Hosted> = (**self.inner.hosted.load()).clone();
        let unwanted = |group: GroupId| group.0 != 0 && !wanted.contains_key(&group.0) && self.is_proven_gone(image, group);
        let gone: Vec<u64> = hosted.keys().copied().filter(|group| unwanted(GroupId(*group))).collect();
        for group in gone {
            hosted.remove(&group);
            self.inner.hosted.store(Arc::new(hosted.clone()));
            self.remove(GroupId(group)).await;
        }
        for group in self.inner.registry.idle_groups().into_iter().filter(|group| unwanted(*group)) {
            self.remove(group).await;
        }
        self.forget_deleted(image).await;
        self.inner.leaders.keep(|group_id| image.partition_of_group(group_id).is_some());
        let rosters: Vec<(u64, Option<Roster>)> =
            wanted.iter().map(|(group, wanted)| (*group, roster(image, &wanted.layout))).collect();
        let missing = wanted.into_iter().filter(|(group, wanted)| !is_hosted(hosted.get(group), wanted.replica));
        let starts: Vec<_> = missing.map(|(group, wanted)| async move { (group, self.start(wanted).await) }).collect();
        let mut starts = futures::stream::iter(starts).buffer_unordered(STARTS_AT_ONCE);
        while let Some((group, started)) = starts.next().await {
            hosted.extend(started.map(|started| (group, started)));
        }
        drop(starts);
        for (group, roster) in rosters {
            if let (Some(Hosted::Running(partition)), Some(roster)) = (hosted.get(&group), roster) {
                partition.group.learn_roster(roster);
            }
        }
        self.inner.hosted.store(Arc::new(hosted));
    }

    /// Whether this metadata proves that what is here of a group which it does not place here is needed by nobody: it is not older
    /// than the replica.
    fn is_proven_gone(&self, image: &Image, group: GroupId) -> bool {
        let here = self.inner.registry.replica_here(group);
        here.is_none_or(|here| image.next_replica_id().is_none_or(|next| here.0 < next))
    }

    fn wanted(&self, image: &Image) -> BTreeMap<u64, Wanted> {
        let mut wanted = BTreeMap::new();
        for topic in image.topics() {
            for (number, layout) in (0..).zip(&topic.partitions) {
                wanted.extend(self.wanted_here(topic, number, layout).map(|here| (layout.group_id, here)));
            }
        }
        wanted
    }

    fn wanted_here(&self, topic: &Topic, number: u32, layout: &Layout) -> Option<Wanted> {
        let replica = layout.on(self.node_id())?;
        let (topic, group) = (topic.name.clone(), GroupId(layout.group_id));
        Some(Wanted { topic, number, group, replica, layout: layout.clone() })
    }

    /// One group as [`Broker::reconcile`] leaves it: for one that could not be started, or not be removed. To be called by
    /// whoever holds `hosting`.
    pub(crate) async fn reconcile_group(&self, image: &Image, group: GroupId) {
        let found = image.partition_of_group(group.0);
        let layout = found.and_then(|(topic, number)| Some((topic, number, topic.partitions.get(number as usize)?)));
        match layout.and_then(|(topic, number, layout)| self.wanted_here(topic, number, layout)) {
            Some(wanted) => {
                if let Some(started) = self.start(wanted).await {
                    self.set_hosted(group.0, started);
                }
            }
            None if self.is_proven_gone(image, group) => self.remove(group).await,
            None => {}
        }
    }

    /// Of groups that are gone everywhere nothing needs to be kept.
    async fn forget_deleted(&self, image: &Image) {
        let mut gone = self.inner.registry.removed_groups();
        gone.retain(|group| image.partition_of_group(group.0).is_none());
        if let Err(error) = self.inner.registry.forget(gone).await {
            tracing::debug!(%error, "which groups are gone for good was not noted; the next pass does it");
        }
    }

    /// Starts the replica that the metadata names; what is here of another one goes first. `None`: the metadata is older than what
    /// is here.
    async fn start(&self, wanted: Wanted) -> Option<Hosted> {
        let Wanted { topic, number, group: group_id, replica, layout } = wanted;
        let (registry, id) = (&self.inner.registry, ReplicaId(replica.id));
        let here = registry.replica_here(group_id);
        if here.is_some_and(|here| here > id) {
            return None;
        }
        if let Err(source) = self.make_room(group_id, here, replica).await {
            return Some(down(&topic, number, &StartError::Io { group: group_id, source }));
        }
        let (host, machine, ends) = PartitionHost::new(group_id);
        // The preferred leader of a new partition begins it; the other founders hear from it. It may be on the move already: without
        // a leader that move would never end.
        let founds = replica.fresh && !layout.is_founded() && layout.replicas.contains(&replica);
        let first = layout.replicas.first() == Some(&replica);
        let begin = match replica.fresh {
            false => Begin::Resume,
            true if founds && first => Begin::Initialize(replicas(&layout.replicas)),
            true => Begin::Wait,
        };
        let preamble = self.stamps(group_id, &machine);
        let group = match registry.start(group_id, id, Box::new(host), Some(preamble), begin).await {
            Ok(group) => group,
            Err(error) => return Some(down(&topic, number, &error)),
        };
        if founds && !first {
            self.begin_if_nobody_does(group.clone(), layout);
        }
        Some(self.running((topic, number), group, (machine, ends)))
    }

    /// What is here of another replica goes: this one is newer, so nobody needs it. What is damaged of it is kept aside.
    async fn make_room(&self, group: GroupId, here: Option<ReplicaId>, replica: controller::Replica) -> io::Result<()> {
        let registry = &self.inner.registry;
        let damaged = registry.damage_of(group).is_some();
        match here {
            Some(here) if here.0 < replica.id && !damaged => {
                tracing::info!(%group, %here, replica = replica.id, "another replica takes the place of the one that is here");
                registry.remove(group).await
            }
            Some(here) if here.0 < replica.id => registry.set_aside(group).await,
            // Nobody knows which one was here; but on the one that is named nobody counts yet.
            None if damaged && replica.fresh => registry.set_aside(group).await,
            _ => Ok(()),
        }
    }

    pub(crate) fn running(
        &self,
        name: (Arc<str>, u32),
        group: Group,
        (machine, ends): (Shared<PartitionMachine>, watch::Receiver<Ends>),
    ) -> Hosted {
        let founding = Founding::new(self.inner.image.clone(), self.inner.founding.clone());
        let shared = (self.failure().clone(), self.inner.peers.clone(), founding);
        let image = self.image();
        if let Some(roster) = image.partition(group.id().0).and_then(|layout| roster(&image, layout)) {
            group.learn_roster(roster);
        }
        Hosted::Running(Arc::new(Partition::new(name, group, machine, ends, shared)))
    }

    /// The preferred leader may be down when a partition is created: then the next replica begins it. All would begin it
    /// with the same entry, so it does no harm if two do.
    fn begin_if_nobody_does(&self, group: Group, layout: Layout) {
        let rank = layout.nodes().position(|node_id| node_id == self.node_id());
        let Some(rank) = rank else { return };
        let (broker, patience) = (self.clone(), BEGIN_PATIENCE * u32::try_from(rank).unwrap_or(u32::MAX));
        self.inner.tasks.spawn(async move {
            tokio::select! {
                () = broker.inner.stop.cancelled() => return,
                () = tokio::time::sleep(patience) => {}
            }
            let image = broker.image();
            let unfounded = image.partition(group.id().0).is_some_and(|layout| !layout.is_founded());
            if unfounded
                && !group.is_initialized().await
                && let Err(error) = group.initialize(&replicas(&layout.replicas)).await
            {
                tracing::debug!(group = %group.id(), %error, "somebody else began the partition");
            }
        });
    }

    async fn remove(&self, group: GroupId) {
        if is_planted(Bug::ReplicaNotDeleted) {
            return;
        }
        if let Err(error) = self.inner.registry.remove(group).await {
            tracing::error!(%group, %error, "removing the group failed; it is tried again");
        }
    }
}

/// Whether this replica runs here, or a newer one.
fn is_hosted(hosted: Option<&Hosted>, replica: controller::Replica) -> bool {
    matches!(hosted, Some(Hosted::Running(partition)) if partition.group.replica().0 >= replica.id)
}

/// What the metadata proves about the replicas of a partition; nothing before they have ids of their own.
fn roster(image: &Image, layout: &Layout) -> Option<Roster> {
    let next = ReplicaId(image.next_replica_id()?);
    Some(Roster { next, named: layout.all().map(|replica| ReplicaId(replica.id)).collect() })
}

/// Replicas as Raft knows them.
pub(crate) fn replicas(placed: &[controller::Replica]) -> Vec<Replica> {
    placed.iter().map(|replica| Replica { id: ReplicaId(replica.id), node: replica.node }).collect()
}

pub(crate) fn down(topic: &str, number: u32, error: &StartError) -> Hosted {
    tracing::error!(topic, number, %error, "the partition is down");
    Hosted::Down(error.outage())
}
