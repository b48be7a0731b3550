//! Where partitions stand, put together from what their leaders know.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use flotilla_machines::controller::{Partition as Layout, Topic};
use flotilla_proto::internal::v1;
use futures::future::join_all;

use crate::broker::{Broker, Hosted};
use crate::partition::{Ends, Partition};
use crate::topics::{PartitionDescription, PartitionTime};

/// How long a leader waits for a majority to confirm its ends: less than who asks it waits for the answer.
const CONFIRM_PATIENCE: Duration = Duration::from_millis(500);

impl Broker {
    /// The partitions of a topic, by number. What a leader does not say in time is left empty.
    pub async fn describe_partitions(&self, topic: &Topic) -> Vec<PartitionDescription> {
        let mut asked: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for layout in &topic.partitions {
            if let Some(leader) = self.leader_of(layout.group_id) {
                asked.entry(leader).or_default().push(layout.group_id);
            }
        }
        let answers = join_all(asked.into_iter().map(|(leader, groups)| self.describe_at(leader, groups))).await;
        let told: BTreeMap<u64, (u64, v1::PartitionStatus)> = answers.into_iter().flatten().collect();
        let describe = |(number, layout): (u32, &Layout)| self.description(number, layout, told.get(&layout.group_id));
        (0..).zip(&topic.partitions).map(describe).collect()
    }

    /// What a node says of groups that it leads, with its id.
    async fn describe_at(&self, leader: u64, groups: Vec<u64>) -> Vec<(u64, (u64, v1::PartitionStatus))> {
        let told = if leader == self.node_id() {
            self.describe_led(groups).await
        } else {
            match self.peer_address(leader) {
                Some(address) => self.inner.calls.describe(&address, groups).await,
                None => Vec::new(),
            }
        };
        told.into_iter().map(|status| (status.group_id, (leader, status))).collect()
    }

    /// How the partitions stand that this node leads, of those asked for, each once, however often it is asked for.
    pub(crate) async fn describe_led(&self, group_ids: impl IntoIterator<Item = u64>) -> Vec<v1::PartitionStatus> {
        let hosted = self.inner.hosted.load_full();
        let led = |group_id: u64| match hosted.get(&group_id) {
            Some(Hosted::Running(partition)) if partition.group.is_leader() => Some((group_id, partition.clone())),
            _ => None,
        };
        let led = group_ids.into_iter().collect::<BTreeSet<_>>().into_iter().filter_map(led);
        let describe = async |(group_id, partition): (u64, Arc<Partition>)| {
            let confirmed = tokio::time::timeout(CONFIRM_PATIENCE, partition.barrier()).await;
            let Ends { log_start_offset, high_watermark } = partition.ends();
            v1::PartitionStatus {
                group_id,
                log_start_offset,
                high_watermark,
                ends_confirmed: matches!(confirmed, Ok(Ok(()))),
                size_bytes: partition.group.size_bytes(),
                in_sync: self.in_sync_here(group_id),
                time_ms: self.inner.clock.stamp(partition.machine.time()).now_ms,
                clock_ms: self.inner.clock.wall_ms(),
            }
        };
        join_all(led.map(describe)).await
    }

    fn description(&self, number: u32, layout: &Layout, told: Option<&(u64, v1::PartitionStatus)>) -> PartitionDescription {
        let leader = told.map(|(leader, _)| *leader).or_else(|| self.leader_of(layout.group_id));
        // Whom no majority follows leads in vain.
        let leader = leader.filter(|_| self.may_be_led(layout));
        PartitionDescription {
            partition: number,
            group_id: layout.group_id,
            leader,
            replicas: layout.nodes().collect(),
            target: layout.target_nodes().unwrap_or_default(),
            replica_ids: layout.replicas.iter().map(|replica| replica.id).collect(),
            in_sync: told.map(|(_, status)| status.in_sync.clone()).unwrap_or_default(),
            ends: told.map_or_else(Ends::default, |(_, status)| Ends {
                log_start_offset: status.log_start_offset,
                high_watermark: status.high_watermark,
            }),
            ends_confirmed: told.is_some_and(|(_, status)| status.ends_confirmed),
            size_bytes: told.map_or(0, |(_, status)| status.size_bytes),
            time: told.map(|(_, status)| PartitionTime { time_ms: status.time_ms, leader_clock_ms: status.clock_ms }),
        }
    }
}
