//! Where replicas should be: placement of new partitions, and moves until nothing is left to move.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::Numbers;
use common::cluster::{Cluster, DRAINING, LEAVING};
use flotilla_machines::controller::plan::{PlanError, futile_moves, moves, place};
use flotilla_machines::controller::{Image, NODES_MAX, PARTITIONS_MAX, PARTITIONS_PER_TOPIC_MAX};
use flotilla_proto::internal::v1;
use flotilla_proto::internal::v1::controller_command::Command;
use proptest::prelude::*;

/// Starts what the plan says and finishes it, until the plan is empty. The number of replicas that were copied.
fn settle(cluster: &mut Cluster, online: &BTreeSet<u64>, at_most: usize) -> usize {
    let mut copied = 0;
    for _ in 0..10_000 {
        let planned = moves(&cluster.image(), online, at_most);
        if planned.is_empty() {
            return copied;
        }
        for (group_id, target) in planned {
            let image = cluster.image();
            let before: &Vec<u64> = &image.partition(group_id).unwrap().nodes().collect();
            copied += target.iter().filter(|node_id| !before.contains(node_id)).count();
            cluster.start(group_id, target).unwrap();
        }
        for group_id in cluster.moving() {
            cluster.finish(group_id);
        }
    }
    panic!("the plan never ends");
}

/// Most and fewest.
fn range(counts: impl Iterator<Item = usize>) -> (usize, usize) {
    let counts: Vec<usize> = counts.collect();
    (*counts.iter().max().unwrap(), *counts.iter().min().unwrap())
}

fn assert_even(cluster: &Cluster, nodes: &[u64]) {
    let (most, fewest) = range(nodes.iter().map(|node_id| cluster.replicas(*node_id)));
    assert!(most - fewest <= 1, "{fewest} to {most} replicas");
    let (most, fewest) = range(nodes.iter().map(|node_id| cluster.leaders(*node_id)));
    assert!(most - fewest <= 2, "{fewest} to {most} leaders");
}

fn rack(image: &Image, node_id: u64) -> String {
    image.node(node_id).unwrap().rack.clone()
}

/// Replicas by rack, as numbers in ascending order.
fn by_rack(image: &Image, replicas: &[u64]) -> Vec<usize> {
    let mut racks: BTreeMap<String, usize> = BTreeMap::new();
    replicas.iter().for_each(|node_id| *racks.entry(rack(image, *node_id)).or_default() += 1);
    let mut counts: Vec<usize> = racks.into_values().collect();
    counts.sort_unstable();
    counts
}

#[test]
fn who_is_down_gets_new_partitions_only_if_the_others_are_too_few() {
    let mut cluster = Cluster::with_nodes(4);
    let online = BTreeSet::from([1, 3, 4]);
    let placed = place(&cluster.image(), &online, 3, 20).unwrap();
    assert!(placed.iter().flatten().all(|node_id| online.contains(node_id)), "{placed:?}");
    cluster.create(placed);
    let needed = place(&cluster.image(), &online, 4, 1).unwrap();
    assert!(needed[0].contains(&2), "{needed:?}");
}

#[test]
fn new_partitions_are_even_over_nodes() {
    for (nodes, replication_factor, partitions) in [(1, 1, 10), (3, 3, 12), (4, 3, 100), (5, 2, 33), (7, 1, 100), (9, 3, 1_000)] {
        let mut cluster = Cluster::with_nodes(nodes);
        // In topics of one partition and of many.
        for _ in 0..3 {
            cluster.create(place(&cluster.image(), &cluster.everyone(), replication_factor, 1).unwrap());
        }
        cluster.create(place(&cluster.image(), &cluster.everyone(), replication_factor, partitions).unwrap());
        assert_even(&cluster, &(1..=nodes).collect::<Vec<_>>());
        let online = cluster.everyone();
        assert_eq!(settle(&mut cluster, &online, 10), 0, "{nodes} nodes: what was placed stays");
    }
}

#[test]
fn the_other_replicas_of_a_node_are_on_many_nodes() {
    let mut cluster = Cluster::with_nodes(9);
    cluster.create(place(&cluster.image(), &cluster.everyone(), 3, 300).unwrap());
    let partitions = cluster.partitions();
    let with_first = partitions.iter().filter(|partition| partition.nodes().any(|has| has == 1));
    let others: BTreeSet<u64> = with_first.flat_map(|partition| partition.nodes()).collect();
    assert_eq!(others.len(), 9);
}

#[test]
fn new_partitions_are_spread_over_racks_first() {
    let mut cluster = Cluster::with_racks(&["a", "a", "a", "b", "b", "c"]);
    cluster.create(place(&cluster.image(), &cluster.everyone(), 3, 60).unwrap());
    let image = cluster.image();
    for partition in cluster.partitions() {
        assert_eq!(by_rack(&image, &partition.nodes().collect::<Vec<_>>()), [1, 1, 1]);
    }
    assert_eq!([1, 2, 3, 4, 5, 6].map(|node_id| cluster.replicas(node_id)), [20, 20, 20, 30, 30, 60]);
    let online = cluster.everyone();
    assert_eq!(settle(&mut cluster, &online, 10), 0);

    cluster.create(place(&image, &cluster.everyone(), 5, 10).unwrap());
    let image = cluster.image();
    for partition in &cluster.partitions()[60..] {
        assert_eq!(by_rack(&image, &partition.nodes().collect::<Vec<_>>()), [1, 2, 2]);
    }
}

#[test]
fn new_partitions_are_on_active_nodes_only() {
    let mut cluster = Cluster::with_nodes(5);
    cluster.set_state(2, DRAINING);
    cluster.set_state(3, LEAVING);
    cluster.create(place(&cluster.image(), &cluster.everyone(), 3, 10).unwrap());
    assert_eq!([1, 2, 3, 4, 5].map(|node_id| cluster.replicas(node_id)), [10, 0, 0, 10, 10]);
    let refused = PlanError::TooFewNodes { replication_factor: 4, active: 3 };
    assert_eq!(place(&cluster.image(), &cluster.everyone(), 4, 1), Err(refused));
    assert_eq!(
        place(&Image::default(), &BTreeSet::new(), 1, 1),
        Err(PlanError::TooFewNodes { replication_factor: 1, active: 0 })
    );
}

#[test]
fn a_node_that_joins_gets_its_share_and_no_replica_moves_twice() {
    let mut cluster = Cluster::with_nodes(3);
    (0..10).for_each(|_| cluster.create(place(&cluster.image(), &cluster.everyone(), 3, 12).unwrap()));
    cluster.register(4, "");
    let online = cluster.everyone();
    assert_eq!(moves(&cluster.image(), &BTreeSet::from([1, 2, 3]), 10), [], "it is not online yet");
    let copied = settle(&mut cluster, &online, 5);
    assert_eq!(copied, 120 * 3 / 4);
    assert_even(&cluster, &[1, 2, 3, 4]);
    let image = cluster.image();
    for topic in image.topics() {
        let on_new = topic.partitions.iter().filter(|partition| partition.nodes().any(|has| has == 4)).count();
        assert!((3..12).contains(&on_new), "{on_new} of 12 partitions of one topic on the new node");
    }
}

#[test]
fn a_node_that_leaves_gives_everything_away_and_nothing_else_moves() {
    let mut cluster = Cluster::with_nodes(4);
    cluster.create(place(&cluster.image(), &cluster.everyone(), 3, 40).unwrap());
    let held = cluster.replicas(2);
    cluster.set_state(2, LEAVING);
    // Whether it runs or not.
    let online = BTreeSet::from([1, 3, 4]);
    assert_eq!(settle(&mut cluster, &online, 3), held);
    assert_eq!(cluster.replicas(2), 0);
    assert_even(&cluster, &[1, 3, 4]);
    cluster.run(Command::RemoveNode(v1::RemoveNode { node_id: 2 })).unwrap();

    // Three nodes for three copies: nobody can take over, until somebody comes.
    cluster.set_state(1, LEAVING);
    assert_eq!(settle(&mut cluster, &BTreeSet::from([1, 3, 4]), 3), 0);
    cluster.register(5, "");
    assert_eq!(settle(&mut cluster, &BTreeSet::from([1, 3, 4, 5]), 3), 40);
    assert_eq!((cluster.replicas(1), cluster.replicas(5)), (0, 40));
}

#[test]
fn replicas_go_to_a_new_rack_when_all_racks_are_known() {
    let mut cluster = Cluster::with_racks(&["a", "b", "b"]);
    cluster.create(place(&cluster.image(), &cluster.everyone(), 3, 12).unwrap());
    cluster.register(4, "");
    cluster.set_state(4, DRAINING);
    cluster.register(5, "c");
    let online = cluster.everyone();
    let spread = |cluster: &Cluster| {
        let image = cluster.image();
        cluster
            .partitions()
            .iter()
            .filter(|partition| by_rack(&image, &partition.nodes().collect::<Vec<_>>()) == [1, 1, 1])
            .count()
    };
    settle(&mut cluster, &online, 4);
    let before = spread(&cluster);
    assert!(before < 12, "a node does not say where it stands: only balance moves replicas");
    cluster.register(4, "b");
    settle(&mut cluster, &online, 4);
    assert_eq!(spread(&cluster), 12);
}

#[test]
fn no_partition_loses_a_rack_for_balance() {
    let mut cluster = Cluster::with_racks(&["a", "b"]);
    cluster.create(place(&cluster.image(), &cluster.everyone(), 2, 20).unwrap());
    cluster.register(3, "b");
    let online = cluster.everyone();
    assert_eq!(settle(&mut cluster, &online, 4), 10);
    assert_eq!([1, 2, 3].map(|node_id| cluster.replicas(node_id)), [20, 10, 10]);
}

#[test]
fn a_partition_without_a_majority_is_left_alone() {
    let mut cluster = Cluster::with_nodes(5);
    cluster.create(vec![vec![1, 2, 3], vec![1, 4, 5], vec![4, 5, 1]]);
    cluster.set_state(1, LEAVING);
    let online = BTreeSet::from([3, 4, 5]);
    let planned = moves(&cluster.image(), &online, 10);
    assert_eq!(planned.iter().map(|(group_id, _)| *group_id).collect::<BTreeSet<_>>(), BTreeSet::from([2, 3]));
    for (group_id, target) in planned {
        assert!(target.contains(&3), "node 2 is not online");
        cluster.start(group_id, target).unwrap();
    }
}

#[test]
fn moves_under_way_take_room_as_long_as_they_go_on() {
    let mut cluster = Cluster::with_nodes(5);
    cluster.create(vec![vec![1, 2, 3]; 10]);
    cluster.start(1, vec![1, 2, 4]).unwrap();
    cluster.start(2, vec![1, 2, 5]).unwrap();
    let everyone = cluster.everyone();
    assert_eq!(moves(&cluster.image(), &everyone, 2), []);
    assert_eq!(moves(&cluster.image(), &everyone, 3).len(), 1);
    // Node 5 cannot receive.
    let online = BTreeSet::from([1, 2, 3, 4]);
    assert_eq!(moves(&cluster.image(), &online, 2).len(), 1);
    // None of the partitions has a majority.
    assert_eq!(moves(&cluster.image(), &BTreeSet::from([1, 4, 5]), 2), []);
}

#[test]
fn moves_to_a_node_that_leaves_are_futile() {
    let mut cluster = Cluster::with_nodes(5);
    cluster.create(vec![vec![1, 2, 3]; 3]);
    cluster.start(1, vec![1, 2, 4]).unwrap();
    cluster.start(2, vec![1, 2, 5]).unwrap();
    assert_eq!(futile_moves(&cluster.image()), []);
    cluster.set_state(4, LEAVING);
    cluster.set_state(1, LEAVING);
    cluster.set_state(5, DRAINING);
    assert_eq!(futile_moves(&cluster.image()), [1]);
}

#[test]
fn what_is_taken_back_to_a_node_that_leaves_goes_elsewhere() {
    let mut cluster = Cluster::with_nodes(5);
    cluster.create(vec![vec![1, 2, 3]]);
    cluster.start(1, vec![4, 2, 3]).unwrap();
    cluster.run(Command::CancelMove(v1::CancelMove { group_id: 1 })).unwrap();
    let online = BTreeSet::from([2, 4, 5]);
    assert_eq!(moves(&cluster.image(), &online, 8), []);
    // Node 1 is gone for ever: there is no way back. It may be led by those to which it moved.
    cluster.set_state(1, LEAVING);
    let (group_id, target) = moves(&cluster.image(), &online, 8).remove(0);
    assert!(group_id == 1 && !target.contains(&1), "{target:?}");
    cluster.start(group_id, target).unwrap();
    cluster.finish(group_id);
    cluster.run(Command::RemoveNode(v1::RemoveNode { node_id: 1 })).unwrap();
}

#[test]
fn leaders_are_balanced_without_copying_anything() {
    let mut cluster = Cluster::with_nodes(3);
    cluster.create(vec![vec![1, 2, 3]; 31]);
    let online = cluster.everyone();
    assert_eq!(settle(&mut cluster, &online, 4), 0);
    assert_even(&cluster, &[1, 2, 3]);
    // A node that is away keeps its partitions for when it is back.
    let before = cluster.partitions();
    assert_eq!(settle(&mut cluster, &BTreeSet::from([1, 2]), 4), 0);
    assert_eq!(cluster.partitions(), before);
}

#[test]
fn the_largest_cluster_is_planned() {
    let mut cluster = Cluster::default();
    let mut numbers = Numbers(7);
    (1..=NODES_MAX as u64).for_each(|node_id| cluster.register(node_id, &format!("rack-{}", node_id % 10)));
    for _ in 0..PARTITIONS_MAX / PARTITIONS_PER_TOPIC_MAX {
        // Crooked: the first nodes of each hundred have everything.
        let replicas = |_| (0..3).map(|at| 1 + at * 100 + numbers.below(30) as u64).collect();
        cluster.create((0..PARTITIONS_PER_TOPIC_MAX).map(replicas).collect());
    }
    cluster.set_state(1, LEAVING);
    let online = cluster.everyone();
    let planned = moves(&cluster.image(), &online, 10_000);
    assert_eq!(planned.len(), 10_000);
    let image = cluster.image();
    let off_leaving = planned.iter().filter(|(group_id, _)| image.partition(*group_id).unwrap().nodes().any(|has| has == 1));
    assert_eq!(off_leaving.count(), cluster.replicas(1).min(10_000));
    assert_eq!(place(&image, &cluster.everyone(), 3, PARTITIONS_PER_TOPIC_MAX).unwrap().len(), PARTITIONS_PER_TOPIC_MAX);
}

/// A cluster as chance would have it: nodes and their racks, states by number, and partitions with 1 to 4 replicas.
#[derive(Debug, Clone)]
struct Chance {
    racks: Vec<String>,
    states: Vec<v1::NodeState>,
    partitions: Vec<Vec<u64>>,
}

fn any_cluster(racks: &'static [&'static str]) -> impl Strategy<Value = Chance> {
    let state = prop_oneof![8 => Just(v1::NodeState::Active), 1 => Just(DRAINING), 2 => Just(LEAVING)];
    let node = (proptest::sample::select(racks).prop_map(str::to_owned), state);
    proptest::collection::vec(node, 1..10).prop_flat_map(|nodes| {
        let ids: Vec<u64> = (1..=nodes.len() as u64).collect();
        let replicas =
            (1..=ids.len().min(4)).prop_flat_map(move |count| proptest::sample::subsequence(ids.clone(), count).prop_shuffle());
        let (racks, mut states): (Vec<String>, Vec<v1::NodeState>) = nodes.into_iter().unzip();
        // The last one is not let go.
        if states.iter().all(|state| *state == LEAVING) {
            states[0] = v1::NodeState::Active;
        }
        proptest::collection::vec(replicas, 1..60).prop_map(move |partitions| Chance {
            racks: racks.clone(),
            states: states.clone(),
            partitions,
        })
    })
}

impl Chance {
    fn cluster(&self) -> Cluster {
        let mut cluster = Cluster::default();
        (1..).zip(&self.racks).for_each(|(node_id, rack)| cluster.register(node_id, rack));
        self.partitions.iter().for_each(|replicas| cluster.create(vec![replicas.clone()]));
        (1..).zip(&self.states).for_each(|(node_id, state)| cluster.set_state(node_id, *state));
        cluster
    }

    fn in_state(&self, state: v1::NodeState) -> Vec<u64> {
        (1..).zip(&self.states).filter(|(_, is)| **is == state).map(|(node_id, _)| node_id).collect()
    }
}

/// Starts and finishes moves in an order of chance, and checks each. Whether it came to rest.
fn run_to_rest(cluster: &mut Cluster, online: &BTreeSet<u64>, at_most: usize, seed: u64) -> Result<(), TestCaseError> {
    let mut numbers = Numbers(seed | 1);
    for _ in 0..5_000 {
        let image = cluster.image();
        let planned = moves(&image, online, at_most);
        prop_assert_eq!(&planned, &moves(&image, online, at_most), "the same question has the same answer");
        for (group_id, target) in planned {
            let before: &Vec<u64> = &image.partition(group_id).unwrap().nodes().collect();
            for joining in target.iter().filter(|node_id| !before.contains(node_id)) {
                prop_assert!(online.contains(joining), "node {} is offline", joining);
            }
            cluster.start(group_id, target).unwrap();
        }
        let moving = cluster.moving();
        prop_assert!(moving.len() <= at_most);
        if moving.is_empty() && moves(&cluster.image(), online, at_most).is_empty() {
            return Ok(());
        }
        for group_id in &moving {
            if numbers.below(3) > 0 {
                cluster.finish(*group_id);
            }
        }
    }
    Err(TestCaseError::fail("the plan never ends"))
}

/// Nothing is left on leaving nodes, where there are enough active ones.
fn check_left(cluster: &Cluster, chance: &Chance) -> Result<(), TestCaseError> {
    let (active, leaving) = (chance.in_state(v1::NodeState::Active), chance.in_state(LEAVING));
    for partition in cluster.partitions() {
        let stuck = partition.nodes().any(|node_id| leaving.contains(&node_id));
        let joinable = active.iter().any(|node_id| !partition.nodes().any(|has| has == *node_id));
        prop_assert!(!stuck || !joinable, "{:?} could leave", partition);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Without racks, plans end where they should from wherever they start.
    #[test]
    fn plans_end_even(chance in any_cluster(&[""]), at_most in 1_usize..8, seed: u64) {
        let mut cluster = chance.cluster();
        let online = cluster.everyone();
        run_to_rest(&mut cluster, &online, at_most, seed)?;
        check_left(&cluster, &chance)?;
        let active = chance.in_state(v1::NodeState::Active);
        if !active.is_empty() {
            let (most, fewest) = range(active.iter().map(|node_id| cluster.replicas(*node_id)));
            prop_assert!(most - fewest <= 1, "{} to {} replicas", fewest, most);
        }
    }

    /// With racks, each partition ends in as many as there are, and the nodes of a rack end even.
    #[test]
    fn plans_end_spread(chance in any_cluster(&["a", "b", "c", "d"]), at_most in 1_usize..8, seed: u64) {
        let mut cluster = chance.cluster();
        let online = cluster.everyone();
        run_to_rest(&mut cluster, &online, at_most, seed)?;
        check_left(&cluster, &chance)?;
        let image = cluster.image();
        let active = chance.in_state(v1::NodeState::Active);
        for partition in cluster.partitions() {
            let members = &partition.nodes().collect::<Vec<_>>();
            let crowd = |node_id: u64| members.iter().filter(|other| rack(&image, **other) == rack(&image, node_id)).count();
            for goes in members.iter().filter(|node_id| active.contains(node_id)) {
                for joins in active.iter().filter(|node_id| !members.contains(node_id)) {
                    prop_assert!(crowd(*goes) <= crowd(*joins) + 1, "{:?}: {} could be {}", partition, goes, joins);
                }
            }
        }
        for own in &active {
            let same = active.iter().filter(|other| rack(&image, **other) == rack(&image, *own));
            let (most, fewest) = range(same.map(|node_id| cluster.replicas(*node_id)));
            prop_assert!(most - fewest <= 1, "{} to {} replicas in one rack", fewest, most);
        }
    }

    /// Whoever is offline, and whether or not all racks are known: plans end, and ask only for what the machine accepts.
    #[test]
    fn plans_end_with_nodes_away(
        chance in any_cluster(&["", "a", "b"]), away in proptest::collection::btree_set(1_u64..10, 0..4), at_most in 1_usize..8, seed: u64,
    ) {
        let mut cluster = chance.cluster();
        let online = cluster.everyone().difference(&away).copied().collect();
        run_to_rest(&mut cluster, &online, at_most, seed)?;
        // What could not go on goes on when they are back.
        let online = cluster.everyone();
        run_to_rest(&mut cluster, &online, at_most, seed)?;
        check_left(&cluster, &chance)?;
    }
}
