//! A damaged partition that has no other replica begins again from what can be read of it, because somebody accepts that
//! the rest is lost.

use std::io;

use flotilla_raft::registry::{Outage, Salvaged};
use flotilla_raft::types::{GroupId, ReplicaId};

use crate::broker::{Broker, HOSTING_PATIENCE, Hosted};
use crate::error::RecoverError;
use crate::hosts::PartitionHost;

impl Broker {
    /// Begins again with what this node can read of a damaged partition; returns when it serves. Goes on if the caller
    /// goes away, who can ask again.
    ///
    /// # Errors
    /// See [`RecoverError`].
    pub async fn recover_partition(&self, group_id: u64) -> Result<Salvaged, RecoverError> {
        let broker = self.clone();
        let recovering = tokio::spawn(async move { broker.recover(group_id).await });
        recovering.await.map_err(|error| RecoverError::Storage(io::Error::other(error)))?
    }

    async fn recover(&self, group_id: u64) -> Result<Salvaged, RecoverError> {
        let image = self.image();
        let found = image.partition_of_group(group_id);
        let layout = found.as_ref().and_then(|(topic, number)| topic.partitions.get(*number as usize));
        let others: Vec<u64> = layout.iter().flat_map(|layout| layout.hosts()).filter(|node| *node != self.node_id()).collect();
        if !others.is_empty() {
            return Err(RecoverError::HasReplicas { nodes: others });
        }
        self.condemn_damaged(group_id).await?;
        let group = GroupId(group_id);
        let damaged = self.inner.registry.damage_of(group).is_some();
        let salvaged = self.inner.registry.salvaged(group);
        // Who asks again gets the same answer while it is true.
        if !damaged && salvaged.is_none_or(|salvaged| self.has_gone_on(group_id, &salvaged)) {
            return Err(RecoverError::NotDamaged);
        }
        let (host, ..) = PartitionHost::new(group);
        let replica = layout.and_then(|layout| layout.on(self.node_id())).ok_or(RecoverError::NotDamaged)?;
        let salvaged =
            self.inner.registry.accept_loss(group, ReplicaId(replica.id), Box::new(host)).await.map_err(RecoverError::Storage)?;
        self.reconcile(&self.image()).await;
        self.wait_led(&[group], HOSTING_PATIENCE).await;
        Ok(salvaged)
    }

    /// Whether anything was written since the partition began again.
    fn has_gone_on(&self, group_id: u64, salvaged: &Salvaged) -> bool {
        let hosted = self.inner.hosted.load();
        let Some(Hosted::Running(partition)) = hosted.get(&group_id) else { return false };
        partition.ends().high_watermark > salvaged.next_offset
    }

    /// Stops the partition if it runs and damage was met in it.
    async fn condemn_damaged(&self, group_id: u64) -> Result<(), RecoverError> {
        let Some(group) = self.hosted_group(group_id) else { return Ok(()) };
        let Some(reason) = group.damage() else { return Ok(()) };
        let _hosting = self.inner.hosting.lock().await;
        let condemned = self.inner.registry.condemn(GroupId(group_id), reason.clone()).await;
        self.set_hosted(group_id, Hosted::Down(Outage::damaged(reason)));
        condemned.map_err(RecoverError::Storage)
    }
}
