//! What a simulation does: data that follows from its seed, can be written down, cut down (`shrink.rs`) and replayed.
//!
//! - `shape.rs` how the cluster is set up · `fault.rs` what can be done to it
//! - `generate.rs` single faults at random times · `episodes.rs` several that belong together

mod episodes;
mod fault;
mod generate;
mod shape;

use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::random::Random;
pub use fault::{Corruption, Fault, Planned};
pub use generate::Class;
pub use shape::Shape;

/// Which faults a simulation has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scenario {
    /// Some of everything below and more, short and long, at once; the seed decides of what, and on what kind of cluster
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
    /// Operations of disks fail, disks are full
    Disk,
    /// Bits flip, files are cut, sectors cannot be read, on one node
    Damage,
    /// The time of day jumps
    Clock,
    /// Replicas move and leaders are exchanged, while processes end and links break
    Moves,
    /// Some of everything while the cluster forms
    Founding,
}

/// A simulation, from which it can be run again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Everything random that is not written here follows from it.
    pub seed: u64,
    /// What the faults were chosen for.
    pub scenario: Scenario,
    /// The cluster.
    pub shape: Shape,
    /// What happens, by time.
    pub faults: Vec<Planned>,
    /// Whether the power of all nodes fails at the end.
    pub power_fails_at_end: bool,
}

impl Plan {
    /// What follows from a seed. What is given is not chosen.
    #[must_use]
    pub fn of(seed: u64, scenario: Scenario, given: &Given) -> Self {
        let mut random = Random::new(seed);
        let shape = given.over(if scenario == Scenario::All { Shape::choose(&mut random) } else { Shape::usual(scenario) });
        let mut faults = generate::faults(scenario, &shape, &mut random);
        faults.sort_by_key(|planned| planned.at_ms);
        Self { seed, scenario, shape, faults, power_fails_at_end: random.below(2) == 0 }
    }

    /// How long there are faults.
    #[must_use]
    pub fn duration(&self) -> Duration {
        Duration::from_millis(self.shape.faults_ms)
    }
}

/// What somebody wants to be so, whatever the seed says.
#[derive(Debug, Clone, Copy, Default)]
pub struct Given {
    /// Nodes.
    pub nodes: Option<u64>,
    /// Partitions of the replicated topic.
    pub partitions: Option<u32>,
    /// How long there are faults.
    pub duration: Option<Duration>,
}

impl Given {
    fn over(&self, shape: Shape) -> Shape {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Shape {
            nodes: self.nodes.unwrap_or(shape.nodes),
            partitions: self.partitions.unwrap_or(shape.partitions),
            faults_ms: self.duration.map_or(shape.faults_ms, millis),
            ..shape
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn a_seed_makes_the_same_plan_and_a_plan_is_what_was_written_down() {
        for seed in 1..200 {
            let plan = Plan::of(seed, Scenario::All, &Given::default());
            assert_eq!(plan, Plan::of(seed, Scenario::All, &Given::default()));
            let written = serde_json::to_string(&plan).unwrap();
            assert_eq!(plan, serde_json::from_str::<Plan>(&written).unwrap());
            assert!(plan.faults.windows(2).all(|pair| pair[0].at_ms <= pair[1].at_ms));
            assert!(plan.faults.iter().filter(|planned| matches!(planned.fault, Fault::Move { .. })).count() >= 4);
        }
    }
}
