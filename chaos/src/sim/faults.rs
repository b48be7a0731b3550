//! What is done to simulated nodes and their network, and when.

use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;

use crate::random::Random;

/// Which faults a simulation has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scenario {
    /// Everything below, in any order and at once
    All,
    /// Processes end at any moment and start again
    Kill,
    /// The power of nodes fails: what was not synced is lost, in part or wholly
    Power,
    /// The power fails in the middle of a write, which is torn
    Torn,
    /// Nodes cannot reach each other, both ways or one way
    Partition,
    /// Messages and disks take long
    Delay,
    /// Disks fail at writes and syncs, or are full
    Disk,
    /// The time of day jumps
    Clock,
    /// Replicas move and leaders are exchanged, while processes end and links break
    Moves,
    /// All of it while the cluster forms
    Founding,
}

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A process ends; its machine goes on.
    Kill(u64),
    /// A machine loses its power.
    PowerCut(u64),
    /// All of them do, at the same moment.
    PowerCutAll,
    /// A machine loses its power during the write to its disk after so many others.
    TornWrite(u64, u64),
    /// A node reaches nobody, and nobody reaches it.
    Isolate(u64),
    /// Two nodes do not reach each other.
    Cut(u64, u64),
    /// What the first sends does not reach the second.
    CutOneWay(u64, u64),
    /// Every message takes up to so long.
    SlowNetwork(Duration),
    /// Whatever the disk of a node does takes so much longer.
    SlowDisk(u64, Duration),
    /// A sync of a node's disk fails, after so many others.
    SyncFails(u64, u64),
    /// A write to a node's disk fails, after so many others.
    WriteFails(u64, u64),
    /// No file of a node can grow.
    DiskFull(u64),
    /// A node's time of day is so many milliseconds off.
    ClockJump(u64, i64),
}

/// A fault, when it begins and how long it lasts.
#[derive(Debug, Clone, Copy)]
pub struct Planned {
    /// Since the time of faults began.
    pub at: Duration,
    /// What.
    pub fault: Fault,
    /// Until it is undone.
    pub lasts: Duration,
}

/// Between two faults.
const PAUSE_MS: (u64, u64) = (300, 3_500);
/// How long one lasts.
const LASTS_MS: (u64, u64) = (100, 3_000);
/// Operations of a disk before the one that fails, at most.
const FAILS_AFTER_MAX: u64 = 60;
const SLOW_NETWORK_MS: (u64, u64) = (20, 250);
const SLOW_DISK_MS: (u64, u64) = (5, 120);
const CLOCK_JUMP_MS_MAX: u64 = 3_600_000;

/// What will happen to `nodes` nodes within `duration`.
#[must_use]
pub fn plan(scenario: Scenario, nodes: u64, duration: Duration, random: &mut Random) -> Vec<Planned> {
    let mut planned = Vec::new();
    let mut at = millis(random, PAUSE_MS);
    while at < duration {
        let fault = choose(scenario, nodes, random);
        planned.push(Planned { at, fault, lasts: millis(random, LASTS_MS) });
        at += millis(random, PAUSE_MS);
    }
    planned
}

fn choose(scenario: Scenario, nodes: u64, random: &mut Random) -> Fault {
    use Scenario::{Clock, Delay, Disk, Kill, Partition, Power, Torn};
    const EVERY: [Scenario; 7] = [Kill, Power, Torn, Partition, Delay, Disk, Clock];
    let node = 1 + random.next_u64() % nodes;
    let other = 1 + (node + random.next_u64() % (nodes - 1).max(1)) % nodes;
    let chance = random.below(4);
    match scenario {
        Scenario::All | Scenario::Founding => choose(random.pick(&EVERY).copied().unwrap_or(Kill), nodes, random),
        Scenario::Moves => choose(random.pick(&[Kill, Partition]).copied().unwrap_or(Kill), nodes, random),
        Kill => Fault::Kill(node),
        Power if chance == 0 => Fault::PowerCutAll,
        Power => Fault::PowerCut(node),
        Torn => Fault::TornWrite(node, random.next_u64() % FAILS_AFTER_MAX),
        Partition if chance == 0 => Fault::Cut(node, other),
        Partition if chance == 1 => Fault::CutOneWay(node, other),
        Partition => Fault::Isolate(node),
        Delay if chance < 2 => Fault::SlowNetwork(millis(random, SLOW_NETWORK_MS)),
        Delay => Fault::SlowDisk(node, millis(random, SLOW_DISK_MS)),
        Disk if chance == 0 => Fault::DiskFull(node),
        Disk if chance == 1 => Fault::WriteFails(node, random.next_u64() % FAILS_AFTER_MAX),
        Disk => Fault::SyncFails(node, random.next_u64() % FAILS_AFTER_MAX),
        Clock => {
            let off = (random.next_u64() % CLOCK_JUMP_MS_MAX).cast_signed();
            Fault::ClockJump(node, if chance < 2 { off } else { -off })
        }
    }
}

fn millis(random: &mut Random, (from, to): (u64, u64)) -> Duration {
    Duration::from_millis(from + random.next_u64() % (to - from))
}
