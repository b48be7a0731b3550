//! Bugs that can be planted, one at a time, to see that the harness finds them. Only in builds with the feature `planted`,
//! which no product has; without it, every question here is a constant.

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// A replica says that it has entries before they are synced.
    AckBeforeSync,
    /// Entries are applied before they are durable here.
    ApplyBeforeDurable,
    /// A vote is not written down.
    VoteNotStored,
    /// Of what another leader replaced, one entry stays.
    TruncateOneTooFew,
    /// Every replica calls its end the end of the partition.
    EndAlwaysCertain,
    /// A start from the disk forgets the last entry.
    LastEntryForgotten,
    /// What is applied is noted apart from the rows, and before them.
    AppliedBeforeRows,
    /// What was decided about entries is not written down.
    DecisionsForgotten,
    /// A snapshot leaves out the producers.
    ProducersNotInSnapshot,
    /// A snapshot leaves out an entry.
    SnapshotSkipsFrame,
    /// A leader of an old term answers as if it led.
    ReadWithoutQuorum,
    /// Segments go before what says so is durable.
    ReleaseBeforeFlush,
    /// Retention deletes every closed segment.
    ReleaseTooMuch,
    /// A record that is sent again is stored again.
    ProducerIgnored,
    /// A record that was stored before is acknowledged at another offset.
    DuplicateElsewhere,
    /// An unknown outcome is called a certain failure.
    UnknownCalledFailed,
    /// Health says that all is well.
    HealthAlwaysWell,
    /// A move is over before the group has other voters.
    MoveFinishedEarly,
    /// The high watermark is one too far.
    EndTooFar,
    /// A replica that is not wanted any more stays.
    ReplicaNotDeleted,
}

impl Bug {
    /// Every one, and its name.
    pub const ALL: [(Self, &str); 20] = [
        (Self::AckBeforeSync, "ack-before-sync"),
        (Self::ApplyBeforeDurable, "apply-before-durable"),
        (Self::VoteNotStored, "vote-not-stored"),
        (Self::TruncateOneTooFew, "truncate-one-too-few"),
        (Self::EndAlwaysCertain, "end-always-certain"),
        (Self::LastEntryForgotten, "last-entry-forgotten"),
        (Self::AppliedBeforeRows, "applied-before-rows"),
        (Self::DecisionsForgotten, "decisions-forgotten"),
        (Self::ProducersNotInSnapshot, "producers-not-in-snapshot"),
        (Self::SnapshotSkipsFrame, "snapshot-skips-frame"),
        (Self::ReadWithoutQuorum, "read-without-quorum"),
        (Self::ReleaseBeforeFlush, "release-before-flush"),
        (Self::ReleaseTooMuch, "release-too-much"),
        (Self::ProducerIgnored, "producer-ignored"),
        (Self::DuplicateElsewhere, "duplicate-elsewhere"),
        (Self::UnknownCalledFailed, "unknown-called-failed"),
        (Self::HealthAlwaysWell, "health-always-well"),
        (Self::MoveFinishedEarly, "move-finished-early"),
        (Self::EndTooFar, "end-too-far"),
        (Self::ReplicaNotDeleted, "replica-not-deleted"),
    ];
}

/// The variable that names the bug.
#[cfg(feature = "planted")]
pub const VARIABLE: &str = "FLOTILLA_PLANTED";

/// Whether a bug is planted.
#[cfg(feature = "planted")]
#[must_use]
pub fn is_planted(bug: Bug) -> bool {
    static PLANTED: std::sync::LazyLock<Option<Bug>> = std::sync::LazyLock::new(|| {
        let name = std::env::var(VARIABLE).ok()?;
        Bug::ALL.into_iter().find(|(_, known)| *known == name).map(|(bug, _)| bug)
    });
    *PLANTED == Some(bug)
}

/// Whether a bug is planted: none is.
#[cfg(not(feature = "planted"))]
#[must_use]
pub const fn is_planted(_: Bug) -> bool {
    false
}
