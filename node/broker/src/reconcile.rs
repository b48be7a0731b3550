//! Keeps what this node hosts in step with the metadata: starts groups that appeared, removes groups that went.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use flotilla_machines::controller::{Image, Partition as Layout, Topic};
use flotilla_machines::partition::PartitionMachine;
use flotilla_raft::group::Group;
use flotilla_raft::registry::{Begin, StartError};
use flotilla_raft::types::GroupId;
use futures::StreamExt;
use tokio::sync::watch;

use crate::broker::{Broker, Hosted};
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
        let gone: Vec<u64> = hosted.keys().copied().filter(|group| !wanted.contains_key(group)).collect();
        for group in gone {
            hosted.remove(&group);
            self.inner.hosted.store(Arc::new(hosted.clone()));
            self.remove(GroupId(group)).await;
        }
        for group in self.inner.registry.idle_groups() {
            if group.0 != 0 && !wanted.contains_key(&group.0) {
                self.remove(group).await;
            }
        }
        self.forget_deleted(image).await;
        self.inner.leaders.keep(|group_id| image.partition_of_group(group_id).is_some());
        let missing = wanted.into_iter().filter(|(group, _)| !matches!(hosted.get(group), Some(Hosted::Running(_))));
        let starts: Vec<_> = missing.map(|(group, wanted)| async move { (group, self.start(wanted).await) }).collect();
        let mut starts = futures::stream::iter(starts).buffer_unordered(STARTS_AT_ONCE);
        while let Some((group, started)) = starts.next().await {
            hosted.insert(group, started);
        }
        drop(starts);
        self.inner.hosted.store(Arc::new(hosted));
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
        let here = layout.hosts().any(|node_id| node_id == self.node_id());
        let (topic, group) = (topic.name.clone(), GroupId(layout.group_id));
        here.then(|| Wanted { topic, number, group, layout: layout.clone() })
    }

    /// One group as [`Broker::reconcile`] leaves it: for one that could not be started, or not be removed. To be called by
    /// whoever holds `hosting`.
    pub(crate) async fn reconcile_group(&self, image: &Image, group: GroupId) {
        let found = image.partition_of_group(group.0);
        let layout = found.and_then(|(topic, number)| Some((topic, number, topic.partitions.get(number as usize)?)));
        match layout.and_then(|(topic, number, layout)| self.wanted_here(topic, number, layout)) {
            Some(wanted) => {
                let started = self.start(wanted).await;
                self.set_hosted(group.0, started);
            }
            None => self.remove(group).await,
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

    async fn start(&self, wanted: Wanted) -> Hosted {
        let Wanted { topic, number, group: group_id, layout } = wanted;
        let (host, machine, ends) = PartitionHost::new(group_id);
        // The preferred leader of a new partition begins it; the others hear from it. It may be on the move already: without a
        // leader that move would never end. Who became a replica by a move has a log, and begins nothing.
        let first = layout.replicas.first() == Some(&self.node_id());
        let begin = match layout.replicas.contains(&self.node_id()) {
            true if first => Begin::Initialize(layout.replicas.clone()),
            true => Begin::Wait,
            // It moves here, perhaps not for the first time.
            false => Begin::Join,
        };
        let preamble = self.stamps(group_id, &machine);
        let started = self.inner.registry.start(group_id, Box::new(host), Some(preamble), begin).await;
        let group = match started {
            Ok(group) => group,
            Err(error) => return down(&topic, number, &error),
        };
        if !first {
            self.begin_if_nobody_does(group.clone(), layout);
        }
        self.running((topic, number), group, (machine, ends))
    }

    pub(crate) fn running(
        &self,
        name: (Arc<str>, u32),
        group: Group,
        (machine, ends): (Shared<PartitionMachine>, watch::Receiver<Ends>),
    ) -> Hosted {
        Hosted::Running(Arc::new(Partition::new(name, group, machine, ends, (self.failure().clone(), self.inner.peers.clone()))))
    }

    /// The preferred leader may be down when a partition is created: then the next replica begins it. All would begin it
    /// with the same entry, so it does no harm if two do.
    fn begin_if_nobody_does(&self, group: Group, layout: Layout) {
        let rank = layout.replicas.iter().position(|node_id| *node_id == self.node_id());
        let Some(rank) = rank else { return };
        let (stop, patience) = (self.inner.stop.clone(), BEGIN_PATIENCE * u32::try_from(rank).unwrap_or(u32::MAX));
        self.inner.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(patience) => {}
            }
            if !group.is_initialized().await
                && let Err(error) = group.initialize(layout.replicas.iter().copied().collect()).await
            {
                tracing::debug!(group = %group.id(), %error, "somebody else began the partition");
            }
        });
    }

    async fn remove(&self, group: GroupId) {
        if let Err(error) = self.inner.registry.remove(group).await {
            tracing::error!(%group, %error, "removing the group failed; it is tried again");
        }
    }
}

pub(crate) fn down(topic: &str, number: u32, error: &StartError) -> Hosted {
    tracing::error!(topic, number, %error, "the partition is down");
    Hosted::Down(error.outage())
}
