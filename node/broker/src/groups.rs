//! Committed offsets of consumer groups.

use flotilla_machines::controller::TopicId;
use flotilla_machines::name;
use flotilla_machines::partition::PartitionAnswer;
use flotilla_proto::internal::v1::partition_command::Command;
use flotilla_proto::internal::v1::{CommitOffset, GroupFence};

use crate::broker::Broker;
use crate::error::{CommitError, CommittedError};
use crate::fetch::topic_partitions;
use crate::partition::Ends;
use crate::topic_ref::TopicRef;

/// What a group commits.
#[derive(Debug, Clone)]
pub struct Commit {
    /// The group.
    pub group: String,
    /// Topic by name.
    pub topic: String,
    /// Which one of that name; absent: whichever has it.
    pub topic_id: Option<TopicId>,
    /// The partition.
    pub partition: u32,
    /// The next offset to read.
    pub offset: u64,
    /// Whatever the application keeps with it.
    pub metadata: String,
    /// Proof of ownership (epoch, member); absent for a manual commit.
    pub fence: Option<(u64, String)>,
}

/// What a group has committed on a partition.
#[derive(Debug, Clone)]
pub struct CommittedOffset {
    /// The partition.
    pub partition: u32,
    /// Offset, metadata and time (milliseconds since the Unix epoch); absent if nothing is committed.
    pub committed: Option<(u64, String, i64)>,
    /// The partition's ends.
    pub ends: Ends,
    /// Records between the committed offset (or the log start) and the high watermark.
    pub lag: u64,
}

impl Broker {
    /// Stores how far a group has read, in the partition's own log.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub async fn commit(&self, commit: Commit) -> Result<(), CommitError> {
        let topic = self.topic(TopicRef { name: &commit.topic, id: commit.topic_id })?;
        let partition = self.partition(&topic, commit.partition)?;
        let command = Command::CommitOffset(CommitOffset {
            group: commit.group,
            offset: commit.offset,
            metadata: commit.metadata,
            fence: commit.fence.map(|(epoch, member)| GroupFence { epoch, member }),
        });
        match partition.command(command).await?? {
            PartitionAnswer::OffsetCommitted => Ok(()),
            other => Err(CommitError::Unknown { reason: format!("the partition answered {other:?}") }),
        }
    }

    /// What a group has committed, on the partitions named or all. Linearizable.
    ///
    /// # Errors
    /// See [`CommittedError`].
    pub async fn committed<'a>(
        &self,
        group: &str,
        topic: impl Into<TopicRef<'a>>,
        partitions: &[u32],
    ) -> Result<Vec<CommittedOffset>, CommittedError> {
        name::check_group(group).map_err(|why| CommittedError::InvalidGroup { name: group.to_owned(), why })?;
        let topic = self.topic(topic)?;
        let wanted = topic_partitions(&topic, partitions);
        let mut offsets = Vec::with_capacity(wanted.len());
        for number in wanted {
            let partition = self.partition(&topic, number)?;
            partition.barrier().await?;
            let committed = {
                let machine = partition.machine.lock();
                machine.committed(group).map(|commit| (commit.offset, commit.metadata.clone(), commit.commit_time_ms))
            };
            let ends = partition.ends();
            let from = committed.as_ref().map_or(ends.log_start_offset, |(offset, ..)| *offset);
            let lag = ends.high_watermark.saturating_sub(from.max(ends.log_start_offset));
            offsets.push(CommittedOffset { partition: number, committed, ends, lag });
        }
        Ok(offsets)
    }
}
