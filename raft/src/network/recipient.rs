//! Who may say what to whom. What is meant for another replica than the one that lives here is refused, and so is what comes
//! from a replica that is proven to be none any more: neither may bind this one. The sender takes a refusal for silence, and
//! asks again a while later.

use crate::group::Group;
use crate::types::{GroupId, Replica, ReplicaId};

use super::peers::Peers;

impl Peers {
    /// The group that a message is for.
    ///
    /// # Errors
    /// In words, if it is to be refused.
    pub(super) fn recipient(&self, group: GroupId, to: ReplicaId, from: Replica) -> Result<Group, String> {
        let Some(running) = self.group(group) else { return Err("the group does not run here".to_owned()) };
        let here = running.replica();
        if to != here {
            return Err(format!("replica {to} of group {group} does not live on node {}, replica {here} does", self.node_id()));
        }
        if running.has_removed(from.id) {
            return Err(format!("{from} was removed from group {group}"));
        }
        match running.standing().borrow().membership.node_of(from.id) {
            Some(node) if node != from.node => Err(format!("replica {} of group {group} lives on node {node}", from.id)),
            // One that lags has not heard of its new leader yet.
            _ => Ok(running),
        }
    }
}
