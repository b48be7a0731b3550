//! Faults that belong together: what one of them makes possible, the next one needs. What happens is fixed; to whom, when
//! and for how long is not.

use super::generate::{any_node, any_op, between, creation, lasting, movable, shuffled};
use super::{Fault, Planned, Shape};
use crate::random::Random;
use crate::sim::disk::{DiskError, Op, Place, Rule};

type Episode = fn(&Shape, &mut Random) -> Vec<Planned>;

/// Episodes, and the nodes that they need at least.
const EPISODES: &[(u64, Episode)] = &[
    (5, exile),
    (4, away_and_back),
    (4, missed_everything),
    (3, restart_fails),
    (3, start_fails),
    (3, deletion_is_cut_short),
    (3, leader_leaps),
    (3, creation_fails),
];

/// One episode, at some time.
pub(super) fn choose(shape: &Shape, random: &mut Random) -> Vec<Planned> {
    let fitting: Vec<Episode> = EPISODES.iter().filter(|(nodes, _)| *nodes <= shape.nodes).map(|(_, episode)| *episode).collect();
    let Some(episode) = random.pick(&fitting).copied() else { return Vec::new() };
    let mut planned = episode(shape, random);
    let from = random.next_u64() % (shape.faults_ms / 3).max(1);
    planned.iter_mut().for_each(|planned| planned.at_ms += from);
    planned
}

/// Faults one after the other.
#[derive(Default)]
struct Story {
    now_ms: u64,
    told: Vec<Planned>,
}

impl Story {
    fn then(&mut self, after_ms: u64, lasts_ms: u64, fault: Fault) {
        self.now_ms += after_ms;
        self.told.push(Planned { at_ms: self.now_ms, lasts_ms, fault });
    }

    /// Two nodes do not reach each other from now on until `until_ms`.
    fn apart(&mut self, one: u64, other: u64, until_ms: u64) {
        let lasts_ms = until_ms.saturating_sub(self.now_ms);
        self.told.push(Planned { at_ms: self.now_ms, lasts_ms, fault: Fault::Cut { one, other } });
    }
}

/// A leader is cut off while its partition moves away from it, and is not told; one of those that followed it forgets it
/// all, and is the first whom it reaches again.
fn exile(shape: &Shape, random: &mut Random) -> Vec<Planned> {
    let [a, b, c, d, e] = *shuffled(shape, random).get(..5).unwrap_or_default() else { return Vec::new() };
    let partition = random.below(shape.partitions.max(1) as usize);
    let mut story = Story::default();
    story.then(0, 0, Fault::Move { partition, to: vec![a, b, c, d, e] });
    let led_at = between(random, (2_500, 4_000));
    let cut_at = led_at + between(random, (500, 1_500));
    let moved_at = cut_at + between(random, (1_500, 4_000));
    let met_at = moved_at + between(random, (2_500, 4_500));
    let back_at = met_at + between(random, (100, 1_500));
    let end = back_at + between(random, (3_000, 8_000));
    story.now_ms = led_at - 300;
    // It leads in a term in which it has not heard from c.
    story.apart(a, c, met_at);
    story.then(300, 0, Fault::Lead { partition, node: a });
    story.now_ms = cut_at;
    [b, d, e].into_iter().for_each(|other| story.apart(a, other, end));
    story.now_ms = moved_at;
    story.then(0, 0, Fault::Move { partition, to: vec![b, d, e, a, c] });
    let leader = random.one_of([b, d, e]);
    story.then(1_500, 0, Fault::Lead { partition, node: leader });
    story.now_ms = met_at;
    story.apart(leader, c, end);
    story.now_ms = back_at;
    story.then(0, 0, Fault::Move { partition, to: vec![d, e, c, b, a] });
    story.told
}

/// A replica moves away and comes back, more than once, while those who come back do not reach some others.
fn away_and_back(shape: &Shape, random: &mut Random) -> Vec<Planned> {
    let (partition, home) = (movable(shape, random), shuffled(shape, random));
    let mut story = Story::default();
    story.then(0, 0, Fault::Move { partition, to: home.clone() });
    for _ in 0..1 + random.below(3) {
        let mut away = home.clone();
        away.rotate_left(1 + random.below(home.len() - 1));
        story.then(between(random, (800, 4_000)), 0, Fault::Move { partition, to: away });
        for _ in 0..1 + random.below(2) {
            let nodes = shuffled(shape, random);
            if let [one, other, ..] = *nodes {
                story.then(between(random, (0, 1_500)), lasting(random), Fault::Cut { one, other });
            }
        }
        story.then(between(random, (500, 4_000)), 0, Fault::Move { partition, to: home.clone() });
    }
    story.told
}

/// A node is down while everything that it had moves away from it and back.
fn missed_everything(shape: &Shape, random: &mut Random) -> Vec<Planned> {
    let (partition, mut home) = (movable(shape, random), shuffled(shape, random));
    let mut story = Story::default();
    story.then(0, 0, Fault::Move { partition, to: home.clone() });
    let Some(node) = home.first().copied() else { return Vec::new() };
    let lasts_ms = between(random, (6_000, 20_000));
    let fault = if random.below(2) == 0 { Fault::Kill { node } } else { Fault::Isolate { node } };
    story.then(between(random, (1_500, 3_000)), lasts_ms, fault);
    home.rotate_left(1);
    story.then(between(random, (500, 3_000)), 0, Fault::Move { partition, to: home.clone() });
    home.rotate_right(1);
    story.then(between(random, (2_000, 6_000)), 0, Fault::Move { partition, to: home });
    story.told
}

/// A group's core dies of an error that it cannot go on with, and its restart meets another one: at the same time, or one
/// that its log met long before, when records were given up.
fn restart_fails(shape: &Shape, random: &mut Random) -> Vec<Planned> {
    let node = any_node(shape, random);
    let (mut story, mut home) = (Story::default(), shuffled(shape, random));
    home.retain(|other| *other != node);
    home.insert(0, node);
    let gives_up = random.below(2) == 0;
    // The last one is the topic of which little stays.
    let partition = if gives_up { (shape.partitions + shape.singles) as usize } else { movable(shape, random) };
    story.then(0, 0, Fault::Move { partition, to: home.clone() });
    story.then(1_500, 0, Fault::Lead { partition, node });
    let (op, place, error) = if gives_up {
        (random.one_of([Op::Open, Op::Sync, Op::Rename, Op::Write]), Place::Marks, DiskError::Enospc)
    } else {
        (random.one_of([Op::Sync, Op::Write, Op::Open]), Place::Segments, DiskError::Eio)
    };
    let (after, times) = (random.below(3) as u32, random.one_of([1, 2, 10]));
    let other = Rule { op, place, error: Some(error), after, times };
    let deadly = Rule {
        op: Op::Read,
        place: Place::Segments,
        error: Some(DiskError::Eio),
        after: random.below(3) as u32,
        times: random.one_of([1, 3, 12]),
    };
    let lasts_ms = between(random, (5_000, 15_000));
    let pause = if gives_up { between(random, (2_000, 5_000)) } else { random.next_u64() % 100 };
    story.then(500, lasts_ms, Fault::DiskFails { node, rule: other });
    story.then(pause, lasts_ms, Fault::DiskFails { node, rule: deadly });
    // What others lack is read from segments.
    home.rotate_left(1);
    story.then(random.next_u64() % 500, 0, Fault::Move { partition, to: home });
    story.then(between(random, (1_500, 4_000)), 0, creation(shape, random));
    story.told
}

/// A process ends, and the next one meets errors when it starts.
fn start_fails(shape: &Shape, random: &mut Random) -> Vec<Planned> {
    let node = any_node(shape, random);
    let mut story = Story::default();
    for _ in 0..1 + random.below(2) {
        let op = if random.below(2) == 0 { Op::Read } else { any_op(random) };
        let place = random.one_of([Place::Journal, Place::Journal, Place::Segments, Place::Marks]);
        let error = random.one_of([DiskError::Eio, DiskError::Eio, DiskError::Emfile, DiskError::Eintr]);
        let below = random.one_of([1, 4, 40, 400]);
        let after = random.below(below) as u32;
        let rule = Rule { op, place, error: Some(error), after, times: random.one_of([1, 1, 10]) };
        let down_ms = between(random, (100, 1_500));
        story.then(between(random, (500, 5_000)), down_ms, Fault::Kill { node });
        let fault = if random.below(3) == 0 { Fault::UnreadableTail { node } } else { Fault::DiskFails { node, rule } };
        story.then(50, down_ms + between(random, (500, 4_000)), fault);
    }
    story.told
}

/// A replica's data is deleted, and that meets an error or the end of the process.
fn deletion_is_cut_short(shape: &Shape, random: &mut Random) -> Vec<Planned> {
    let (partition, mut home) = (movable(shape, random), shuffled(shape, random));
    let mut story = Story::default();
    let topic = random.below(3) as u32;
    let deletes_topic = shape.nodes == 3 || random.below(3) == 0;
    let first = if deletes_topic {
        Fault::CreateTopic { number: topic, replicas: 3 }
    } else {
        Fault::Move { partition, to: home.clone() }
    };
    story.then(0, 0, first);
    let Some(node) = home.first().copied() else { return Vec::new() };
    let op = random.one_of([Op::Remove, Op::Remove, Op::RemoveDir, Op::List, Op::SyncDir]);
    // Segments are removed all the time where little is kept.
    let place = random.one_of([Place::Marks, if op == Op::Remove { Place::Anywhere } else { Place::Marks }]);
    let after = random.below(3) as u32;
    let rule = Rule { op, place, error: Some(DiskError::Eio), after, times: random.one_of([1, 10]) };
    let fault = match random.below(3) {
        0 => Fault::DiskFails { node, rule },
        _ => Fault::DiesDuring { node, op, place, after },
    };
    story.then(between(random, (2_000, 3_500)), between(random, (2_000, 6_000)), fault);
    home.rotate_left(1);
    let last = if deletes_topic { Fault::DeleteTopic { number: topic } } else { Fault::Move { partition, to: home } };
    story.then(200, 0, last);
    story.told
}

/// The clock of a leader leaps by days, and some time later back.
fn leader_leaps(shape: &Shape, random: &mut Random) -> Vec<Planned> {
    let (partition, node) = (movable(shape, random), any_node(shape, random));
    let days = 1 + random.below(40) as i64;
    let mut story = Story::default();
    story.then(0, 0, Fault::Lead { partition, node });
    let off_ms = days * 24 * 3_600_000 * if random.below(4) == 0 { -1 } else { 1 };
    story.then(between(random, (500, 2_000)), between(random, (2_000, 15_000)), Fault::ClockJump { node, off_ms });
    story.told
}

/// A new group meets an error on one of its nodes.
fn creation_fails(shape: &Shape, random: &mut Random) -> Vec<Planned> {
    let node = any_node(shape, random);
    let op = random.one_of([Op::Open, Op::CreateDir, Op::SyncDir, Op::List, Op::Sync, Op::Write]);
    let rule = Rule {
        op,
        place: Place::Marks,
        error: Some(DiskError::Eio),
        after: random.below(3) as u32,
        times: random.one_of([1, 10]),
    };
    let mut story = Story::default();
    story.then(0, between(random, (2_000, 6_000)), Fault::DiskFails { node, rule });
    story.then(100, 0, creation(shape, random));
    story.told
}
