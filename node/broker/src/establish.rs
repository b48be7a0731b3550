//! Before a group counts on a replica for the first time, it is committed in the metadata that this replica may not begin with
//! nothing any more. For a new partition that means that it is founded: nothing is acknowledged before. From then on a replica of
//! which nothing is to be found was lost, and is replaced (`heal.rs`): absence alone never makes a log.
//!
//! The leader of a group says so, for many groups at once. A partition is founded as soon as all its replicas have begun, or somebody
//! wants to write, or it has waited long enough: who comes after that copies as another replica.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use flotilla_machines::controller::{self, Image};
use flotilla_proto::internal::v1;
use flotilla_proto::internal::v1::controller_command::Command;
use flotilla_raft::group::Group;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::broker::Broker;
use crate::peer_calls::Proposed;

/// How long a new partition waits for those of its replicas that are not there yet.
const FOUNDING_PATIENCE: Duration = Duration::from_secs(5);
/// How long who wants to write waits for the founding.
const FOUNDED_PATIENCE: Duration = Duration::from_secs(5);

/// Whether a partition is founded, for those who want to write to it.
pub(crate) struct Founding {
    /// That it is; for good.
    known: AtomicBool,
    /// Somebody waits for it.
    wanted: AtomicBool,
    image: watch::Receiver<Arc<Image>>,
    /// Wakes the leader's side.
    wake: Arc<Notify>,
}

impl Founding {
    pub(crate) fn new(image: watch::Receiver<Arc<Image>>, wake: Arc<Notify>) -> Self {
        Self { known: AtomicBool::new(false), wanted: AtomicBool::new(false), image, wake }
    }

    /// Returns when the partition of this group is founded, `false` if that takes too long.
    pub(crate) async fn done(&self, group_id: u64) -> bool {
        if self.known.load(Ordering::Acquire) {
            return true;
        }
        let is_founded = |image: &Arc<Image>| image.partition(group_id).is_none_or(controller::Partition::is_founded);
        let mut image = self.image.clone();
        if !is_founded(&image.borrow_and_update()) {
            self.wanted.store(true, Ordering::Release);
            self.wake.notify_one();
            let founded = image.wait_for(is_founded);
            if !matches!(tokio::time::timeout(FOUNDED_PATIENCE, founded).await, Ok(Ok(_))) {
                return false;
            }
        }
        self.known.store(true, Ordering::Release);
        true
    }

    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Acquire)
    }
}

/// Since when this node leads partitions that are not founded.
#[derive(Default)]
pub(crate) struct Unfounded {
    since: BTreeMap<u64, Instant>,
}

impl Unfounded {
    /// Whether a partition that this node leads is to be founded now.
    pub(crate) fn is_due(&mut self, group: &Group, founding: &Founding) -> bool {
        let since = *self.since.entry(group.id().0).or_insert_with(Instant::now);
        let all_there =
            || group.progress().is_some_and(|progress| group.voters().iter().all(|voter| progress.contains_key(voter)));
        founding.is_wanted() || since.elapsed() >= FOUNDING_PATIENCE || all_there()
    }

    /// Forgets those that are founded, or led elsewhere.
    pub(crate) fn keep(&mut self, still: impl Fn(u64) -> bool) {
        self.since.retain(|group_id, _| still(*group_id));
    }
}

impl Broker {
    /// Has the metadata say that these replicas, by group, are counted on.
    pub(crate) async fn establish(&self, groups: Vec<v1::EstablishedReplicas>) {
        if groups.is_empty() {
            return;
        }
        let count = groups.len();
        match self.control_anywhere(Command::EstablishReplicas(v1::EstablishReplicas { groups })).await {
            Proposed::Done(_) => tracing::debug!(groups = count, "their replicas are counted on"),
            Proposed::Refused(reason) => tracing::warn!(groups = count, reason, "their replicas are not counted on"),
            Proposed::NotLeader(_) | Proposed::Unknown(_) => {}
        }
    }
}
