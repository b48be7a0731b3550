//! Figures of a broker, for metrics: taken when somebody looks.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use flotilla_raft::figures::{JournalFigures, TransferFigures};
use flotilla_raft::types::ReplicaId;

use crate::broker::{Broker, Hosted};
use crate::partition::Partition;

/// Figures of a running broker.
#[derive(Debug, Clone, Copy, Default)]
pub struct BrokerStats {
    /// Topics of the cluster.
    pub topics: usize,
    /// Nodes of the cluster that this one reaches, itself included.
    pub nodes_reached: usize,
    /// Whether this node leads the controller's group.
    pub leads_controller: bool,
    /// How the partitions stand of which this node has a replica.
    pub partitions: PartitionStats,
    /// Times that this node began to lead a group since the start.
    pub elections_won: u64,
    /// How often a group whose core had died was started again from the disk.
    pub group_restarts: u64,
    /// What the journal has written since the start.
    pub journal: JournalFigures,
    /// Snapshots that went from node to node since the start.
    pub transfers: TransferFigures,
}

/// Counts of partitions of which a node has a replica.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PartitionStats {
    /// Served here.
    pub hosted: usize,
    /// That should be here but cannot be served.
    pub down: usize,
    /// Led here.
    pub led: usize,
    /// Led here, with a replica that is not in sync.
    pub under_replicated: usize,
    /// Led here, on their way to other nodes.
    pub moving: usize,
    /// Of which this node knows no leader.
    pub leaderless: usize,
    /// Of whose replicas this node reaches no majority.
    pub offline: usize,
    /// Entries that the slowest voter of any partition led here lacks.
    pub lag_entries_max: u64,
}

impl Broker {
    /// Figures for metrics.
    #[must_use]
    pub fn stats(&self) -> BrokerStats {
        let (image, registry) = (self.image(), &self.inner.registry);
        BrokerStats {
            topics: image.topics().len(),
            nodes_reached: image.nodes().filter(|(node_id, _)| self.online(*node_id)).count(),
            leads_controller: self.controller().is_leader(),
            partitions: self.partition_stats(),
            elections_won: registry.elections_won(),
            group_restarts: self.inner.group_restarts.load(Ordering::Relaxed),
            journal: registry.journal_figures(),
            transfers: registry.transfer_figures(),
        }
    }

    /// Bytes in memory that are not yet in segments. Costs nothing, unlike [`Broker::stats`], which looks at every partition.
    #[must_use]
    pub fn unwritten_bytes(&self) -> u64 {
        self.inner.registry.unwritten_bytes()
    }

    fn partition_stats(&self) -> PartitionStats {
        let (image, hosted) = (self.image(), self.inner.hosted.load());
        let mut stats = PartitionStats::default();
        for (group_id, hosted) in hosted.iter() {
            let Hosted::Running(partition) = hosted else {
                stats.down += 1;
                continue;
            };
            stats.hosted += 1;
            stats.leaderless += usize::from(self.leader_of(*group_id).is_none());
            let layout = image.partition_of_group(*group_id);
            let Some(layout) = layout.and_then(|(topic, number)| topic.partitions.get(number as usize)) else { continue };
            stats.offline += usize::from(!self.may_be_led(layout));
            if partition.group.is_leader() {
                let in_sync = self.in_sync(*group_id);
                stats.led += 1;
                stats.moving += usize::from(layout.target.is_some());
                stats.under_replicated += usize::from(!layout.nodes().all(|node_id| in_sync.contains(&node_id)));
                stats.lag_entries_max = stats.lag_entries_max.max(lag_entries(partition));
            }
        }
        stats
    }
}

/// Entries that the slowest voter lacks.
fn lag_entries(partition: &Arc<Partition>) -> u64 {
    let group = &partition.group;
    let (Some(progress), last) = (group.progress(), group.last_index().unwrap_or(0)) else { return 0 };
    let lag = |voter: &ReplicaId| last.saturating_sub(progress.get(voter).copied().unwrap_or(0));
    group.membership().voters.keys().map(lag).max().unwrap_or(0)
}
