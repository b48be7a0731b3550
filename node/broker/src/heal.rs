//! The side of a replica that is damaged or lost: it neither votes nor serves. Its group's leader is asked to go on without it; as
//! soon as that is committed, the metadata names another replica in its place. Then what is damaged is set aside, and the new one
//! begins without data: its peers take it in as they would any new one (`reconcile.rs`). The old one never votes again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use flotilla_machines::controller::Partition as Layout;
use flotilla_proto::internal::v1;
use flotilla_raft::group::Group;
use flotilla_raft::registry::Outage;
use flotilla_raft::types::{GroupId, ReplicaId};

use crate::broker::{Broker, Hosted};
use crate::peer_calls::PeerCalls;

/// How often leaders are asked.
const ASK_INTERVAL: Duration = Duration::from_millis(500);
/// How long another replica may take to take over the lead.
const HAND_OVER_PATIENCE: Duration = Duration::from_secs(2);

/// What a node says of itself when it asks.
pub(crate) struct Asking {
    pub(crate) node_id: u64,
    pub(crate) directory_id: [u8; 16],
    pub(crate) calls: PeerCalls,
}

fn request(node_id: u64, directory_id: [u8; 16], replicas: Vec<v1::LostReplica>) -> v1::ReleaseRequest {
    v1::ReleaseRequest { node_id, directory_id: Bytes::copy_from_slice(&directory_id), replicas }
}

impl Asking {
    /// Asks `addresses`, and whom they point to, until the controller's group goes on without `replica` of this node. Returns who
    /// takes its place.
    pub(crate) async fn renew_controller(&self, addresses: &BTreeSet<String>, replica: ReplicaId) -> ReplicaId {
        let mut pointed_to = BTreeSet::new();
        let mut said = false;
        let lost = v1::LostReplica { group_id: 0, replica_id: replica.0 };
        loop {
            for address in addresses | &pointed_to {
                let Some(answer) = self.calls.release(&address, request(self.node_id, self.directory_id, vec![lost])).await
                else {
                    continue;
                };
                if let Some(renewed) = answer.controller_replica {
                    return ReplicaId(renewed);
                }
                if !answer.needed.is_empty() && !std::mem::replace(&mut said, true) {
                    tracing::error!(
                        "without this node the controller's voters are no majority: it stays down until others are back"
                    );
                }
                if !answer.controller_address.is_empty() {
                    pointed_to = BTreeSet::from([answer.controller_address]);
                }
            }
            tokio::time::sleep(ASK_INTERVAL).await;
        }
    }
}

impl Broker {
    /// Heals damaged and lost replicas of this node until the broker stops.
    pub(crate) async fn heal_replicas(self) {
        let mut said: BTreeSet<u64> = BTreeSet::new();
        loop {
            tokio::select! {
                () = self.inner.stop.cancelled() => return,
                () = tokio::time::sleep(ASK_INTERVAL) => {}
            }
            let damaged = self.damaged_by_leader();
            said.retain(|group_id| damaged.values().flatten().any(|damaged| damaged.group_id == *group_id));
            for (leader, replicas) in damaged {
                let Some(address) = self.peer_address(leader) else { continue };
                let request = request(self.node_id(), self.inner.directory_id, replicas);
                let Some(answer) = self.inner.calls.release(&address, request).await else { continue };
                for group_id in answer.needed.into_iter().filter(|group_id| said.insert(*group_id)) {
                    tracing::error!(
                        group_id,
                        "the group cannot go on without this damaged replica: its other voters are no majority"
                    );
                }
            }
        }
    }

    /// Damaged and lost replicas of this node that the metadata still names, by whom to ask.
    fn damaged_by_leader(&self) -> BTreeMap<u64, Vec<v1::LostReplica>> {
        let image = self.image();
        let mut damaged: BTreeMap<u64, Vec<v1::LostReplica>> = BTreeMap::new();
        let hosted = self.inner.hosted.load();
        let down = hosted.iter().filter(|(_, hosted)| matches!(hosted, Hosted::Down(_))).map(|(group_id, _)| *group_id);
        for group_id in down.filter(|group_id| self.inner.registry.damage_of(GroupId(*group_id)).is_some()) {
            let Some(named) = image.partition(group_id).and_then(|layout| layout.on(self.node_id())) else { continue };
            // Another is in its place already: it is about to begin.
            if named.fresh && self.inner.registry.replica_here(GroupId(group_id)) != Some(ReplicaId(named.id)) {
                continue;
            }
            if let Some(leader) = self.leader_of(group_id).filter(|leader| *leader != self.node_id()) {
                damaged.entry(leader).or_default().push(v1::LostReplica { group_id, replica_id: named.id });
            }
        }
        damaged
    }

    /// Damage was met in the data of a group that runs. If the others can do without this replica, it stops, and is healed;
    /// if not, what is not damaged is better than nothing. `true`: it stopped.
    pub(crate) async fn give_up_damaged(&self, group_id: u64) -> bool {
        if group_id == 0 {
            self.give_up_controller();
            return false;
        }
        let Some(group) = self.hosted_group(group_id) else { return false };
        let Some(reason) = group.damage() else { return false };
        if !group.can_be_spared() {
            tracing::error!(group_id, reason, "damage was found; there is no majority of other replicas to copy from");
            return false;
        }
        self.give_lead_away(&group).await;
        let _hosting = self.inner.hosting.lock().await;
        if let Err(error) = self.inner.registry.condemn(GroupId(group_id), reason.clone()).await {
            tracing::warn!(group_id, %error, "the damaged group did not stop cleanly");
        }
        self.set_hosted(group_id, Hosted::Down(Outage::damaged(reason)));
        true
    }

    /// Where this node's replica of the controller is condemned, nothing that it says may be acted on: the node begins anew, finds
    /// it damaged, and asks the others for another.
    fn give_up_controller(&self) {
        if let Some(reason) = self.controller().condemned() {
            self.failure().set(format!("this node's replica of the controller is given up: {reason}"));
        }
    }

    /// Makes another replica the leader, if this one leads; not for ever.
    async fn give_lead_away(&self, group: &Group) {
        let Some(to) = self.successor(group, |_| true).filter(|_| group.is_leader()) else { return };
        let mut standing = group.watch();
        if group.transfer_leader(to).await.is_ok() {
            let handed_over = standing.wait_for(|standing| standing.leader != Some(group.replica()));
            let _ = tokio::time::timeout(HAND_OVER_PATIENCE, handed_over).await;
        }
    }

    /// Addresses at which the controller's group may be asked before this node knows the metadata.
    pub(crate) fn first_addresses(seeds: &[String], known: &BTreeMap<u64, String>, own: &str) -> BTreeSet<String> {
        seeds.iter().chain(known.values()).filter(|address| *address != own).cloned().collect()
    }

    /// Another node that leads a partition which stays down here, and where clients reach it.
    pub(crate) fn led_elsewhere(&self, group_id: u64) -> Option<(u64, String)> {
        let leader = self.leader_of(group_id).filter(|leader| *leader != self.node_id())?;
        Some((leader, self.node_address(leader).unwrap_or_default()))
    }

    /// Whether nobody can serve a partition because its data here is damaged: then it is for this node to say so.
    #[must_use]
    pub fn answers_for_damaged(&self, group_id: u64) -> bool {
        if !matches!(self.inner.hosted.load().get(&group_id), Some(Hosted::Down(_))) || self.leader_of(group_id).is_some() {
            return false;
        }
        let image = self.image();
        let found = image.partition_of_group(group_id);
        let layout = found.and_then(|(topic, number)| topic.partitions.get(number as usize));
        layout.is_some_and(|layout| !self.others_can_lead(layout))
    }

    /// Whether those replicas that this node reaches are a majority without its own.
    pub(crate) fn others_can_lead(&self, layout: &Layout) -> bool {
        let near = layout.nodes().filter(|node| *node != self.node_id() && self.inner.peers.is_up(*node));
        near.count() > layout.replicas.len() / 2
    }
}

#[cfg(test)]
#[path = "heal_tests.rs"]
mod tests;
