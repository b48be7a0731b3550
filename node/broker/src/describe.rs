//! Where partitions stand, put together from what their leaders know.

use std::collections::BTreeMap;

use flotilla_machines::controller::{Partition as Layout, Topic};
use flotilla_proto::internal::v1;
use futures::future::join_all;

use crate::broker::Broker;
use crate::partition::Ends;
use crate::topics::{PartitionDescription, PartitionTime};

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
            self.describe_led(&groups)
        } else {
            match self.peer_address(leader) {
                Some(address) => self.inner.calls.describe(&address, groups).await,
                None => Vec::new(),
            }
        };
        told.into_iter().map(|status| (status.group_id, (leader, status))).collect()
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
            size_bytes: told.map_or(0, |(_, status)| status.size_bytes),
            time: told.map(|(_, status)| PartitionTime { time_ms: status.time_ms, leader_clock_ms: status.clock_ms }),
        }
    }
}
