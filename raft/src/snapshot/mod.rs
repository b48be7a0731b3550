//! Snapshots: a group's rows and live frames as of one applied entry, pinned rather than copied.

use std::fmt;
use std::sync::Arc;

use openraft::storage::SnapshotMeta;
use openraft::type_config::alias::{SnapshotMetaOf, SnapshotOf};

use crate::log::convert::log_id_to_raft;
use crate::log::type_config::{RaftMembership, TypeConfig};
use crate::state::{State, StateView};
use crate::types::LogId;

/// What openraft passes around as a snapshot's content.
pub(crate) type SnapshotData = SnapshotView;

/// The state as of one applied entry. Holding it keeps that state readable; building it costs nothing.
#[derive(Clone)]
pub(crate) struct SnapshotView {
    applied: Option<LogId>,
    membership: RaftMembership,
    rows: Arc<dyn StateView>,
}

impl SnapshotView {
    /// Pins what is applied now.
    pub(crate) fn pin(state: &dyn State, applied: Option<LogId>, membership: RaftMembership) -> Self {
        Self { applied, membership, rows: state.snapshot().into() }
    }

    /// The same for openraft.
    pub(crate) fn into_raft(self) -> SnapshotOf<TypeConfig, SnapshotData> {
        SnapshotOf::<TypeConfig, SnapshotData> { meta: self.meta(), snapshot: self }
    }

    fn meta(&self) -> SnapshotMetaOf<TypeConfig> {
        SnapshotMeta { last_log_id: self.applied.map(log_id_to_raft), last_membership: self.membership.clone() }
    }
}

impl fmt::Debug for SnapshotView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "snapshot at {:?}", self.applied)
    }
}
