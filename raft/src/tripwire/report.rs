//! What a replica says of itself to the others of its group.

use std::io;

use flotilla_proto::internal::v1 as pb;

use super::track::{Point, Track};
use crate::types::{GroupId, ReplicaId, Vote};

/// Points in one track: all that a chain remembers, and the last applied entry.
const POINTS_MAX: usize = 64;
/// Replicas that may be accused at once: more than a group has.
const ACCUSED_MAX: usize = 64;

/// See the module. What it says was so at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) group: GroupId,
    pub(crate) replica: ReplicaId,
    /// From one reading of its data to the next.
    pub(crate) life: u64,
    /// What is stored: the term, and, if the vote is committed, who leads it.
    pub(crate) vote: Vote,
    /// Index of the last entry that is known to be committed.
    pub(crate) committed: Option<u64>,
    /// Index of the last entry of the log, durable or not.
    pub(crate) last: Option<u64>,
    pub(crate) acknowledged: Option<Acknowledged>,
    /// Index of the last applied entry.
    pub(crate) applied: Option<u64>,
    pub(crate) track: Track,
    /// Who is not as it had said.
    pub(crate) accused: Vec<ReplicaId>,
}

/// Everything through `index` was acknowledged to the leader of `term`: it is durable, and equal to what that leader has.
/// The later one is the greater one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Acknowledged {
    pub(crate) term: u64,
    pub(crate) index: u64,
}

impl Report {
    /// Who leads the term, if the replica knows.
    pub(crate) fn leader(&self) -> Option<ReplicaId> {
        self.vote.voted_for.filter(|_| self.vote.committed)
    }

    /// For a peer that knows the points through `known` already.
    pub(crate) fn to_wire(&self, known: Option<u64>) -> pb::Report {
        let vote = pb::Vote {
            term: self.vote.term,
            voted_for: self.vote.voted_for.unwrap_or_default().0,
            committed: self.vote.committed,
        };
        pb::Report {
            group_id: self.group.0,
            replica_id: self.replica.0,
            life: self.life,
            vote: Some(vote),
            committed: self.committed,
            last: self.last,
            acknowledged_term: self.acknowledged.map(|acknowledged| acknowledged.term),
            acknowledged_index: self.acknowledged.map(|acknowledged| acknowledged.index),
            applied: self.applied,
            track: Some(track_to_wire(&self.track.behind(known))),
            accused: self.accused.iter().map(|replica| replica.0).collect(),
        }
    }

    /// What a peer sent.
    ///
    /// # Errors
    /// `InvalidData` if no replica could say so.
    pub(crate) fn from_wire(report: pb::Report) -> io::Result<Self> {
        let pb::Vote { term, voted_for, committed } = report.vote.ok_or_else(|| invalid("it has no vote"))?;
        let indexes = [report.committed, report.last, report.acknowledged_index, report.applied];
        if term == u64::MAX || indexes.contains(&Some(u64::MAX)) {
            return Err(invalid("there is no such term or log index"));
        }
        if report.accused.len() > ACCUSED_MAX {
            return Err(invalid("it accuses more replicas than there are"));
        }
        let acknowledged = report.acknowledged_term.zip(report.acknowledged_index);
        Ok(Self {
            group: GroupId(report.group_id),
            replica: ReplicaId(report.replica_id),
            life: report.life,
            vote: Vote { term, voted_for: (voted_for != 0).then_some(ReplicaId(voted_for)), committed },
            committed: report.committed,
            last: report.last,
            acknowledged: acknowledged.map(|(term, index)| Acknowledged { term, index }),
            applied: report.applied,
            track: track_from_wire(report.track.unwrap_or_default())?,
            accused: report.accused.into_iter().map(ReplicaId).collect(),
        })
    }
}

/// A track as a message.
#[must_use]
pub fn track_to_wire(track: &Track) -> pb::Track {
    let (indexes, hashes) = track.points.iter().map(|point| (point.index, point.hash)).unzip();
    pb::Track { from: track.from, indexes, hashes }
}

/// A track that a peer sent.
///
/// # Errors
/// `InvalidData` if it is none.
pub fn track_from_wire(track: pb::Track) -> io::Result<Track> {
    let pb::Track { from, indexes, hashes } = track;
    if indexes.len() > POINTS_MAX || indexes.len() != hashes.len() {
        return Err(invalid("its track has too many points, or not one hash for each"));
    }
    let ascends = indexes.is_sorted_by(|one, next| one < next);
    if !ascends || indexes.first().is_some_and(|first| *first < from) || indexes.last() == Some(&u64::MAX) {
        return Err(invalid("the points of its track are not in order"));
    }
    let points = indexes.into_iter().zip(hashes).map(|(index, hash)| Point { index, hash }).collect();
    Ok(Track { from, points })
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a peer sent a report that makes no sense: {reason}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;

    fn report() -> Report {
        Report {
            group: GroupId(5),
            replica: ReplicaId(11),
            life: 7,
            vote: Vote { term: 4, voted_for: Some(ReplicaId(12)), committed: true },
            committed: Some(20),
            last: Some(22),
            acknowledged: Some(Acknowledged { term: 4, index: 21 }),
            applied: Some(19),
            track: Track { from: 2, points: vec![Point { index: 9, hash: 1 }, Point { index: 19, hash: 2 }] },
            accused: vec![ReplicaId(13)],
        }
    }

    #[test]
    fn a_report_comes_back() {
        assert_eq!(Report::from_wire(report().to_wire(None)).unwrap(), report());
        let newer = Report::from_wire(report().to_wire(Some(9))).unwrap();
        assert_eq!(newer.track, Track { from: 2, points: vec![Point { index: 19, hash: 2 }] });
    }

    #[test]
    fn what_no_replica_could_say_is_refused() {
        let good = report().to_wire(None);
        let with = |indexes: &[u64], hashes: &[u32]| pb::Report {
            track: Some(pb::Track { from: 2, indexes: indexes.to_vec(), hashes: hashes.to_vec() }),
            ..good.clone()
        };
        let many: Vec<u64> = (2..=2 + POINTS_MAX as u64).collect();
        let bad = [
            pb::Report { vote: None, ..good.clone() },
            pb::Report { vote: Some(pb::Vote { term: u64::MAX, ..pb::Vote::default() }), ..good.clone() },
            pb::Report { committed: Some(u64::MAX), ..good.clone() },
            pb::Report { last: Some(u64::MAX), ..good.clone() },
            pb::Report { acknowledged_index: Some(u64::MAX), ..good.clone() },
            pb::Report { applied: Some(u64::MAX), ..good.clone() },
            pb::Report { accused: vec![1; ACCUSED_MAX + 1], ..good.clone() },
            with(&[3, 4], &[1]),
            with(&[4, 3], &[1, 1]),
            with(&[3, 3], &[1, 1]),
            with(&[1], &[1]),
            with(&[u64::MAX], &[1]),
            with(&many, &vec![0; many.len()]),
        ];
        for bad in bad {
            assert!(Report::from_wire(bad.clone()).is_err(), "{bad:?}");
        }
        assert!(Report::from_wire(pb::Report { track: None, ..good }).is_ok(), "one that has applied nothing");
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_decoder_panic(bytes: Vec<u8>) {
            let _ = pb::Report::decode(bytes.as_slice()).map(Report::from_wire);
            let _ = pb::Track::decode(bytes.as_slice()).map(track_from_wire);
        }
    }
}
