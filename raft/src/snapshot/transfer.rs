//! What a running group does with snapshots: pin one, receive one, switch to it.

use std::io;
use std::time::Duration;

use openraft::RaftMetrics;
use openraft::storage::SnapshotMeta;
use openraft::type_config::alias::SnapshotOf;

use super::{IncomingSnapshot, OutgoingSnapshot, ReceivedSnapshot, SnapshotData, SnapshotHead};
use crate::group::Group;
use crate::log::convert::{decode_membership, log_id_to_raft, vote_from_raft, vote_to_raft};
use crate::log::type_config::TypeConfig;
use crate::types::Vote;

/// How long applying what is committed may take before a snapshot is installed.
const APPLY_PATIENCE: Duration = Duration::from_secs(30);

impl Group {
    /// Pins what is applied now, to send it to one target; `None` if nothing was applied yet.
    ///
    /// # Errors
    /// If the group is stopped.
    pub async fn pin_snapshot(&self) -> io::Result<Option<OutgoingSnapshot>> {
        let snapshot = self.raft().get_snapshot().await.map_err(io::Error::other)?;
        Ok(snapshot.and_then(|snapshot| match snapshot.snapshot {
            SnapshotData::View(view) => OutgoingSnapshot::new(view),
            SnapshotData::Received(_) => None,
        }))
    }

    /// Prepares to receive the snapshot that `head` announces, beside the data that is valid.
    ///
    /// # Errors
    /// If it is another group's, or the disk refuses.
    pub async fn receive_snapshot(&self, head: SnapshotHead) -> io::Result<IncomingSnapshot> {
        let log = self.log().clone();
        let driver = self.log().lives().driver();
        driver.try_run(move || IncomingSnapshot::begin(&log, head)).await
    }

    /// Makes a received snapshot the group's data, on the word of the leader with `vote`. Returns this node's vote: if it
    /// is higher, the snapshot was refused. It is also passed over if this node has come as far by itself.
    ///
    /// # Errors
    /// If the group is stopped, or the data cannot be switched to.
    pub async fn install_snapshot(&self, vote: Vote, received: ReceivedSnapshot) -> io::Result<Vote> {
        // While an apply is queued, installing (which purges) makes openraft panic: databendlabs/openraft#2116.
        let applied = |metrics: &RaftMetrics<TypeConfig>| metrics.last_applied >= metrics.local_committed;
        let wait = self.raft().wait(Some(APPLY_PATIENCE));
        wait.metrics(applied, "what is committed is applied").await.map_err(io::Error::other)?;
        let (group, incarnation) = received.place();
        let SnapshotHead { last, membership, .. } = received.head();
        let meta = SnapshotMeta { last_log_id: Some(log_id_to_raft(*last)), last_membership: decode_membership(membership)? };
        let snapshot = SnapshotOf::<TypeConfig, _> { meta, snapshot: SnapshotData::Received(Box::new(received)) };
        let answer = self.raft().install_full_snapshot(vote_to_raft(vote), snapshot).await.map_err(io::Error::other)?;
        if self.log().incarnation() != incarnation {
            let lives = self.log().lives().clone();
            let driver = lives.driver().clone();
            driver.run(move || lives.delete(group, incarnation)).await?;
        }
        Ok(vote_from_raft(&answer.vote))
    }
}
