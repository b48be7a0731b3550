//! Groups whose core has died are started again from what is durable, while all others go on; so are groups that could not be
//! started for a passing reason, and removals are gone on with that could not be finished.
//!
//! Groups in whose data damage was met are given up instead, where that helps (`heal.rs`).
//!
//! A core dies when something in it panics, or when it meets an error that it cannot go on with. If the storage of the
//! whole node has failed, nothing is started again here: see [`Failure`](flotilla_raft::failure::Failure).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use flotilla_raft::registry::Cause;
use flotilla_raft::types::GroupId;
use tokio::time::Instant;

use crate::broker::{Broker, Hosted};
use crate::hosts::{ControllerHost, PartitionHost};
use crate::partition::Partition;
use crate::reconcile::down;

/// A group that dies again, or fails to start again, is left alone for this long at first, then for twice as long each time,
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// up to this.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// A group that lived for this long counts as sound again.
const SOUND_AFTER: Duration = Duration::from_secs(300);

/// The deaths and failed starts of one group.
#[derive(Debug)]
struct Deaths {
    last: Instant,
    /// How long it is left alone when it dies again.
    pause: Duration,
    /// When it is started again, while it is dead.
    due: Option<Instant>,
}

impl Deaths {
    /// Another one; the first in a while is answered at once.
    fn note(known: Option<Self>, now: Instant) -> Self {
        match known {
            Some(deaths) if deaths.due.is_some() => deaths,
            Some(deaths) if now - deaths.last < SOUND_AFTER => {
                let pause = PAUSE_MAX.min(deaths.pause * 2);
                Self { last: now, pause, due: Some(now + deaths.pause) }
            }
            _ => Self { last: now, pause: PAUSE_MIN, due: Some(now) },
        }
    }
}

impl Broker {
    /// Looks after the groups of this node until the broker stops.
    pub(crate) async fn revive_groups(self) {
        let mut changes = self.inner.registry.leader_changes();
        let mut deaths: BTreeMap<u64, Deaths> = BTreeMap::new();
        loop {
            changes.borrow_and_update();
            let now = Instant::now();
            for GroupId(group_id) in self.inner.registry.take_changed() {
                if !self.give_up_damaged(group_id).await && self.is_to_be_revived(group_id) {
                    let known = deaths.remove(&group_id);
                    deaths.insert(group_id, Deaths::note(known, now));
                }
            }
            for (group_id, deaths) in &mut deaths {
                if deaths.due.take_if(|due| *due <= now).is_some() {
                    self.revive(*group_id).await;
                }
            }
            let next = deaths.values().filter_map(|deaths| deaths.due).min();
            tokio::select! {
                () = self.inner.stop.cancelled() => return,
                changed = changes.changed() => if changed.is_err() { return },
                () = sleep_until(next) => {}
            }
        }
    }

    fn has_died(&self, group_id: u64) -> bool {
        let group = if group_id == 0 { Some((*self.controller()).clone()) } else { self.hosted_group(group_id) };
        group.is_some_and(|group| group.watch().borrow().died.is_some())
    }

    fn is_to_be_revived(&self, group_id: u64) -> bool {
        let outage = self.inner.registry.outage(GroupId(group_id));
        self.has_died(group_id) || outage.is_some_and(|outage| outage.cause == Cause::Passing)
    }

    async fn revive(&self, group_id: u64) {
        let _hosting = self.inner.hosting.lock().await;
        // What failed for all groups is not a matter of this one.
        if !self.is_to_be_revived(group_id) || self.failure().get().is_some() {
            return;
        }
        match self.inner.hosted.load().get(&group_id).cloned() {
            _ if group_id == 0 => self.revive_controller().await,
            Some(Hosted::Running(before)) => self.revive_partition(GroupId(group_id), &before).await,
            _ => return self.reconcile_group(&self.image(), GroupId(group_id)).await,
        }
        self.inner.group_restarts.fetch_add(1, Ordering::Relaxed);
    }

    async fn revive_partition(&self, group_id: GroupId, before: &Partition) {
        tracing::warn!(partition = %before.describe(), "starting the group again whose core died");
        let (host, machine, ends) = PartitionHost::new(group_id);
        let restarted = self.inner.registry.restart(group_id, Box::new(host), Some(self.stamps(group_id, &machine))).await;
        let name = (before.topic.clone(), before.number);
        self.set_hosted(
            group_id.0,
            match restarted {
                Ok(group) => self.running(name, group, (machine, ends)),
                Err(error) => down(&name.0, name.1, &error),
            },
        );
    }

    async fn revive_controller(&self) {
        tracing::warn!("starting the controller's group again, whose core died");
        let host = ControllerHost::new(self.inner.publish_image.clone());
        let stamps = host.stamps(&self.inner.clock);
        match self.inner.registry.restart(GroupId(0), Box::new(host), Some(stamps)).await {
            Ok(group) => self.inner.controller.store(Arc::new(group)),
            Err(error) => {
                tracing::error!(%error, "the controller's group does not start again: this node does not learn what changes");
            }
        }
    }

    /// To be called by whoever holds `hosting`.
    pub(crate) fn set_hosted(&self, group_id: u64, now: Hosted) {
        let mut hosted = BTreeMap::clone(&self.inner.hosted.load());
        hosted.insert(group_id, now);
        self.inner.hosted.store(Arc::new(hosted));
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
#[path = "revive_tests.rs"]
pub(crate) mod tests;
