//! How the cluster of a simulation is set up: small in all things, so that files are recycled, logs purged and snapshots
//! sent all the time; and each seed's otherwise.

use serde::{Deserialize, Serialize};

use super::{Class, Scenario};
use crate::random::Random;

/// See the module.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Shape {
    /// Nodes.
    pub nodes: u64,
    /// Partitions of the topic with three replicas.
    pub partitions: u32,
    /// Partitions of the topic with one.
    pub singles: u32,
    /// How long there are faults, in milliseconds.
    pub faults_ms: u64,
    /// Kinds of single faults.
    pub classes: Vec<Class>,
    /// Between two single faults, at most, in milliseconds.
    pub pause_ms_max: u64,
    /// How many episodes of faults that belong together.
    pub episodes: usize,
    /// Size of a journal's file, in KiB.
    pub journal_file_kib: u64,
    /// Size at which a segment is closed, in KiB.
    pub segment_kib: u64,
    /// Memory for applied entries, in KiB.
    pub tail_kib: u64,
    /// Producers of each partition.
    pub producers: u32,
    /// Between two batches of a producer, at most, in milliseconds.
    pub batch_pause_ms_max: u64,
    /// Records of a batch, at most.
    pub batch_records_max: usize,
    /// Bytes of a value, at most.
    pub value_bytes_max: usize,
    /// Every so many batches of a producer have a strange time; 0: none.
    pub strange_times: u32,
}

impl Shape {
    /// What the seed decides.
    pub(super) fn choose(random: &mut Random) -> Self {
        let shape = Self {
            nodes: random.one_of([3, 3, 4, 5, 5]),
            partitions: random.one_of([1, 2, 2, 3]),
            singles: random.one_of([0, 1, 1, 2]),
            faults_ms: random.one_of([12_000, 20_000, 30_000, 40_000]),
            classes: Vec::new(),
            pause_ms_max: random.one_of([1_500, 3_000, 6_000]),
            episodes: random.one_of([0, 1, 1, 2, 3]),
            journal_file_kib: random.one_of([128, 192, 256, 512]),
            segment_kib: random.one_of([8, 16, 16, 64]),
            tail_kib: random.one_of([512, 4_096, 16_384]),
            producers: random.one_of([1, 2, 2, 3]),
            batch_pause_ms_max: random.one_of([30, 60, 60, 200]),
            batch_records_max: random.one_of([1, 4, 4, 12]),
            value_bytes_max: random.one_of([200, 2_000, 2_000, 6_000]),
            strange_times: random.one_of([0, 0, 7, 20]),
        };
        let mut classes: Vec<Class> = Class::ALL.into_iter().filter(|_| random.below(5) < 3).collect();
        // Of what has no other copies on a majority nothing may be destroyed. The topic that can always move has one less than nodes.
        classes.retain(|class| *class != Class::Damage || shape.singles == 0 && shape.nodes > 3);
        Self { classes, ..shape }
    }

    /// What a scenario of few kinds of faults runs on.
    pub(super) fn usual(scenario: Scenario) -> Self {
        let moves = scenario == Scenario::Moves;
        Self {
            nodes: match scenario {
                Scenario::Moves => 5,
                Scenario::Damage => 4,
                _ => 3,
            },
            partitions: 3,
            singles: u32::from(!matches!(scenario, Scenario::Damage | Scenario::Founding)),
            faults_ms: 30_000,
            classes: Class::of(scenario),
            pause_ms_max: 3_500,
            episodes: usize::from(moves) * 2,
            journal_file_kib: 256,
            segment_kib: 16,
            tail_kib: 16_384,
            producers: 2,
            batch_pause_ms_max: 60,
            batch_records_max: 4,
            value_bytes_max: 2_000,
            strange_times: 0,
        }
    }
}
