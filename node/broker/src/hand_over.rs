//! What a node does before it ends: it gives away what it leads, so that nobody has to notice that it is gone.

use std::time::Duration;

use flotilla_raft::group::Group;
use flotilla_raft::types::{Replica, ReplicaId};

use crate::broker::{Broker, Hosted};

/// A lead that was not taken over is offered again.
const AGAIN_INTERVAL: Duration = Duration::from_millis(100);

impl Broker {
    /// Gives away every lead that another replica can take; returns when none is left, or after `patience`. From now on this
    /// node gets none from others. What they are told last is that it leads nothing, so requests that still come here are
    /// passed on to the new leaders.
    pub async fn hand_over(&self, patience: Duration) {
        self.inner.handing_over.cancel();
        let mut changes = self.inner.registry.leader_changes();
        let handing_over = async {
            loop {
                changes.borrow_and_update();
                let leads = self.leads_to_give();
                if leads.is_empty() {
                    return;
                }
                for (group, to) in &leads {
                    if let Err(error) = group.transfer_leader(*to).await {
                        tracing::debug!(group = %group.id(), %to, %error, "the lead was not handed over");
                    }
                }
                let again = tokio::time::timeout(AGAIN_INTERVAL, async {
                    while self.leads_to_give().len() >= leads.len() && changes.changed().await.is_ok() {}
                });
                // Whoever has not taken over by then is asked again, or somebody else is.
                let _ = again.await;
            }
        };
        if tokio::time::timeout(patience, handing_over).await.is_err() {
            tracing::warn!(left = self.leads_to_give().len(), "not every lead was taken over in time; the others elect leaders");
        }
    }

    /// The groups led here and who is to lead each: the voter that has most of the log, of those that can be reached. None
    /// for a group that has no other replica.
    fn leads_to_give(&self) -> Vec<(Group, ReplicaId)> {
        let hosted = self.inner.hosted.load();
        let partitions = hosted.values().filter_map(|hosted| match hosted {
            Hosted::Running(partition) => Some(&partition.group),
            Hosted::Down(_) => None,
        });
        let controller = self.controller();
        let led = partitions.chain([&*controller]).filter(|group| group.is_leader());
        led.filter_map(|group| Some((group.clone(), self.successor(group, |_| true)?))).collect()
    }

    /// Who of those that `may` is best to lead a group that this node leads.
    pub(crate) fn successor(&self, group: &Group, may: impl Fn(&Replica) -> bool) -> Option<ReplicaId> {
        let progress = group.progress()?;
        let voters = group.membership().voters.into_iter().map(|(id, node)| Replica { id, node });
        let others = voters.filter(|voter| voter.id != group.replica());
        let fit = others.filter(|voter| self.online(voter.node) && !self.is_stopping(voter.node) && may(voter));
        fit.max_by_key(|voter| progress.get(&voter.id).copied()).map(|voter| voter.id)
    }
}
