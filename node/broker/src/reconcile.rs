//! Keeps what this node hosts in step with the metadata: starts groups that appeared, removes groups that went.

use std::collections::BTreeMap;
use std::sync::Arc;

use flotilla_machines::controller::Image;
use flotilla_raft::registry::{Begin, StartError};
use flotilla_raft::types::GroupId;
use futures::StreamExt;

use crate::broker::{Broker, HOSTING_PATIENCE, Hosted};
use crate::hosts::{PartitionHost, clock_preamble};
use crate::partition::Partition;

/// Groups that start at the same time.
const STARTS_AT_ONCE: usize = 64;

/// A partition that the metadata places on this node.
struct Wanted {
    topic: Arc<str>,
    number: u32,
    group: GroupId,
    voters: Vec<u64>,
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
        let wanted = self.wanted(image);
        let mut hosted: BTreeMap<u64, Hosted> = (**self.inner.hosted.load()).clone();
        let gone: Vec<u64> = hosted.keys().copied().filter(|group| !wanted.contains_key(group)).collect();
        for group in gone {
            hosted.remove(&group);
            self.inner.hosted.store(Arc::new(hosted.clone()));
            self.remove(GroupId(group)).await;
        }
        for group in self.inner.registry.recovered_groups() {
            if group.0 != 0 && !wanted.contains_key(&group.0) {
                self.remove(group).await;
            }
        }
        let missing = wanted.into_iter().filter(|(group, _)| !matches!(hosted.get(group), Some(Hosted::Running(_))));
        let starts = missing.map(|(group, wanted)| async move { (group, self.start(wanted).await) });
        let starts: Vec<_> = starts.collect();
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
                if layout.replicas.contains(&self.node_id()) {
                    let (topic, group, voters) = (topic.name.clone(), GroupId(layout.group_id), layout.replicas.clone());
                    wanted.insert(layout.group_id, Wanted { topic, number, group, voters });
                }
            }
        }
        wanted
    }

    async fn start(&self, wanted: Wanted) -> Hosted {
        let Wanted { topic, number, group, voters } = wanted;
        let (host, machine, ends) = PartitionHost::new(group);
        let started = self.inner.registry.start(group, Box::new(host), Some(clock_preamble()), Begin::Initialize(voters)).await;
        let group = match started {
            Ok(group) => group,
            Err(error) => return down(&topic, number, &error),
        };
        if let Err(error) = group.wait_ready(HOSTING_PATIENCE).await {
            tracing::warn!(%topic, number, %error, "the partition is not ready yet");
        }
        let failure = self.failure().clone();
        Hosted::Running(Arc::new(Partition::new((topic, number), group, machine, ends, failure)))
    }

    async fn remove(&self, group: GroupId) {
        if let Err(error) = self.inner.registry.remove(group).await {
            tracing::error!(%group, %error, "removing the group's data failed; it is tried again after a restart");
        }
    }
}

fn down(topic: &str, number: u32, error: &StartError) -> Hosted {
    tracing::error!(topic, number, %error, "the partition stays down");
    Hosted::Down(error.to_string())
}
