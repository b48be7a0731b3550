//! Replicas for new partitions.

use std::collections::BTreeSet;

use super::PlanError;
use super::nodes::Nodes;
use crate::controller::image::Image;

/// The replicas of `count` new partitions, the preferred leader first: on active nodes, spread over racks first, then on
/// the nodes with the fewest replicas; leaders on the nodes that lead the fewest. Active nodes that are not `online` get
/// some only if the others are too few. The same image gives the same answer.
///
/// # Errors
/// If there are fewer active nodes than copies.
pub fn place(image: &Image, online: &BTreeSet<u64>, replication_factor: u32, count: usize) -> Result<Vec<Vec<u64>>, PlanError> {
    let mut nodes = Nodes::new(image, Some(online));
    if nodes.taking_part().count() < replication_factor as usize {
        nodes = Nodes::new(image, None);
    }
    let active = nodes.taking_part().count();
    if active < replication_factor as usize {
        return Err(PlanError::TooFewNodes { replication_factor, active });
    }
    let first = image.partition_count();
    let mut placed: Vec<Vec<u64>> =
        (first..first + count).map(|salt| place_one(&mut nodes, replication_factor, salt as u64)).collect();
    while balance_leaders(&mut nodes, &mut placed) {}
    Ok(placed)
}

fn place_one(nodes: &mut Nodes, replication_factor: u32, salt: u64) -> Vec<u64> {
    let mut members: Vec<u64> = Vec::with_capacity(replication_factor as usize);
    for _ in 0..replication_factor {
        members.extend(nodes.best(&members, salt).map(|node| node.node_id));
    }
    let replicas = nodes.led(members, None);
    nodes.add(&replicas);
    replicas
}

/// Who leads was chosen one by one, not knowing the next. Whether that changed; it ends, because each change makes two nodes
/// more alike.
fn balance_leaders(nodes: &mut Nodes, placed: &mut [Vec<u64>]) -> bool {
    let mut changed = false;
    for replicas in placed {
        let better = nodes.led(replicas.clone(), replicas.first().copied());
        if better != *replicas {
            nodes.replace(replicas.iter().copied(), &better);
            *replicas = better;
            changed = true;
        }
    }
    changed
}
