//! What the clocks of a cluster prove, and what they do not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use proptest::prelude::*;

use super::*;

const SECOND_MS: i64 = 1_000;
const HOUR_MS: i64 = 3_600 * SECOND_MS;
const DAY_MS: i64 = 24 * HOUR_MS;
/// When the world begins.
const BEGIN_MS: i64 = 20_000 * DAY_MS;
/// Clocks that are right differ from the true time by this at most.
const RIGHT_MS: i64 = 20 * SECOND_MS;

/// A node and what it hears of the others. All times are milliseconds.
struct World {
    agreement: Agreement,
    members: BTreeSet<u64>,
    uptime_ms: i64,
    /// By how much each node's clock is ahead.
    ahead_ms: BTreeMap<u64, i64>,
    heard: BTreeMap<u64, Heard>,
}

impl World {
    fn new(node_id: u64, nodes: u64) -> Self {
        Self {
            agreement: Agreement::new(node_id),
            members: (1..=nodes).collect(),
            uptime_ms: 0,
            ahead_ms: (1..=nodes).map(|node| (node, 0)).collect(),
            heard: BTreeMap::new(),
        }
    }

    fn true_ms(&self) -> i64 {
        BEGIN_MS + self.uptime_ms
    }

    fn wall_ms(&self, node: u64) -> i64 {
        self.true_ms() + self.ahead_ms[&node]
    }

    fn set(&mut self, node: u64, ahead_ms: i64) {
        self.ahead_ms.insert(node, ahead_ms);
    }

    /// Time passes; then the node hears of some, and looks.
    fn look(&mut self, passed_ms: i64, hears: impl Fn(u64) -> bool) {
        self.uptime_ms += passed_ms;
        let own = self.agreement.node_id;
        for node in self.members.clone().into_iter().filter(|node| *node != own && hears(*node)) {
            self.heard.insert(node, Heard { wall_ms: self.wall_ms(node), uptime_ms: self.uptime_ms });
        }
        let (uptime_ms, wall_ms) = (self.uptime_ms, self.wall_ms(own));
        self.agreement.look(Look { uptime_ms, wall_ms, members: &self.members, heard: &self.heard });
    }

    fn look_often(&mut self, times: usize, hears: impl Fn(u64) -> bool) {
        (0..times).for_each(|_| self.look(SECOND_MS, &hears));
    }

    fn reading(&self) -> Reading {
        self.agreement.reading(self.uptime_ms, self.wall_ms(self.agreement.node_id))
    }

    /// How far the proven time is from the true one.
    fn error_ms(&self) -> Option<i64> {
        self.reading().proven_ms.map(|proven_ms| proven_ms - self.true_ms())
    }

    fn is_wrong(&self, node: u64) -> bool {
        self.agreement.is_wrong(node, self.uptime_ms)
    }
}

fn a_right_clock() -> impl Strategy<Value = i64> {
    -RIGHT_MS..=RIGHT_MS
}

fn any_clock() -> impl Strategy<Value = i64> {
    prop_oneof![a_right_clock(), -DAY_MS..DAY_MS, -20_000 * DAY_MS..100_000 * DAY_MS]
}

/// How long something lasts; who is heard then, by bits.
fn any_step() -> impl Strategy<Value = (i64, u64, i64)> {
    (SECOND_MS..30 * 60 * SECOND_MS, any::<u64>(), any_clock())
}

proptest! {
    /// Whatever one node's clock says, and whoever is heard of: the others go by the true time.
    #[test]
    fn one_wrong_clock_proves_nothing_to_others(
        nodes in 2_u64..8,
        right in proptest::collection::vec(a_right_clock(), 8),
        steps in proptest::collection::vec(any_step(), 1..80),
    ) {
        let mut world = World::new(1, nodes);
        (1..=nodes).for_each(|node| world.set(node, right[node as usize]));
        for (lasts_ms, heard, ahead_ms) in steps {
            world.set(nodes, ahead_ms);
            world.look(lasts_ms, |node| heard >> node & 1 == 1);
            let error_ms = world.error_ms().unwrap_or(0);
            // Two nodes may agree on anything that both say.
            prop_assert!(error_ms.abs() <= AGREE_MS_MAX + RIGHT_MS, "{} ms off", error_ms);
        }
    }

    /// Nor does it to the node itself, once it has heard of the others.
    #[test]
    fn a_wrong_clock_does_not_prove_itself(
        nodes in 3_u64..8,
        steps in proptest::collection::vec((1_i64..40 * HOUR_MS, any::<u64>(), AGREE_MS_MAX + 1..100_000 * DAY_MS), 1..80),
        ahead in any::<bool>(),
    ) {
        let mut world = World::new(1, nodes);
        world.look(SECOND_MS, |_| true);
        for (lasts_ms, heard, off_ms) in steps {
            world.set(1, if ahead { off_ms } else { -off_ms });
            world.look(lasts_ms, |node| heard >> node & 1 == 1);
            prop_assert_eq!(world.error_ms(), Some(0));
        }
    }

    /// Without a majority time goes on by the monotonic clock.
    #[test]
    fn what_is_proven_goes_on_where_nobody_agrees(steps in proptest::collection::vec((1_i64..HOUR_MS, 1_i64..1_000), 1..50)) {
        let mut world = World::new(2, 3);
        world.look(SECOND_MS, |_| true);
        for (lasts_ms, hours) in steps {
            world.set(1, -hours * HOUR_MS);
            world.set(3, hours * HOUR_MS);
            world.look(lasts_ms, |_| true);
            prop_assert_eq!(world.error_ms(), Some(0));
        }
    }

    /// Whatever was before: clocks that agree for a little more than an hour prove the time.
    #[test]
    fn nothing_lives_for_ever(
        nodes in 1_u64..6,
        steps in proptest::collection::vec((any_step(), 1_u64..6), 0..40),
    ) {
        let mut world = World::new(1, nodes);
        for ((lasts_ms, heard, ahead_ms), node) in steps {
            world.set(node.min(nodes), ahead_ms % (20 * DAY_MS));
            world.look(lasts_ms, |node| heard >> node & 1 == 1);
        }
        (1..=nodes).for_each(|node| world.set(node, 0));
        for _ in 0..=61 {
            world.look(60 * SECOND_MS, |_| true);
        }
        prop_assert_eq!(world.error_ms(), Some(0));
        prop_assert_eq!(world.reading().likely_ms, world.true_ms());
        prop_assert_eq!(world.agreement.doubt(world.uptime_ms, world.wall_ms(1)), None);
    }
}

#[test]
fn a_majority_is_believed_at_once_two_at_least() {
    for (nodes, heard, proven) in [(3, 1, true), (3, 0, false), (2, 1, true), (2, 0, false), (5, 2, true), (5, 1, false)] {
        let mut world = World::new(1, nodes);
        world.look(SECOND_MS, |node| node <= 1 + heard);
        assert_eq!(world.error_ms().is_some(), proven, "{heard} of {nodes}");
    }
}

#[test]
fn all_nodes_together_may_be_set_right() {
    let mut world = World::new(1, 3);
    world.look_often(10, |_| true);
    (1..=3).for_each(|node| world.set(node, 7 * DAY_MS));
    let behind_ms = world.true_ms() + 7 * DAY_MS;
    world.look(SECOND_MS, |_| true);
    assert_eq!(world.error_ms(), Some(1_000 * SECOND_MS), "it does not leap");
    assert_eq!(world.reading().likely_ms, behind_ms + SECOND_MS);
    world.look_often(604, |_| true);
    assert_eq!(world.error_ms(), Some(7 * DAY_MS));
    assert!(!world.is_wrong(1));
}

#[test]
fn a_node_on_its_own_that_leaps_is_believed_after_an_hour() {
    let mut world = World::new(1, 1);
    world.look(SECOND_MS, |_| false);
    assert_eq!(world.error_ms(), None, "it has just started: who knows");
    world.look_often(3_600, |_| false);
    assert_eq!(world.error_ms(), Some(0));
    world.set(1, 30 * DAY_MS);
    world.look_often(3_600, |_| false);
    assert_eq!(world.error_ms(), Some(0));
    let doubt = world.agreement.doubt(world.uptime_ms, world.wall_ms(1));
    assert_eq!(doubt, Some(Doubt { ahead_ms: 30 * DAY_MS, by_most: false }));
    assert_eq!(world.reading().likely_ms, world.wall_ms(1), "it may be right: nothing that comes is dated too early");
    assert!(!world.is_wrong(1), "nobody says so");
    // Another leap, and it begins again.
    world.set(1, 31 * DAY_MS);
    world.look_often(3_600, |_| false);
    assert_eq!(world.error_ms(), Some(0));
    world.look_often(2, |_| false);
    assert_eq!(world.error_ms(), Some(2_000 * SECOND_MS));
    world.look_often(45 * 60, |_| false);
    assert_eq!(world.error_ms(), Some(31 * DAY_MS));
}

#[test]
fn a_drifting_clock_is_followed() {
    let mut world = World::new(1, 1);
    world.look_often(3_602, |_| false);
    for hour in 1..1_000 {
        world.set(1, hour * 10 * SECOND_MS);
        world.look(HOUR_MS, |_| false);
        assert_eq!(world.error_ms(), Some(hour * 10 * SECOND_MS));
    }
}

#[test]
fn who_is_wrong_is_known_to_all_and_not_for_a_moment_of_silence() {
    for observer in [1, 3] {
        let mut world = World::new(observer, 3);
        world.look_often(10, |_| true);
        world.set(3, 400 * DAY_MS);
        world.look(SECOND_MS, |_| true);
        assert!(!world.is_wrong(3), "it may be a message that was late");
        world.look_often(5, |_| true);
        assert!(world.is_wrong(3) && !world.is_wrong(1) && !world.is_wrong(2), "seen by {observer}");
        assert_eq!(world.reading(), Reading { proven_ms: Some(world.true_ms()), likely_ms: world.true_ms() });
        world.set(3, 0);
        world.look(SECOND_MS, |_| true);
        assert!(!world.is_wrong(3));
    }
}

#[test]
fn what_was_heard_long_ago_does_not_count() {
    let mut world = World::new(1, 3);
    world.look(SECOND_MS, |node| node == 2);
    world.set(1, HOUR_MS);
    world.set(3, HOUR_MS);
    world.look(HEARD_MS_MAX + 1, |node| node == 3);
    assert_eq!(world.error_ms(), Some(HOUR_MS));
    // Strangers do not, either.
    let mut world = World::new(1, 3);
    world.heard.insert(9, Heard { wall_ms: world.wall_ms(1), uptime_ms: 0 });
    world.look(SECOND_MS, |_| false);
    assert_eq!(world.error_ms(), None);
}
