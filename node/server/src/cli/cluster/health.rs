//! `flotilla cluster health`: what is wrong, and an exit code for scripts and probes.

use std::collections::{BTreeMap, BTreeSet};

use flotilla_client::api;
use serde::Serialize;

use crate::cli::exit::CliError;
use crate::cli::global::Global;
use crate::cli::node::view::stuck;
use crate::cli::output::{count, print};

/// Lines printed for people; programs get all.
const LINES_MAX: usize = 50;

#[derive(Debug, Serialize)]
struct Health {
    healthy: bool,
    problems: Vec<Problem>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Problem {
    kind: Kind,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partition: Option<u32>,
    message: String,
    /// Problems of the same cause are one line for people: what is said of all of them together.
    #[serde(skip)]
    of_many: Option<String>,
}

/// Stable words for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    NoControllerLeader,
    NodeOffline,
    NodeCannotLeave,
    /// It is linked, and does not say whether anything is wrong.
    NodeSilent,
    /// Something on a node is in trouble, and it says so itself.
    NodeTrouble,
    PartitionLeaderless,
    PartitionUnderReplicated,
}

pub async fn run(global: &Global) -> Result<(), CliError> {
    let (client, cluster) = global.described_cluster().await?;
    // The counts are cheap; which partitions they are is asked only when there are any.
    let unhealthy = if cluster.leaderless_partitions + cluster.under_replicated_partitions == 0 {
        Vec::new()
    } else {
        client.list_partitions(api::ListPartitionsRequest { topic: None, unhealthy: true }).await?.partitions
    };
    let problems = problems(&cluster, &unhealthy);
    let count = problems.len();
    print(global.output, &Health { healthy: problems.is_empty(), problems }, |health, _| text(health, &cluster))?;
    match count {
        0 => Ok(()),
        1 => Err(CliError::Failed("the cluster is not healthy: 1 problem".to_owned())),
        count => Err(CliError::Failed(format!("the cluster is not healthy: {count} problems"))),
    }
}

fn text(health: &Health, cluster: &api::DescribeClusterResponse) -> String {
    if health.healthy {
        let nodes = count(cluster.nodes.len() as u64, "node");
        return format!("healthy: {nodes}, {}", count(cluster.partition_count, "partition"));
    }
    let mut lines: Vec<String> = Vec::new();
    let mut causes: BTreeMap<&str, Vec<&Problem>> = BTreeMap::new();
    for problem in &health.problems {
        match &problem.of_many {
            Some(cause) => causes.entry(cause).or_default().push(problem),
            None => lines.push(problem.message.clone()),
        }
    }
    let together = causes.into_iter().map(|(cause, problems)| match problems.as_slice() {
        [one] => one.message.clone(),
        many => format!("{} partitions {cause} (flotilla partition list --unhealthy shows them)", many.len()),
    });
    lines.extend(together);
    let more = lines.len().saturating_sub(LINES_MAX);
    lines.truncate(LINES_MAX);
    if more > 0 {
        lines.push(format!("and {more} more: -o json shows all"));
    }
    lines.join("\n")
}

fn problems(cluster: &api::DescribeClusterResponse, unhealthy: &[api::TopicPartition]) -> Vec<Problem> {
    let of = |kind, node_id, message| Problem { kind, node_id, topic: None, partition: None, message, of_many: None };
    let controller = (cluster.controller_leader.is_none()).then(|| {
        let message = "the controller has no leader: topics and nodes cannot be changed until a majority of its voters is online";
        of(Kind::NoControllerLeader, None, message.to_owned())
    });
    let offline = cluster.nodes.iter().filter(|node| !node.online).map(|node| {
        let named = format!("node {} ({}) is offline: start it again", node.node_id, node.address);
        let message = match cluster.controller_leader {
            Some(_) => format!("{named}, or replace it with flotilla node remove {}", node.node_id),
            None => named,
        };
        of(Kind::NodeOffline, Some(node.node_id), message)
    });
    let stuck =
        cluster.nodes.iter().filter_map(|node| Some(of(Kind::NodeCannotLeave, Some(node.node_id), stuck(cluster, node)?)));
    let silent = cluster.silent_nodes.iter().map(|node_id| {
        let message = format!("node {node_id} is there and does not answer: see to its process and its disk");
        of(Kind::NodeSilent, Some(*node_id), message)
    });
    let troubles = cluster.troubles.iter().map(trouble);
    controller
        .into_iter()
        .chain(offline)
        .chain(silent)
        .chain(stuck)
        .chain(troubles)
        .chain(unhealthy.iter().filter_map(partition_problem))
        .collect()
}

fn trouble(trouble: &api::NodeTrouble) -> Problem {
    let api::NodeTrouble { node_id, message, topic, partition, .. } = trouble;
    let subject = match (topic, partition) {
        (Some(topic), Some(partition)) => format!("partition {partition} of topic {topic}"),
        _ => trouble.subject.clone(),
    };
    Problem {
        kind: Kind::NodeTrouble,
        node_id: Some(*node_id),
        topic: topic.clone(),
        partition: *partition,
        message: format!("node {node_id}, {subject}: {message}"),
        of_many: None,
    }
}

fn partition_problem(of: &api::TopicPartition) -> Option<Problem> {
    let partition = of.partition.as_ref()?;
    let list = |nodes: &[u64]| {
        let nodes: BTreeSet<&u64> = nodes.iter().collect();
        nodes.into_iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
    };
    let missing: Vec<u64> = partition.replicas.iter().copied().filter(|node| !partition.in_sync.contains(node)).collect();
    let replicas = list(&partition.replicas);
    let (kind, (is, are), cause) = match partition.leader {
        None => {
            let cause = match partition.replicas.len() {
                _ if !of.target.is_empty() => "no leader: it moves, and the nodes on both ends of that must be online".to_owned(),
                1 => format!("no leader: node {replicas} must be online"),
                _ => format!("no leader: a majority of nodes {replicas} must be online"),
            };
            (Kind::PartitionLeaderless, ("has", "have"), cause)
        }
        Some(_) if partition.in_sync.len() * 2 <= partition.replicas.len() => {
            let cause = format!("no writes: a majority of nodes {replicas} must be online and up to date");
            (Kind::PartitionUnderReplicated, ("takes", "take"), cause)
        }
        Some(_) if !missing.is_empty() => {
            let cause = format!("under-replicated: behind or offline on node {}", list(&missing));
            (Kind::PartitionUnderReplicated, ("is", "are"), cause)
        }
        Some(_) => return None,
    };
    Some(Problem {
        kind,
        node_id: None,
        topic: Some(of.topic.clone()),
        partition: Some(partition.partition),
        message: format!("partition {} of topic {} {is} {cause}", partition.partition, of.topic),
        of_many: Some(format!("{are} {cause}")),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    fn node(node_id: u64, online: bool) -> api::Node {
        api::Node { node_id, address: "127.0.0.1:1".to_owned(), online, ..api::Node::default() }
    }

    fn cluster(controller_leader: Option<u64>, nodes: Vec<api::Node>) -> api::DescribeClusterResponse {
        api::DescribeClusterResponse { controller_leader, nodes, ..api::DescribeClusterResponse::default() }
    }

    fn partition(number: u32, leader: Option<u64>, in_sync: &[u64]) -> api::TopicPartition {
        let replicas = vec![1, 2, 3];
        let partition =
            api::Partition { partition: number, leader, replicas, in_sync: in_sync.to_vec(), ..api::Partition::default() };
        api::TopicPartition { topic: "t".to_owned(), partition: Some(partition), target: vec![] }
    }

    #[test]
    fn nothing_is_wrong() {
        // A move under way is no problem.
        let moving = api::TopicPartition { target: vec![4, 2, 3], ..partition(0, Some(1), &[1, 2, 3]) };
        assert_eq!(problems(&cluster(Some(1), vec![node(1, true)]), &[moving]), []);
    }

    #[test]
    fn everything_wrong_is_named() {
        let unhealthy = [partition(0, None, &[]), partition(1, Some(1), &[1, 3]), partition(2, Some(1), &[1, 2, 3])];
        let found = problems(&cluster(None, vec![node(1, true), node(2, false)]), &unhealthy);
        let kinds: Vec<Kind> = found.iter().map(|problem| problem.kind).collect();
        let expected = [Kind::NoControllerLeader, Kind::NodeOffline, Kind::PartitionLeaderless, Kind::PartitionUnderReplicated];
        assert_eq!(kinds, expected);
        assert!(found[1].message.starts_with("node 2 (127.0.0.1:1) is offline"), "{}", found[1].message);
        assert!(found[2].message.starts_with("partition 0 of topic t has no leader"), "{}", found[2].message);
        assert!(found[3].message.ends_with("on node 2"), "{}", found[3].message);
        let shown = serde_json::to_value(&found[3]).unwrap();
        assert_eq!((&shown["kind"], &shown["partition"]), (&"partition_under_replicated".into(), &1.into()));
    }

    #[test]
    fn what_the_nodes_say_themselves_is_told() {
        let of_partition = api::NodeTrouble {
            node_id: 2,
            subject: "retention of group 7".to_owned(),
            message: "no space".to_owned(),
            topic: Some("t".to_owned()),
            partition: Some(3),
            ..api::NodeTrouble::default()
        };
        let of_node =
            api::NodeTrouble { subject: "the journal".to_owned(), topic: None, partition: None, ..of_partition.clone() };
        let described = api::DescribeClusterResponse {
            troubles: vec![of_partition, of_node],
            silent_nodes: vec![3],
            ..cluster(Some(1), vec![node(1, true)])
        };
        let found = problems(&described, &[]);
        let kinds: Vec<_> = found.iter().map(|problem| (problem.kind, problem.node_id)).collect();
        assert_eq!(kinds, [(Kind::NodeSilent, Some(3)), (Kind::NodeTrouble, Some(2)), (Kind::NodeTrouble, Some(2))]);
        assert_eq!(found[1].message, "node 2, partition 3 of topic t: no space");
        assert_eq!(found[2].message, "node 2, the journal: no space");
    }

    #[test]
    fn a_node_that_cannot_leave_is_named() {
        let with = |node, state: api::NodeState| api::Node { state: state.into(), replicas: 3, ..node };
        let nodes = vec![
            with(node(1, true), api::NodeState::Active),
            with(node(2, true), api::NodeState::Active),
            with(node(3, true), api::NodeState::Leaving),
        ];
        let mut described = api::DescribeClusterResponse { replicas_max: 3, ..cluster(Some(1), nodes) };
        let found = problems(&described, &[]);
        assert_eq!(
            found.iter().map(|problem| (problem.kind, problem.node_id)).collect::<Vec<_>>(),
            [(Kind::NodeCannotLeave, Some(3))]
        );
        described.replicas_max = 2;
        assert_eq!(problems(&described, &[]), []);
    }

    #[test]
    fn people_do_not_get_a_flood() {
        let mut unhealthy: Vec<_> = (0..60).map(|number| partition(number, None, &[])).collect();
        unhealthy.push(partition(60, Some(1), &[1, 2]));
        let described = cluster(Some(1), (1..=60).map(|node_id| node(node_id, false)).collect());
        let shown = |described: &_, unhealthy: &[_]| {
            text(&Health { healthy: false, problems: problems(described, unhealthy) }, described)
        };
        let lines = shown(&described, &unhealthy);
        assert_eq!(lines.lines().count(), LINES_MAX + 1);
        assert!(lines.contains("and 12 more"), "{lines}");
        let lines = shown(&cluster(Some(1), vec![]), &unhealthy);
        assert_eq!(lines.lines().count(), 2, "{lines}");
        assert!(lines.contains("60 partitions have no leader: a majority of nodes 1, 2, 3 must be online"), "{lines}");
        assert!(lines.contains("partition 60 of topic t is under-replicated: behind or offline on node 3"), "{lines}");
    }
}
