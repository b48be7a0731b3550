//! What `flotilla dev` prints.

use std::path::PathBuf;

use serde::Serialize;

use crate::cli::output::table;

/// A cluster on this machine.
#[derive(Debug, Serialize)]
pub(super) struct DevView {
    /// Holds the nodes' directories and logs.
    pub dir: PathBuf,
    /// The nodes, by id.
    pub nodes: Vec<NodeView>,
}

/// One of its nodes.
#[derive(Debug, Clone, Serialize)]
pub(super) struct NodeView {
    pub node_id: u64,
    pub process_id: u32,
    pub address: String,
    pub http: String,
    pub data_dir: PathBuf,
    pub log: PathBuf,
}

impl DevView {
    pub fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.address.clone()).collect()
    }

    pub fn text(&self, wide: bool) -> String {
        let row = |node: &NodeView| {
            let mut row = vec![node.node_id.to_string(), node.process_id.to_string(), node.address.clone(), node.http.clone()];
            row.push(node.log.display().to_string());
            if wide {
                row.push(node.data_dir.display().to_string());
            }
            row
        };
        let mut head = vec!["NODE", "PROCESS", "GRPC", "HTTP", "LOG"];
        if wide {
            head.push("DATA");
        }
        table(&head, &self.nodes.iter().map(row).collect::<Vec<_>>())
    }

    pub fn ready(&self, _: bool) -> String {
        format!(
            "Ready. In another terminal:\n  export FLOTILLA_ADDR={}\nKill a node by its process id and see what happens; Ctrl-C stops all.\n",
            self.addresses().join(",")
        )
    }
}
