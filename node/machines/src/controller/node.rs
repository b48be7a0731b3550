//! A node of the cluster, as everyone knows it.

use std::fmt;

use flotilla_proto::internal::v1;

use super::image::write_uuid;

/// A node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// host:port at which clients reach it.
    pub address: String,
    /// host:port at which other nodes reach it. Never empty: the address where nothing else was said.
    pub peer_address: String,
    /// Where it stands. Empty: unknown.
    pub rack: String,
    /// Which data it serves. `None`: it never said.
    pub directory_id: Option<DirectoryId>,
    /// What it is meant to do.
    pub state: NodeState,
    /// Its replica in the controller's group: the first has the node's id, one that had to be renewed another.
    pub controller_replica: u64,
}

/// What a node is meant to do. Whether it is up is not here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum NodeState {
    /// It leads and gets replicas.
    #[default]
    Active,
    /// It leads nothing and gets no new replicas; it keeps those that it has.
    Draining,
    /// Its replicas move away; then it is removed.
    Leaving,
}

/// UUID of a data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DirectoryId(pub [u8; 16]);

impl Node {
    /// Whether it may get new replicas.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.state == NodeState::Active
    }
}

impl DirectoryId {
    /// No bytes are no id; `Err`: neither none nor 16.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<Self>, ()> {
        match bytes {
            [] => Ok(None),
            bytes => bytes.try_into().map(Self).map(Some).map_err(|_| ()),
        }
    }
}

impl NodeState {
    /// `None`: no such state.
    pub(super) fn parse(code: i32) -> Option<Self> {
        match v1::NodeState::try_from(code).ok()? {
            v1::NodeState::Unspecified => None,
            v1::NodeState::Active => Some(Self::Active),
            v1::NodeState::Draining => Some(Self::Draining),
            v1::NodeState::Leaving => Some(Self::Leaving),
        }
    }
}

impl From<NodeState> for v1::NodeState {
    fn from(state: NodeState) -> Self {
        match state {
            NodeState::Active => Self::Active,
            NodeState::Draining => Self::Draining,
            NodeState::Leaving => Self::Leaving,
        }
    }
}

impl Node {
    /// As it is stored under its id.
    pub(super) fn stored(&self) -> v1::StoredNode {
        v1::StoredNode {
            address: self.address.clone(),
            peer_address: self.peer_address.clone(),
            rack: self.rack.clone(),
            directory_id: self.directory_id.map(|id| id.0.to_vec()).unwrap_or_default().into(),
            state: v1::NodeState::from(self.state).into(),
            removed: false,
            controller_replica: self.controller_replica,
        }
    }
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Leaving => "leaving",
        })
    }
}

impl fmt::Display for DirectoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_uuid(&self.0, f)
    }
}
