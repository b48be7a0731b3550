//! What can be compared of a replica's chain: the hash at some of its entries.

/// The chain's hash through one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// The entry.
    pub index: u64,
    /// The hash.
    pub hash: u32,
}

/// Points of one chain.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Track {
    /// The first entry in the chain. Chains that began elsewhere have nothing in common.
    pub from: u64,
    /// By index, ascending.
    pub points: Vec<Point>,
}

/// What two tracks say about each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compared {
    /// They have no entry in common.
    Nothing,
    /// They agree through this entry, the last that both have.
    Equal(u64),
    /// They differ at this entry, the first at which that shows.
    Differs(u64),
}

impl Track {
    /// The hash at an entry.
    #[must_use]
    pub fn at(&self, index: u64) -> Option<u32> {
        let place = self.points.binary_search_by_key(&index, |point| point.index).ok()?;
        self.points.get(place).map(|point| point.hash)
    }

    /// Compares them wherever they can be.
    #[must_use]
    pub fn against(&self, other: &Self) -> Compared {
        if self.from != other.from {
            return Compared::Nothing;
        }
        let mut compared = Compared::Nothing;
        for point in &self.points {
            match other.at(point.index) {
                Some(hash) if hash != point.hash => return Compared::Differs(point.index),
                Some(_) => compared = Compared::Equal(point.index),
                None => {}
            }
        }
        compared
    }

    /// Adds newer points of the same replica; at most the newest `kept_max` are kept.
    pub fn extend(&mut self, newer: &Self, kept_max: usize) {
        if self.from != newer.from {
            *self = newer.clone();
        }
        let last = self.points.last().map(|point| point.index);
        self.points.extend(newer.points.iter().filter(|point| last.is_none_or(|last| point.index > last)));
        let over = self.points.len().saturating_sub(kept_max);
        self.points.drain(..over);
    }

    /// Only what lies behind `index`.
    #[must_use]
    pub fn behind(&self, index: Option<u64>) -> Self {
        let points = self.points.iter().filter(|point| index.is_none_or(|index| point.index > index));
        Self { from: self.from, points: points.copied().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn track(from: u64, points: &[(u64, u32)]) -> Track {
        Track { from, points: points.iter().map(|(index, hash)| Point { index: *index, hash: *hash }).collect() }
    }

    #[test]
    fn tracks_are_compared_where_both_have_points() {
        let one = track(0, &[(10, 1), (20, 2), (30, 3)]);
        assert_eq!(one.against(&one), Compared::Equal(30));
        assert_eq!(one.against(&track(0, &[(10, 1), (25, 9)])), Compared::Equal(10));
        assert_eq!(one.against(&track(0, &[(10, 1), (20, 7), (30, 8)])), Compared::Differs(20));
        assert_eq!(one.against(&track(0, &[(5, 1), (15, 2)])), Compared::Nothing);
        assert_eq!(one.against(&track(5, &[(10, 9), (20, 9)])), Compared::Nothing, "it began elsewhere");
    }

    #[test]
    fn newer_points_push_out_the_oldest() {
        let mut known = track(0, &[(10, 1), (20, 2)]);
        known.extend(&track(0, &[(20, 2), (30, 3), (40, 4)]), 3);
        assert_eq!(known, track(0, &[(20, 2), (30, 3), (40, 4)]));
        known.extend(&track(7, &[(30, 9)]), 3);
        assert_eq!(known, track(7, &[(30, 9)]), "another chain takes its place");
        assert_eq!(track(0, &[(1, 1), (2, 2)]).behind(Some(1)), track(0, &[(2, 2)]));
    }
}
