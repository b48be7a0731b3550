//! What a node believes of the time of day: a pure function of what the clocks of the cluster say, and of how much time has
//! passed by its own monotonic clock, which never leaps.
//!
//! - A time is *proven* if the clocks of most nodes of the cluster agree on it, two at least.
//! - Where there is no majority to ask, a node's own clock proves itself by keeping step with the monotonic clock for an hour
//!   without being contradicted. So a node on its own that leaps has an hour in which somebody can set it right.
//! - What is proven goes on with the monotonic clock, whatever the own one says, until something else is proven. A clock that
//!   differs from what most have proven does not prove itself, even where nobody can be heard any more.
//! - Time that something expires by does not leap even then, but goes to what is proven a thousand times as fast as time passes:
//!   somebody may notice that most clocks are wrong.

use std::collections::{BTreeMap, BTreeSet};

use super::CATCH_UP_RATE;

/// Clocks that differ by no more than this many milliseconds agree.
pub(crate) const AGREE_MS_MAX: i64 = 60 * 1000;
/// What a node said longer ago than this many milliseconds does not count any more.
pub(crate) const HEARD_MS_MAX: i64 = 5 * 1000;
/// For how many milliseconds a clock must keep step that nobody confirms.
pub(crate) const ALONE_MS_MIN: i64 = 60 * 60 * 1000;
/// A clock is wrong once it has been so for this many milliseconds: a message that was long on its way looks like it.
const WRONG_MS_MIN: i64 = 5 * 1000;

/// What a node knows of the clocks at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look<'a> {
    /// Milliseconds by the monotonic clock.
    pub uptime_ms: i64,
    /// What its own clock says, in milliseconds since the Unix epoch.
    pub wall_ms: i64,
    /// The nodes of the cluster, this one among them.
    pub members: &'a BTreeSet<u64>,
    /// What others said, by node.
    pub heard: &'a BTreeMap<u64, Heard>,
}

/// What another node's clock said, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Heard {
    pub wall_ms: i64,
    /// When, by this node's monotonic clock.
    pub uptime_ms: i64,
}

/// What time it is, in milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reading {
    /// By this, things may be too old: proven, and without leaps.
    pub proven_ms: Option<i64>,
    /// The likeliest: where nothing says that the own clock is wrong, the later of what it says and what is proven.
    pub likely_ms: i64,
}

/// What is the matter with the own clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Doubt {
    /// Milliseconds that it is ahead of what is proven.
    pub ahead_ms: i64,
    /// Whether most clocks say so. Otherwise it has leapt, and nobody can be asked.
    pub by_most: bool,
}

/// See the module. A clock is described by its *origin*: what it would have said when the monotonic clock began.
#[derive(Debug, Clone)]
pub(crate) struct Agreement {
    node_id: u64,
    /// What was proven last.
    proven: Option<i64>,
    /// Where the time is that goes there without a leap.
    steady: Option<i64>,
    looked_ms: i64,
    /// Whether a majority has proven it.
    by_most: bool,
    alone: Option<Alone>,
    /// Nodes whose clocks differ from what is proven, and since when.
    differ: BTreeMap<u64, i64>,
}

/// The own clock, while it keeps step and nobody contradicts.
#[derive(Debug, Clone, Copy)]
struct Alone {
    origin: i64,
    since_ms: i64,
}

impl Agreement {
    pub(crate) fn new(node_id: u64) -> Self {
        Self { node_id, proven: None, steady: None, looked_ms: 0, by_most: false, alone: None, differ: BTreeMap::new() }
    }

    /// Takes in what the clocks say; to be called every second or so.
    pub(crate) fn look(&mut self, look: Look<'_>) {
        let own = look.wall_ms.saturating_sub(look.uptime_ms);
        let recent = |(node, heard): (&u64, &Heard)| {
            let counts = *node != self.node_id
                && look.members.contains(node)
                && look.uptime_ms.saturating_sub(heard.uptime_ms) <= HEARD_MS_MAX;
            counts.then(|| (*node, heard.wall_ms.saturating_sub(heard.uptime_ms)))
        };
        let mut origins: BTreeMap<u64, i64> = look.heard.iter().filter_map(recent).collect();
        origins.insert(self.node_id, own);
        let agreed = majority(origins.values().copied().collect(), look.members.len());
        let known = agreed.or(self.proven.filter(|_| self.by_most));
        let contradicted = origins.values().chain(&known).any(|origin| !agree(*origin, own));
        let believed = self.keeps_step(own, look.uptime_ms, contradicted);
        if agreed.is_some() || believed {
            self.by_most = agreed.is_some();
            self.proven = agreed.or(Some(own));
        }
        let reach = look.uptime_ms.saturating_sub(self.looked_ms).max(0).saturating_mul(CATCH_UP_RATE);
        let towards = |proven: i64, from: i64| from.saturating_add(proven.saturating_sub(from).clamp(-reach, reach));
        self.steady = self.proven.map(|proven| self.steady.map_or(proven, |from| towards(proven, from)));
        self.looked_ms = look.uptime_ms;
        self.differ = match self.proven {
            None => BTreeMap::new(),
            Some(proven) => {
                let differ = origins.into_iter().filter(|(_, origin)| !agree(*origin, proven));
                differ.map(|(node, _)| (node, self.differ.get(&node).copied().unwrap_or(look.uptime_ms))).collect()
            }
        };
    }

    /// Whether the own clock has kept step for long enough, uncontradicted.
    fn keeps_step(&mut self, own: i64, uptime_ms: i64, contradicted: bool) -> bool {
        let kept = self.alone.filter(|alone| !contradicted && agree(alone.origin, own));
        let alone = self.alone.insert(kept.unwrap_or(Alone { origin: own, since_ms: uptime_ms }));
        let believed = uptime_ms.saturating_sub(alone.since_ms) >= ALONE_MS_MIN;
        if believed {
            // It may drift from now on, as clocks do.
            alone.origin = own;
        }
        believed
    }

    pub(crate) fn reading(&self, uptime_ms: i64, wall_ms: i64) -> Reading {
        let since = |origin: i64| origin.saturating_add(uptime_ms);
        let likely_ms = match self.proven {
            Some(proven) if self.is_wrong(self.node_id, uptime_ms) => since(proven),
            Some(proven) => since(proven).max(wall_ms),
            None => wall_ms,
        };
        Reading { proven_ms: self.steady.map(since), likely_ms }
    }

    /// Whether a node's clock differs from what most have proven, and not just for a moment.
    pub(crate) fn is_wrong(&self, node_id: u64, uptime_ms: i64) -> bool {
        self.by_most && self.differs(node_id, uptime_ms)
    }

    /// How far the own clock is ahead, in milliseconds, if it is wrong, or has leapt and is not believed yet.
    pub(crate) fn doubt(&self, uptime_ms: i64, wall_ms: i64) -> Option<Doubt> {
        let proven_ms = self.proven?.saturating_add(uptime_ms);
        let doubt = Doubt { ahead_ms: wall_ms.saturating_sub(proven_ms), by_most: self.by_most };
        self.differs(self.node_id, uptime_ms).then_some(doubt)
    }

    fn differs(&self, node_id: u64, uptime_ms: i64) -> bool {
        self.differ.get(&node_id).is_some_and(|since_ms| uptime_ms.saturating_sub(*since_ms) >= WRONG_MS_MIN)
    }
}

fn agree(one: i64, other: i64) -> bool {
    one.abs_diff(other) <= AGREE_MS_MAX.unsigned_abs()
}

/// On what more than half of `members` clocks agree, two at least: the median of those that do.
fn majority(mut origins: Vec<i64>, members: usize) -> Option<i64> {
    origins.sort_unstable();
    let agreeing = |(at, first): (usize, &i64)| {
        let rest = origins.get(at..).unwrap_or_default();
        let count = rest.partition_point(|origin| agree(*first, *origin));
        rest.get(..count).unwrap_or_default()
    };
    let most = origins.iter().enumerate().map(agreeing).max_by_key(|agreeing| agreeing.len())?;
    let enough = most.len() >= 2 && most.len() * 2 > members;
    most.get(most.len() / 2).copied().filter(|_| enough)
}

#[cfg(test)]
#[path = "agreement_tests.rs"]
mod tests;
