//! A replica of a partition: what the node is not.

use flotilla_proto::internal::v1;

/// One placement of a partition on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Replica {
    /// Its identity in the Raft group. Each placement gets a new one, which is never used again.
    pub id: u64,
    /// The node that it lives on.
    pub node: u64,
    /// Nobody counts on it yet: it may begin with nothing. Its group's leader has this taken away before it counts on it. From
    /// then on nothing to be found of it means that it was lost.
    pub fresh: bool,
}

impl Replica {
    /// As in the time when replicas had the ids of their nodes, and began with nothing before anybody was told.
    pub(super) fn of_node(node: u64) -> Self {
        Self { id: node, node, fresh: false }
    }
}

/// The nodes of replicas, in their order.
pub fn nodes(replicas: &[Replica]) -> impl Iterator<Item = u64> + Clone {
    replicas.iter().map(|replica| replica.node)
}

impl From<v1::StoredReplica> for Replica {
    fn from(stored: v1::StoredReplica) -> Self {
        Self { id: stored.replica_id, node: stored.node_id, fresh: stored.fresh }
    }
}

impl From<&Replica> for v1::StoredReplica {
    fn from(replica: &Replica) -> Self {
        Self { replica_id: replica.id, node_id: replica.node, fresh: replica.fresh }
    }
}
