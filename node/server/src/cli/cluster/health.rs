//! `flotilla cluster health`: what is wrong, and an exit code for scripts and probes.

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
}

/// Stable words for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    NoControllerLeader,
    NodeOffline,
    NodeCannotLeave,
    PartitionLeaderless,
    PartitionUnderReplicated,
}

pub async fn run(global: &Global) -> Result<(), CliError> {
    let client = global.client().await?;
    let cluster = client.describe_cluster(api::DescribeClusterRequest {}).await?;
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
    let mut lines: Vec<&str> = health.problems.iter().take(LINES_MAX).map(|problem| problem.message.as_str()).collect();
    let more = match health.problems.len().saturating_sub(LINES_MAX) {
        0 => String::new(),
        more => format!("and {more} more: flotilla partition list --unhealthy shows them"),
    };
    lines.extend(Some(more.as_str()).filter(|more| !more.is_empty()));
    lines.join("\n")
}

fn problems(cluster: &api::DescribeClusterResponse, unhealthy: &[api::TopicPartition]) -> Vec<Problem> {
    let none = |kind, message: &str| Problem { kind, node_id: None, topic: None, partition: None, message: message.to_owned() };
    let controller = (cluster.controller_leader.is_none()).then(|| {
        let message = "the controller has no leader: topics and nodes cannot be changed until a majority of its voters is online";
        none(Kind::NoControllerLeader, message)
    });
    let offline = cluster.nodes.iter().filter(|node| !node.online).map(|node| Problem {
        kind: Kind::NodeOffline,
        node_id: Some(node.node_id),
        topic: None,
        partition: None,
        message: match cluster.controller_leader {
            Some(_) => format!(
                "node {} ({}) is offline: start it again, or replace it with flotilla node remove {}",
                node.node_id, node.address, node.node_id
            ),
            None => format!("node {} ({}) is offline: start it again", node.node_id, node.address),
        },
    });
    let stuck = cluster.nodes.iter().filter_map(|node| {
        let message = stuck(cluster, node)?;
        Some(Problem { kind: Kind::NodeCannotLeave, node_id: Some(node.node_id), topic: None, partition: None, message })
    });
    controller.into_iter().chain(offline).chain(stuck).chain(unhealthy.iter().filter_map(partition_problem)).collect()
}

fn partition_problem(of: &api::TopicPartition) -> Option<Problem> {
    let partition = of.partition.as_ref()?;
    let list = |nodes: &[u64]| nodes.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    let missing: Vec<u64> = partition.replicas.iter().copied().filter(|node| !partition.in_sync.contains(node)).collect();
    let named = format!("partition {} of topic {}", partition.partition, of.topic);
    let (kind, message) = match partition.leader {
        None => {
            let replicas = list(&partition.replicas);
            (Kind::PartitionLeaderless, format!("{named} has no leader: a majority of nodes {replicas} must be online"))
        }
        Some(_) if partition.in_sync.len() * 2 <= partition.replicas.len() => {
            let replicas = list(&partition.replicas);
            let message = format!("{named} takes no writes: a majority of nodes {replicas} must be online and up to date");
            (Kind::PartitionUnderReplicated, message)
        }
        Some(_) if !missing.is_empty() => {
            let missing = list(&missing);
            (Kind::PartitionUnderReplicated, format!("{named} is under-replicated: behind or offline on node {missing}"))
        }
        Some(_) => return None,
    };
    Some(Problem { kind, node_id: None, topic: Some(of.topic.clone()), partition: Some(partition.partition), message })
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
        let unhealthy: Vec<_> = (0..60).map(|number| partition(number, None, &[])).collect();
        let described = cluster(Some(1), vec![]);
        let health = Health { healthy: false, problems: problems(&described, &unhealthy) };
        let text = text(&health, &described);
        assert_eq!(text.lines().count(), LINES_MAX + 1);
        assert!(text.contains("and 10 more"), "{text}");
    }
}
