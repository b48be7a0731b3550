//! `flotilla cluster status`.

use flotilla_client::api;
use serde::Serialize;

use crate::cli::exit::CliError;
use crate::cli::global::Global;
use crate::cli::node::view::{NodeView, node_table};
use crate::cli::output::print;

#[derive(Debug, Serialize)]
struct ClusterView {
    cluster_id: String,
    /// Of the node that answered.
    version: String,
    controller_leader: Option<u64>,
    nodes: Vec<NodeView>,
    topics: u32,
    partitions: u32,
    leaderless_partitions: u32,
    under_replicated_partitions: u32,
    moving_partitions: u32,
}

impl From<api::DescribeClusterResponse> for ClusterView {
    fn from(cluster: api::DescribeClusterResponse) -> Self {
        Self {
            cluster_id: cluster.cluster_id,
            version: cluster.version,
            controller_leader: cluster.controller_leader,
            nodes: cluster.nodes.into_iter().map(NodeView::from).collect(),
            topics: cluster.topic_count,
            partitions: cluster.partition_count,
            leaderless_partitions: cluster.leaderless_partitions,
            under_replicated_partitions: cluster.under_replicated_partitions,
            moving_partitions: cluster.moving_partitions,
        }
    }
}

pub async fn run(global: &Global) -> Result<(), CliError> {
    let (_, cluster) = global.described_cluster().await?;
    print(global.output, &ClusterView::from(cluster), |cluster, _| text(cluster))
}

fn text(cluster: &ClusterView) -> String {
    let leader = cluster.controller_leader.map_or("none".to_owned(), |leader| format!("node {leader}"));
    format!(
        "cluster {}, version {}\ncontroller leader: {leader}\ntopics: {}\n\
         partitions: {} ({} leaderless, {} under-replicated, {} moving)\n\n{}",
        cluster.cluster_id,
        cluster.version,
        cluster.topics,
        cluster.partitions,
        cluster.leaderless_partitions,
        cluster.under_replicated_partitions,
        cluster.moving_partitions,
        node_table(&cluster.nodes),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    fn cluster() -> ClusterView {
        let node = |node_id, online, state: api::NodeState| api::Node {
            node_id,
            address: format!("127.0.0.1:70{node_id}0"),
            state: state.into(),
            online,
            replicas: 12,
            leaders: 4,
            controller_voter: true,
            ..api::Node::default()
        };
        let described = api::DescribeClusterResponse {
            cluster_id: "5e0f".to_owned(),
            version: "0.1.0".to_owned(),
            controller_leader: Some(1),
            nodes: vec![node(1, true, api::NodeState::Active), node(2, false, api::NodeState::Draining)],
            topic_count: 1,
            partition_count: 12,
            under_replicated_partitions: 3,
            ..api::DescribeClusterResponse::default()
        };
        described.into()
    }

    #[test]
    fn programs_get_every_field() {
        let shown = serde_json::to_value(cluster()).unwrap();
        let expected = serde_json::json!({
            "cluster_id": "5e0f", "version": "0.1.0", "controller_leader": 1, "topics": 1, "partitions": 12,
            "leaderless_partitions": 0, "under_replicated_partitions": 3, "moving_partitions": 0,
            "nodes": [
                { "node_id": 1, "address": "127.0.0.1:7010", "rack": "", "state": "active", "online": true,
                  "replicas": 12, "leaders": 4, "controller_voter": true },
                { "node_id": 2, "address": "127.0.0.1:7020", "rack": "", "state": "draining", "online": false,
                  "replicas": 12, "leaders": 4, "controller_voter": true },
            ],
        });
        assert_eq!(shown, expected);
    }

    #[test]
    fn people_get_lines() {
        let expected = "cluster 5e0f, version 0.1.0\ncontroller leader: node 1\ntopics: 1\n\
            partitions: 12 (0 leaderless, 3 under-replicated, 0 moving)\n\n\
            NODE  ADDRESS         RACK  STATE     ONLINE  REPLICAS  LEADERS  CONTROLLER\n\
            1     127.0.0.1:7010  -     active    yes     12        4        voter\n\
            2     127.0.0.1:7020  -     draining  no      12        4        voter\n";
        assert_eq!(text(&cluster()), expected);
    }
}
