//! Whether the voters of a group that can be reached are a majority. Without one nothing is committed, so nothing is taken.

use std::collections::BTreeMap;

use tokio::sync::watch;

use crate::network::{LinkState, Peers};
use crate::standing::Standing;
use crate::types::NodeId;

/// Of one group. Cheap to clone. It holds nothing that holds the group.
#[derive(Clone)]
pub(crate) struct Quorum {
    me: NodeId,
    standing: watch::Receiver<Standing>,
    links: watch::Receiver<BTreeMap<NodeId, LinkState>>,
}

impl Quorum {
    pub(crate) fn new(standing: watch::Receiver<Standing>, peers: &Peers) -> Self {
        Self { me: peers.node_id(), standing, links: peers.links() }
    }

    /// The nodes of voters that cannot be reached, if without them there is no majority. Allocates only then.
    pub(crate) fn missing(&self) -> Option<Vec<NodeId>> {
        let (standing, links) = (self.standing.borrow(), self.links.borrow());
        let voters = &standing.membership.voters;
        let reached = |node: &NodeId| *node == self.me || links.contains_key(node);
        // Of a joint membership both halves are needed; that is found out by asking.
        let enough = voters.values().filter(|node| reached(node)).count() > voters.len() / 2;
        let enough = enough || standing.membership.joint || voters.is_empty();
        (!enough).then(|| voters.values().copied().filter(|node| !reached(node)).collect())
    }

    /// Returns when there is no majority: who is missing.
    pub(crate) async fn lost(&self) -> Vec<NodeId> {
        let (mut links, mut standing) = (self.links.clone(), self.standing.clone());
        links.mark_unchanged();
        standing.mark_unchanged();
        loop {
            if let Some(missing) = self.missing() {
                return missing;
            }
            let changed = tokio::select! {
                changed = links.changed() => changed,
                changed = standing.changed() => changed,
            };
            if changed.is_err() {
                // The group is stopping, which others say.
                return std::future::pending().await;
            }
        }
    }
}
