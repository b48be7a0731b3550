//! Who is hit.

use std::collections::BTreeMap;

use super::Fault;
use crate::random::Random;

/// Each partition's leader, where it has one.
pub type Leaders = BTreeMap<u32, Option<u64>>;

/// The nodes of `all` that `fault`, the `turn`-th one, hits; none if there is nobody whom it could hit.
#[must_use]
pub fn choose(fault: Fault, turn: usize, all: &[u64], leaders: &Leaders, random: &mut Random) -> Vec<u64> {
    match fault {
        Fault::Restart => all.iter().copied().cycle().nth(turn).into_iter().collect(),
        Fault::Replace => all.iter().copied().min().into_iter().collect(),
        Fault::KillLeaderOfMost => leader_of_most(leaders).into_iter().collect(),
        Fault::AllKill | Fault::Ring | Fault::PowerCutAll => all.to_vec(),
        Fault::Halves => some(all, all.len() / 2, random),
        Fault::PowerCutMajority => some(all, all.len() / 2 + 1, random),
        Fault::Mix => Vec::new(),
        _ => some(all, 1, random),
    }
}

/// `count` of `all`.
fn some(all: &[u64], count: usize, random: &mut Random) -> Vec<u64> {
    let mut left = all.to_vec();
    while left.len() > count {
        left.remove(random.below(left.len()));
    }
    left
}

/// Of several that lead equally many, the one with the lowest id.
fn leader_of_most(leaders: &Leaders) -> Option<u64> {
    let mut led: BTreeMap<u64, u32> = BTreeMap::new();
    for leader in leaders.values().flatten() {
        *led.entry(*leader).or_default() += 1;
    }
    led.into_iter().rev().max_by_key(|(_, count)| *count).map(|(node, _)| node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_ones_are_hit() {
        let mut random = Random::new(1);
        let leaders = Leaders::from([(0, Some(2)), (1, Some(3)), (2, Some(3)), (3, None), (4, Some(2))]);
        assert_eq!(choose(Fault::KillLeaderOfMost, 0, &[1, 2, 3], &leaders, &mut random), [2]);
        assert_eq!(choose(Fault::KillLeaderOfMost, 0, &[1], &Leaders::new(), &mut random), [0; 0]);
        assert_eq!(choose(Fault::AllKill, 0, &[1, 2, 3], &leaders, &mut random), [1, 2, 3]);
        let hit: std::collections::BTreeSet<u64> =
            (0..100).flat_map(|_| choose(Fault::Kill, 0, &[1, 2, 3], &leaders, &mut random)).collect();
        assert_eq!(hit.len(), 3, "all are hit in time");
        assert_eq!(choose(Fault::Halves, 0, &[1, 2, 3, 4, 5], &leaders, &mut random).len(), 2);
        assert_eq!(choose(Fault::PowerCutMajority, 0, &[1, 2, 3, 4], &leaders, &mut random).len(), 3);
        let restarted: Vec<u64> =
            (0..4).flat_map(|turn| choose(Fault::Restart, turn, &[1, 2, 3], &leaders, &mut random)).collect();
        assert_eq!(restarted, [1, 2, 3, 1]);
        assert_eq!(choose(Fault::Restart, 0, &[], &leaders, &mut random), [0; 0]);
        assert_eq!(choose(Fault::Replace, 7, &[2, 3, 4], &leaders, &mut random), [2]);
    }
}
