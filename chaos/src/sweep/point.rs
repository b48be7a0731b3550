//! Points: one harm at one call of one phase. A point's name says all that is needed to do it again.

use std::fmt;
use std::str::FromStr;

use super::phase::Phase;
use crate::random::Random;
use crate::trap::calls::{Class, class_of};
use crate::trap::order::{Census, Errno, Harm, Step};

/// See the module. Shown as `PHASE:CALL:FILE:NTH:HARM`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    /// When.
    pub phase: Phase,
    /// At which call, and what happens.
    pub step: Step,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Step { call, kind, nth, harm } = &self.step;
        write!(f, "{}:{call}:{kind}:{nth}:{harm}", self.phase)
    }
}

impl FromStr for Point {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is no point: write PHASE:CALL:FILE:NTH:HARM, such as restart:openat:state/CURRENT:1:EIO");
        let parts: Vec<&str> = text.split(':').collect();
        let [phase, call, kind, nth, harm] = parts.as_slice() else { return Err(wrong()) };
        if class_of(call).is_none() {
            return Err(format!("{call:?} is no call that is watched"));
        }
        let nth = nth.parse().ok().filter(|nth| *nth > 0).ok_or_else(wrong)?;
        let step = Step { call: (*call).to_owned(), kind: (*kind).to_owned(), nth, harm: harm.parse()? };
        Ok(Self { phase: phase.parse()?, step })
    }
}

/// How a call of this class can go wrong.
fn harms(class: Class) -> Vec<Harm> {
    use Errno::{Edquot, Eintr, Eio, Emfile, Enospc};
    let errors: &[Errno] = match class {
        Class::Open => &[Eio, Emfile, Eintr],
        Class::Create => &[Eio, Enospc, Edquot, Emfile, Eintr],
        Class::Read | Class::Truncate => &[Eio, Eintr],
        Class::Write | Class::Sync | Class::Allocate => &[Eio, Enospc, Edquot, Eintr],
        Class::Rename | Class::Mkdir => &[Eio, Enospc, Edquot],
        Class::Remove | Class::List | Class::Stat => &[Eio],
    };
    let short = matches!(class, Class::Read | Class::Write).then_some(Harm::Short);
    let kill = class.changes().then_some(Harm::Kill);
    errors.iter().copied().map(Harm::Error).chain(short).chain(kill).collect()
}

/// The first, a middle, a late and the last one of `count` calls. The next run may make a few fewer: then the last one is void,
/// and the late one is not.
fn places(count: u64) -> Vec<u64> {
    let mut places = vec![1, count.div_ceil(2), (count * 9).div_ceil(10), count];
    places.retain(|place| (1..=count).contains(place));
    places.dedup();
    places
}

/// All points of a phase in which these calls were counted.
#[must_use]
pub fn points(phase: Phase, census: &Census) -> Vec<Point> {
    let mut points = Vec::new();
    for ((call, kind), count) in census {
        let Some(class) = class_of(call) else { continue };
        for nth in places(*count) {
            for harm in harms(class) {
                points.push(Point { phase, step: Step { call: (*call).to_owned(), kind: kind.clone(), nth, harm } });
            }
        }
    }
    points
}

/// `count` of `points`, the same ones for the same seed, in the order in which they stand there.
#[must_use]
pub fn sample(points: Vec<Point>, count: usize, random: &mut Random) -> Vec<Point> {
    let mut left = count.min(points.len());
    let mut behind = points.len();
    let drawn = points.into_iter().filter(|_| {
        let chosen = random.below(behind) < left;
        behind -= 1;
        left -= usize::from(chosen);
        chosen
    });
    drawn.collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn a_point_reads_as_it_is_written() {
        for text in
            ["restart:openat:state/CURRENT:1:EIO", "delete:unlinkat:groups/#-#/#.segment:12:kill", "write:fdatasync:.:3:EINTR"]
        {
            assert_eq!(text.parse::<Point>().unwrap().to_string(), text);
        }
        for wrong in ["", "restart", "restart:socket:x:1:EIO", "rain:read:x:1:EIO", "read:read:x:0:EIO", "read:read:x:1:EBADF"] {
            assert!(wrong.parse::<Point>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn each_call_is_met_at_its_beginning_middle_and_end() {
        assert_eq!(places(0), [0; 0]);
        assert_eq!(places(1), [1]);
        assert_eq!(places(2), [1, 2]);
        assert_eq!(places(100), [1, 50, 90, 100]);
        let census = Census::from([(("pread64", "f".to_owned()), 100), (("fdatasync", "f".to_owned()), 1)]);
        let all: Vec<String> = points(Phase::Restart, &census).iter().map(Point::to_string).collect();
        assert_eq!(all.len(), 5 + 4 * 3, "{all:?}");
        assert!(all.contains(&"restart:pread64:f:90:short".to_owned()) && all.contains(&"restart:fdatasync:f:1:kill".to_owned()));
    }

    #[test]
    fn a_seed_draws_the_same_points() {
        let census = Census::from([(("pwrite64", "f".to_owned()), 100), (("unlink", "f".to_owned()), 10)]);
        let all = || points(Phase::Write, &census);
        let drawn = sample(all(), 7, &mut Random::new(3));
        assert_eq!(drawn.len(), 7);
        assert_eq!(drawn, sample(all(), 7, &mut Random::new(3)));
        assert_ne!(drawn, sample(all(), 7, &mut Random::new(4)));
        assert_eq!(sample(all(), 1_000, &mut Random::new(1)), all());
    }
}
