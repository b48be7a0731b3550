//! Single faults at random times, and random episodes.

use serde::{Deserialize, Serialize};

use super::{Corruption, Fault, Planned, Scenario, Shape, episodes};
use crate::random::Random;
use crate::sim::disk::{DiskError, Op, Place, Rule};
use crate::sim::rows::RowsOp;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Processes end.
    Kill,
    /// The power fails.
    Power,
    /// The power fails, or the process ends, in the middle of an operation.
    Torn,
    /// Links break.
    Links,
    /// Messages and disks take long.
    Delay,
    /// Operations of the disk fail.
    DiskErrors,
    /// The disk is full.
    Full,
    /// What is on the disk changes.
    Damage,
    /// Rows cannot be read or written.
    Rows,
    /// The time of day jumps.
    Clock,
    /// Replicas move, leads change hands, topics come and go.
    Orders,
}

const FIRST_PAUSE_MS: u64 = 300;
/// How long faults last, and how many of a hundred last so long: most are short, some outlast elections and moves.
const LASTS_MS: [(usize, u64, u64); 3] = [(65, 100, 3_000), (25, 3_000, 12_000), (10, 12_000, 30_000)];
/// Operations of a disk before the one that is hit, at most.
const AFTER_MAX: u64 = 60;
const SLOW_NETWORK_MS: (u64, u64) = (20, 250);
const SLOW_DISK_MS: (u64, u64) = (5, 120);
const HOUR_MS: i64 = 3_600_000;
const DAYS_MAX: i64 = 30;
/// Of a partition with several.
const REPLICAS: u64 = 3;
/// Topics that come and go.
const TOPICS: usize = 4;
/// `all` orders at least so many moves.
const MOVES: u64 = 4;

impl Class {
    pub(super) const ALL: [Self; 11] = [
        Self::Kill,
        Self::Power,
        Self::Torn,
        Self::Links,
        Self::Delay,
        Self::DiskErrors,
        Self::Full,
        Self::Damage,
        Self::Rows,
        Self::Clock,
        Self::Orders,
    ];

    pub(super) fn of(scenario: Scenario) -> Vec<Self> {
        match scenario {
            Scenario::All | Scenario::Founding => {
                Self::ALL.into_iter().filter(|class| !matches!(class, Self::Damage | Self::Orders)).collect()
            }
            Scenario::Kill => vec![Self::Kill],
            Scenario::Power => vec![Self::Power],
            Scenario::Torn => vec![Self::Torn],
            Scenario::Partition => vec![Self::Links],
            Scenario::Delay => vec![Self::Delay],
            Scenario::Disk => vec![Self::DiskErrors, Self::Full, Self::Rows],
            Scenario::Damage => vec![Self::Damage],
            Scenario::Clock => vec![Self::Clock],
            Scenario::Moves => vec![Self::Kill, Self::Links, Self::Orders, Self::Orders],
        }
    }
}

/// What will happen.
pub(super) fn faults(scenario: Scenario, shape: &Shape, random: &mut Random) -> Vec<Planned> {
    let mut planned = Vec::new();
    let mut at_ms = between(random, (FIRST_PAUSE_MS, shape.pause_ms_max));
    while at_ms < shape.faults_ms {
        let class = random.pick(&shape.classes).copied();
        if let Some(fault) = class.map(|class| single(class, shape, random)) {
            planned.push(Planned { at_ms, lasts_ms: lasting(random), fault });
        }
        at_ms += between(random, (FIRST_PAUSE_MS, shape.pause_ms_max));
    }
    for _ in 0..shape.episodes {
        planned.extend(episodes::choose(shape, random));
    }
    if scenario == Scenario::All {
        // Some are refused, because another one is not over yet.
        planned.extend((0..MOVES).map(|number| Planned {
            at_ms: (number * shape.faults_ms + random.next_u64() % shape.faults_ms) / MOVES,
            lasts_ms: 0,
            fault: somewhere(shape, random),
        }));
    }
    planned
}

fn single(class: Class, shape: &Shape, random: &mut Random) -> Fault {
    let node = any_node(shape, random);
    let other = another(shape, node, random);
    let (chance, after) = (random.below(4), (random.next_u64() % AFTER_MAX) as u32);
    match class {
        Class::Kill => Fault::Kill { node },
        Class::Power if chance == 0 => Fault::PowerCutAll,
        Class::Power => Fault::PowerCut { node },
        Class::Torn if chance < 2 => Fault::TornWrite { node, after: after.into() },
        Class::Torn => Fault::DiesDuring { node, op: any_op(random), place: any_place(random), after: after / 4 },
        Class::Links if chance == 0 => Fault::CutOneWay { from: node, to: other },
        Class::Links if chance < 3 => Fault::Cut { one: node, other },
        Class::Links => Fault::Isolate { node },
        Class::Delay if chance < 2 => Fault::SlowNetwork { ms: between(random, SLOW_NETWORK_MS) },
        Class::Delay => Fault::SlowDisk { node, ms: between(random, SLOW_DISK_MS) },
        Class::DiskErrors => Fault::DiskFails { node, rule: rule(random, after) },
        Class::Full => Fault::DiskFull { node, quota: chance == 0 },
        Class::Damage => damage(chance, random),
        Class::Rows => {
            let op = random.one_of([RowsOp::Open, RowsOp::Read, RowsOp::Write, RowsOp::Flush]);
            Fault::RowsFail { node, op, after: after / 4, times: 1 }
        }
        Class::Clock => {
            let days = random.below(2) == 0;
            let span = if days { 24 * HOUR_MS * DAYS_MAX } else { HOUR_MS };
            let off = (random.next_u64() % span.cast_unsigned()).cast_signed();
            Fault::ClockJump { node, off_ms: if chance < 2 { off } else { -off } }
        }
        Class::Orders => order(shape, random),
    }
}

/// Damage hits one node in a whole run: what a minority has can be copied again.
fn damage(chance: usize, random: &mut Random) -> Fault {
    let (node, pick) = (1, random.next_u64());
    let place = random.one_of([Place::Journal, Place::Segments, Place::Marks]);
    match chance {
        0 => Fault::Corrupt { node, place, what: Corruption::Cut, pick },
        1 => Fault::Corrupt { node, place, what: Corruption::Flip, pick },
        _ => Fault::Unreadable { node, place, pick },
    }
}

fn order(shape: &Shape, random: &mut Random) -> Fault {
    let number = random.below(TOPICS) as u32;
    match random.below(8) {
        0 => Fault::Cancel { partition: any_partition(shape, random) },
        1 => Fault::Lead { partition: any_partition(shape, random), node: any_node(shape, random) },
        2 => creation(shape, random),
        3 => Fault::DeleteTopic { number },
        _ => somewhere(shape, random),
    }
}

/// A new topic; what damage may hit has copies.
pub(super) fn creation(shape: &Shape, random: &mut Random) -> Fault {
    let replicas = if shape.classes.contains(&Class::Damage) { 3 } else { random.one_of([1, 3]) };
    Fault::CreateTopic { number: random.below(TOPICS) as u32, replicas }
}

pub(super) fn somewhere(shape: &Shape, random: &mut Random) -> Fault {
    Fault::Move { partition: movable(shape, random), to: shuffled(shape, random) }
}

/// All nodes, in any order.
pub(super) fn shuffled(shape: &Shape, random: &mut Random) -> Vec<u64> {
    let mut nodes: Vec<u64> = (1..=shape.nodes).collect();
    (1..nodes.len()).rev().for_each(|at| nodes.swap(at, random.below(at + 1)));
    nodes
}

fn rule(random: &mut Random, after: u32) -> Rule {
    use DiskError::{Edquot, Eintr, Eio, Emfile, Enospc};
    let error = random.one_of([Eio, Eio, Enospc, Edquot, Emfile, Eintr]);
    // Some are more than anybody tries again.
    let times = random.one_of([1, 1, 2, 8, 20, u32::MAX]);
    Rule { op: any_op(random), place: any_place(random), error: Some(error), after: after / 2, times }
}

pub(super) fn any_op(random: &mut Random) -> Op {
    random.one_of(Op::ALL)
}

pub(super) fn any_place(random: &mut Random) -> Place {
    random.one_of([Place::Anywhere, Place::Journal, Place::Segments, Place::Marks])
}

pub(super) fn any_node(shape: &Shape, random: &mut Random) -> u64 {
    1 + random.next_u64() % shape.nodes
}

fn another(shape: &Shape, node: u64, random: &mut Random) -> u64 {
    1 + (node + random.next_u64() % (shape.nodes - 1).max(1)) % shape.nodes
}

/// Of all that are written: the replicated ones, the single ones, and the one that passes.
pub(super) fn any_partition(shape: &Shape, random: &mut Random) -> usize {
    random.below((shape.partitions + shape.singles + 1) as usize)
}

/// One that has fewer replicas than there are nodes.
pub(super) fn movable(shape: &Shape, random: &mut Random) -> usize {
    let stuck = if shape.nodes > REPLICAS { 0 } else { shape.partitions };
    (stuck as usize) + random.below((shape.partitions + shape.singles + 1 - stuck) as usize)
}

pub(super) fn lasting(random: &mut Random) -> u64 {
    let mut chance = random.below(100);
    for (of_hundred, from, to) in LASTS_MS {
        if chance < of_hundred {
            return between(random, (from, to));
        }
        chance -= of_hundred;
    }
    LASTS_MS[0].1
}

pub(super) fn between(random: &mut Random, (from, to): (u64, u64)) -> u64 {
    from + random.next_u64() % to.saturating_sub(from).max(1)
}
