//! Which replicas of a group are proven to be removed.

use crate::types::ReplicaId;

/// What is known to be committed about the replicas of a group. Ids come from one counter, and are named in the same change
/// that hands them out: so an id below the counter that is not named any more is removed for good. One that is not below it
/// is newer than this knowledge, and nothing is known about it: a replica that lags must hear its new leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roster {
    /// No id from here on was handed out.
    pub next: ReplicaId,
    /// Who is or may be a replica.
    pub named: Box<[ReplicaId]>,
}

impl Roster {
    /// Whether nobody needs this replica any more.
    #[must_use]
    pub fn has_removed(&self, replica: ReplicaId) -> bool {
        replica < self.next && !self.named.contains(&replica)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_handed_out_and_is_named_no_more_is_removed() {
        let roster = Roster { next: ReplicaId(9), named: [1, 7].map(ReplicaId).into() };
        let removed = [1, 2, 7, 8, 9, 10].map(|id| roster.has_removed(ReplicaId(id)));
        assert_eq!(removed, [false, true, false, true, false, false]);
    }
}
