//! The hash chain of what a replica has applied: over each entry's log id, the kind and checksum of each payload, and what
//! was decided about it. Compaction and rewriting change none of these, and a snapshot carries the chain on. So replicas
//! with the same hash at the same entry have applied the same from where their chains began, whatever they still hold.
//!
//! Once two chains differ they stay different: the hash is a checksum that runs on, and that maps no two states to one.

use std::collections::VecDeque;

use super::track::{Point, Track};
use crate::types::{Decision, Kept, LogId};

/// A checkpoint lies at each last entry of so many.
pub const CHECKPOINT_ENTRIES: u64 = 256;
/// Checkpoints that are remembered: replicas that are so many entries apart can be compared.
const CHECKPOINTS: usize = 32;

/// What is stored with the last applied log id, and sent with a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainEnd {
    /// The first entry in the chain.
    pub from: u64,
    /// The hash through the last applied entry.
    pub hash: u32,
}

/// What an entry carries, as the chain has it. Codes are for ever.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Link {
    Blank = 0,
    Items = 1,
    Membership = 2,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Chain {
    /// Tells one life of the replica's data in memory from the next.
    life: u64,
    end: ChainEnd,
    applied: Option<u64>,
    checkpoints: VecDeque<Point>,
}

impl Chain {
    /// Goes on behind `applied` from what was stored with it. Where older versions stored nothing, it begins with the next
    /// checkpoint: so it does on all replicas that are about as far.
    pub(crate) fn resume(applied: Option<LogId>, end: Option<ChainEnd>, life: u64) -> Self {
        let next = applied.map_or(0, |applied| applied.index.saturating_add(1));
        let begin = ChainEnd { from: next.checked_next_multiple_of(CHECKPOINT_ENTRIES).unwrap_or(u64::MAX), hash: 0 };
        let applied = applied.map(|applied| applied.index);
        Self { life, end: end.unwrap_or(begin), applied, checkpoints: VecDeque::with_capacity(CHECKPOINTS) }
    }

    /// Adds the next entry: kind, checksum of the payload and decision of each of its items.
    pub(crate) fn add(&mut self, log_id: LogId, link: Link, items: impl Iterator<Item = (u8, u32, Decision)>) {
        let LogId { term, index } = log_id;
        self.applied = Some(index);
        if index < self.end.from {
            return;
        }
        let hash = [term, index].into_iter().fold(self.end.hash, |hash, number| append(hash, &number.to_le_bytes()));
        let hash = append(hash, &[link as u8]);
        self.end.hash = items.fold(hash, |hash, item| append(hash, &encoded(item)));
        if (index + 1).is_multiple_of(CHECKPOINT_ENTRIES) {
            if self.checkpoints.len() == CHECKPOINTS {
                self.checkpoints.pop_front();
            }
            self.checkpoints.push_back(Point { index, hash: self.end.hash });
        }
    }

    /// Which life of the replica's data it belongs to.
    pub(crate) fn life(&self) -> u64 {
        self.life
    }

    pub(crate) fn end(&self) -> ChainEnd {
        self.end
    }

    pub(crate) fn applied(&self) -> Option<u64> {
        self.applied
    }

    /// What can be compared: the checkpoints, and the last applied entry.
    pub(crate) fn track(&self) -> Track {
        let mut points: Vec<Point> = self.checkpoints.iter().copied().collect();
        let now = self.applied.filter(|index| *index >= self.end.from).map(|index| Point { index, hash: self.end.hash });
        if points.last() != now.as_ref() {
            points.extend(now);
        }
        Track { from: self.end.from, points }
    }
}

fn append(hash: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(hash, bytes)
}

/// Kind, checksum, whether it is kept, and where.
fn encoded((kind, checksum, decision): (u8, u32, Decision)) -> [u8; 26] {
    let (is_kept, kept) = match decision {
        Decision::Drop => (0, Kept { base_offset: 0, offset_count: 0, max_timestamp_ms: 0 }),
        Decision::Keep(kept) => (1, kept),
    };
    let mut bytes = [0; 26];
    let parts: [&[u8]; 6] = [
        &[kind],
        &checksum.to_le_bytes(),
        &[is_kept],
        &kept.base_offset.to_le_bytes(),
        &kept.offset_count.to_le_bytes(),
        &kept.max_timestamp_ms.to_le_bytes(),
    ];
    bytes.iter_mut().zip(parts.into_iter().flatten()).for_each(|(to, from)| *to = *from);
    bytes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;

    type Item = (u8, u32, Decision);

    fn kept(base_offset: u64) -> Decision {
        Decision::Keep(Kept { base_offset, offset_count: 1, max_timestamp_ms: 7 })
    }

    fn id(index: u64) -> LogId {
        LogId { term: 3, index }
    }

    fn grown(mut chain: Chain, indexes: std::ops::Range<u64>) -> Chain {
        indexes.for_each(|index| chain.add(id(index), Link::Items, [(1, 9, kept(index))].into_iter()));
        chain
    }

    #[test]
    fn everything_about_an_entry_counts() {
        let hash = |log_id, link, items: &[Item]| {
            let mut chain = Chain::resume(None, None, 1);
            chain.add(log_id, link, items.iter().copied());
            chain.end().hash
        };
        let item = (1, 9, kept(5));
        let other = |kept: Kept| (1, 9, Decision::Keep(kept));
        let of = Kept { base_offset: 5, offset_count: 1, max_timestamp_ms: 7 };
        let hashes = [
            hash(id(0), Link::Items, &[item]),
            hash(LogId { term: 4, index: 0 }, Link::Items, &[item]),
            hash(id(1), Link::Items, &[item]),
            hash(id(0), Link::Membership, &[item]),
            hash(id(0), Link::Items, &[(2, 9, kept(5))]),
            hash(id(0), Link::Items, &[(1, 8, kept(5))]),
            hash(id(0), Link::Items, &[(1, 9, Decision::Drop)]),
            hash(id(0), Link::Items, &[other(Kept { base_offset: 6, ..of })]),
            hash(id(0), Link::Items, &[other(Kept { offset_count: 2, ..of })]),
            hash(id(0), Link::Items, &[other(Kept { max_timestamp_ms: 8, ..of })]),
            hash(id(0), Link::Items, &[item, item]),
            hash(id(0), Link::Items, &[]),
            hash(id(0), Link::Blank, &[]),
        ];
        let different: std::collections::BTreeSet<u32> = hashes.into_iter().collect();
        assert_eq!(different.len(), hashes.len());
        // It is on the disks: this value must not change.
        assert_eq!(hash(id(0), Link::Items, &[item]), 0x271d_9ea3);
    }

    #[test]
    fn a_chain_that_is_stored_and_resumed_goes_on_as_if_nothing_were() {
        let whole = grown(Chain::resume(None, None, 1), 0..700);
        let first = grown(Chain::resume(None, None, 1), 0..300);
        let resumed = grown(Chain::resume(Some(id(299)), Some(first.end()), 2), 300..700);
        assert_eq!(resumed.end(), whole.end());
        let indexes = |chain: &Chain| chain.track().points.iter().map(|point| point.index).collect::<Vec<_>>();
        assert_eq!(indexes(&whole), [255, 511, 699]);
        assert_eq!(indexes(&resumed), [511, 699]);
        let end = Point { index: 299, hash: first.end().hash };
        assert_eq!(Chain::resume(Some(id(299)), Some(first.end()), 2).track().points, [end], "what is at rest can be compared");
    }

    #[test]
    fn where_nothing_was_stored_it_begins_with_the_next_checkpoint() {
        let ends = [20, 200].map(|applied| grown(Chain::resume(Some(id(applied)), None, 1), applied + 1..600));
        assert_eq!(ends.each_ref().map(|chain| chain.end().from), [256, 256]);
        assert_eq!(ends[0].track(), ends[1].track());
        assert_eq!(grown(Chain::resume(Some(id(20)), None, 1), 21..256).track().points, [], "nothing is said of what was before");
        assert_eq!(Chain::resume(Some(id(255)), None, 1).end().from, 256);
    }

    #[test]
    fn as_many_checkpoints_are_kept_as_are_needed() {
        let points = grown(Chain::resume(None, None, 1), 0..100 * CHECKPOINT_ENTRIES).track().points;
        assert_eq!((points.len(), points[0].index), (CHECKPOINTS, 69 * CHECKPOINT_ENTRIES - 1));
    }
}
