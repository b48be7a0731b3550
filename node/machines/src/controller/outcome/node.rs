//! Why a change of a node was refused.

use crate::controller::limits::NODES_REMOVED_MAX;
use crate::controller::node::DirectoryId;
use crate::name::NameError;

/// Why a node is not registered, changed or removed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeRefusal {
    /// Not an id for a node.
    #[error("node id 0 is reserved: number nodes from 1")]
    InvalidId,
    /// Not a node that could be reached.
    #[error("node {node_id} cannot be registered at {address:?}: {why}")]
    InvalidAddress {
        /// The node.
        node_id: u64,
        /// The address.
        address: String,
        /// What is wrong with it.
        why: NameError,
    },
    /// Not a name for a rack.
    #[error("node {node_id} cannot be registered in rack {rack:?}: {why}")]
    InvalidRack {
        /// The node.
        node_id: u64,
        /// The rack.
        rack: String,
        /// What is wrong with it.
        why: NameError,
    },
    /// Neither absent nor 16 bytes.
    #[error("the directory id of node {node_id} has {bytes} bytes instead of 16: report this as a defect")]
    InvalidDirectoryId {
        /// The node.
        node_id: u64,
        /// Bytes found.
        bytes: usize,
    },
    /// No such state.
    #[error("state {code} of a node is unknown: use active (1), draining (2) or leaving (3)")]
    InvalidState {
        /// The value.
        code: i32,
    },
    /// The id belongs to other data: started with it, the node would vote and answer for records that it does not have.
    #[error(
        "node {node_id} is registered with other data, at {address}: give this node a --node-id of its own. Only if node {node_id} is \
         gone for good, with its disk, remove it (flotilla node remove {node_id}); its id is not used again"
    )]
    OtherData {
        /// The node.
        node_id: u64,
        /// Where it is registered.
        address: String,
        /// The data directory that it is registered with.
        registered: DirectoryId,
    },
    /// The id was used before.
    #[error("node {node_id} was removed from this cluster, and node ids are never used again: start it under a new --node-id")]
    Removed {
        /// The node.
        node_id: u64,
    },
    /// Two nodes cannot be reached at one address.
    #[error(
        "node {node_id} cannot be at {address:?}: node {owner} is registered there; give one of them another address, or remove \
         node {owner} if it is gone (flotilla node remove {owner})"
    )]
    AddressTaken {
        /// The node.
        node_id: u64,
        /// The address.
        address: String,
        /// The node that is registered there.
        owner: u64,
    },
    /// No such node.
    #[error("there is no node {node_id}: see flotilla node list")]
    Unknown {
        /// The node.
        node_id: u64,
    },
    /// It would take replicas with it.
    #[error(
        "node {node_id} holds or receives replicas of {partitions} partitions: let it leave first, so that they move to other \
         nodes, or cancel the moves to it"
    )]
    InUse {
        /// The node.
        node_id: u64,
        /// Partitions that name it.
        partitions: usize,
    },
    /// A cluster without nodes is none.
    #[error("no node but {node_id} stays in the cluster, which needs at least one: add another before this one leaves")]
    Last {
        /// The node.
        node_id: u64,
    },
    /// Their ids are remembered for ever.
    #[error("{NODES_REMOVED_MAX} nodes were removed already, the most that a cluster remembers: keep node {node_id}")]
    TooManyRemoved {
        /// The node.
        node_id: u64,
    },
}
