//! Consumer groups on one partition: who may commit (the fence), and how far the group has read.
//!
//! A fence is (epoch, member). Its epoch is the controller's log index at which the partition was assigned, so epochs
//! of all groups come from one rising sequence. A commit must match the fence exactly: a member that lost the partition
//! is refused by the log itself, however late its commit arrives.

use flotilla_proto::internal::v1;
use prost::Message;

use super::{PartitionMachine, PartitionRefusal};
use crate::name;
use crate::rows::{self, RestoreError, Rows, table};

/// Groups that a partition keeps offsets of.
pub const GROUPS_MAX: usize = 10_000;
/// Bytes of metadata kept with a committed offset.
pub const METADATA_BYTES_MAX: usize = 4 * 1024;

/// What a partition keeps of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Who may commit.
    pub fence: Fence,
    /// How far the group has read; absent: nothing committed.
    pub committed: Option<Commit>,
}

/// Who may commit for a group on this partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// The controller's log index at which the partition was assigned; 0 before the first assignment.
    pub epoch: u64,
    /// The member it was assigned to; empty: nobody.
    pub member: String,
}

/// A committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The next offset to read.
    pub offset: u64,
    /// What the application keeps with it.
    pub metadata: String,
    /// Machine time of the commit, in milliseconds since the Unix epoch.
    pub commit_time_ms: i64,
}

impl Fence {
    /// A fence that nobody holds.
    #[must_use]
    pub fn vacant(epoch: u64) -> Self {
        Self { epoch, member: String::new() }
    }

    /// Whether nobody holds the fence.
    #[must_use]
    pub fn is_vacant(&self) -> bool {
        self.member.is_empty()
    }
}

impl PartitionMachine {
    /// Whether `name` may be a group here: known, or well named and one fits in.
    pub(super) fn check_group(&self, name: &str) -> Result<(), PartitionRefusal> {
        name::check_group(name).map_err(|why| PartitionRefusal::InvalidGroup { name: name.to_owned(), why })?;
        if !self.groups.contains_key(name) && self.groups.len() >= GROUPS_MAX {
            return Err(PartitionRefusal::TooManyGroups { groups_max: GROUPS_MAX });
        }
        Ok(())
    }

    /// An offset to commit, checked.
    ///
    /// It may lie below the log start: a group that was overtaken by retention, or that starts over, says so truly,
    /// and the next read answers what is still there.
    pub(super) fn new_commit(&self, offset: u64, metadata: String) -> Result<Commit, PartitionRefusal> {
        if offset > self.next_offset {
            return Err(PartitionRefusal::OffsetOutOfRange { offset, next_offset: self.next_offset });
        }
        if metadata.len() > METADATA_BYTES_MAX {
            return Err(PartitionRefusal::MetadataTooLarge { bytes: metadata.len() });
        }
        Ok(Commit { offset, metadata, commit_time_ms: self.time.dated_ms })
    }

    /// The refusal that shows a group's fence as it stands.
    pub(super) fn fenced(&self, group: &str) -> PartitionRefusal {
        let fence = self.fence(group);
        PartitionRefusal::Fenced { group: group.to_owned(), epoch: fence.epoch, member: fence.member }
    }

    pub(super) fn put_group(&mut self, name: String, group: Group, rows: &mut dyn Rows) {
        let stored = v1::StoredGroup::from(&group);
        rows.put(table::GROUP, name.as_bytes(), stored.encode_to_vec());
        self.groups.insert(name, group);
    }

    pub(super) fn restore_group(&mut self, key: &[u8], value: &[u8]) -> Result<(), RestoreError> {
        let name = rows::parse_name_key(table::GROUP, key)?;
        let stored: v1::StoredGroup = rows::decode(table::GROUP, key, value)?;
        let fence = stored.fence.ok_or_else(|| RestoreError::damaged(table::GROUP, key, "the fence is missing"))?;
        let group = Group { fence: fence.into(), committed: stored.committed.map(Commit::from) };
        self.groups.insert(name.to_owned(), group);
        Ok(())
    }
}

impl From<v1::GroupFence> for Fence {
    fn from(fence: v1::GroupFence) -> Self {
        Self { epoch: fence.epoch, member: fence.member }
    }
}

impl From<v1::StoredCommit> for Commit {
    fn from(stored: v1::StoredCommit) -> Self {
        Self { offset: stored.offset, metadata: stored.metadata, commit_time_ms: stored.commit_time_ms }
    }
}

impl From<&Group> for v1::StoredGroup {
    fn from(group: &Group) -> Self {
        Self {
            fence: Some(v1::GroupFence { epoch: group.fence.epoch, member: group.fence.member.clone() }),
            committed: group.committed.as_ref().map(|commit| v1::StoredCommit {
                offset: commit.offset,
                metadata: commit.metadata.clone(),
                commit_time_ms: commit.commit_time_ms,
            }),
        }
    }
}
