//! Several nodes, each alone in what it takes for the same cluster (they are copies of one), of which one believes that the
//! others lead its partitions: forwarding as it is, over real connections that can be cut, with leaders that move when the
//! test says so.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use flotilla_broker::{Broker, TopicMissing};
use flotilla_proto::v1;
use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::node::Node;
use crate::grpc::Directory;
use crate::grpc::forward::Target;

/// Who leads what, as the test says.
#[derive(Default)]
pub struct Says {
    /// Of each partition's group; the gateway itself where nothing stands.
    leaders: HashMap<u64, Option<u64>>,
    controller: Option<u64>,
    cluster_id: String,
    addresses: HashMap<u64, String>,
}

/// The gateway is node 1.
#[derive(Clone, Default)]
pub struct Cluster(Arc<Mutex<Says>>);

impl Directory for Cluster {
    fn cluster_id(&self) -> String {
        self.0.lock().unwrap().cluster_id.clone()
    }

    fn node_id(&self) -> u64 {
        1
    }

    fn leader_of(&self, group_id: u64) -> Option<u64> {
        self.0.lock().unwrap().leaders.get(&group_id).copied().unwrap_or(Some(1))
    }

    fn controller_leader(&self) -> Option<u64> {
        self.0.lock().unwrap().controller
    }

    fn peer_address(&self, node_id: u64) -> Option<String> {
        self.0.lock().unwrap().addresses.get(&node_id).cloned()
    }

    fn client_address(&self, node_id: u64) -> Option<String> {
        self.peer_address(node_id)
    }

    fn missing(&self, _: &Target) -> Vec<u64> {
        Vec::new()
    }

    fn gone(&self, _: &Target) -> Option<TopicMissing> {
        None
    }

    fn is_online(&self, node_id: u64) -> bool {
        self.peer_address(node_id).is_some()
    }
}

/// The nodes 1, 2 and 3. All have the topic "t" with two partitions.
pub struct Fleet {
    pub cluster: Cluster,
    /// Node 1: it forwards.
    pub gateway: Node,
    /// Node 2, behind a proxy.
    pub second: Node,
    /// Node 3, behind a proxy.
    pub third: Node,
    pub links: [Proxy; 2],
    groups: Vec<u64>,
}

impl Fleet {
    pub async fn start() -> Self {
        let first = Node::start().await;
        first.create("t", 2).await;
        let first = first.stop().await;
        let (second, third) = (Node::start_in(copy_of(&first)).await, Node::start_in(copy_of(&first)).await);
        let cluster = Cluster::default();
        cluster.0.lock().unwrap().controller = Some(1);
        let seen = cluster.clone();
        let see = move |broker: &Broker| {
            seen.0.lock().unwrap().cluster_id = broker.cluster_id();
            Arc::new(seen) as Arc<dyn Directory>
        };
        let gateway = Node::start_seeing(first, see).await;
        let described = gateway.topics().describe_topic(v1::DescribeTopicRequest { name: "t".into() }).await.unwrap();
        let groups = described.into_inner().partitions.iter().map(|partition| partition.group_id).collect();
        let links = [Proxy::start(second.address.clone()).await, Proxy::start(third.address.clone()).await];
        for (node_id, link) in [2, 3].into_iter().zip(&links) {
            cluster.0.lock().unwrap().addresses.insert(node_id, link.address.clone());
        }
        Self { cluster, gateway, second, third, links, groups }
    }

    /// From now on this node leads a partition of "t".
    pub fn lead(&self, partition: usize, node_id: impl Into<Option<u64>>) {
        self.cluster.0.lock().unwrap().leaders.insert(self.groups[partition], node_id.into());
    }

    /// From now on this node leads the controller.
    pub fn control(&self, node_id: u64) {
        self.cluster.0.lock().unwrap().controller = Some(node_id);
    }

    /// The gateway finds a node at this address.
    pub fn place(&self, node_id: u64, address: &str) {
        self.cluster.0.lock().unwrap().addresses.insert(node_id, address.to_owned());
    }

    /// The gateway's link to a node is down.
    pub fn lose(&self, node_id: u64) {
        self.cluster.0.lock().unwrap().addresses.remove(&node_id);
    }
}

/// The same data in another directory, of a node that does not run.
fn copy_of(dir: &TempDir) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy_all(dir.path(), copy.path());
    copy
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (kind, to) = (entry.file_type().unwrap(), to.join(entry.file_name()));
        if kind.is_dir() {
            copy_all(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// A TCP proxy whose connections can be cut, as a network does.
pub struct Proxy {
    pub address: String,
    connections: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Proxy {
    async fn start(upstream: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let connections = Arc::new(Mutex::new(Vec::new()));
        let open = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((mut downstream, _)) = listener.accept().await {
                let upstream = upstream.clone();
                let copying = tokio::spawn(async move {
                    if let Ok(mut upstream) = TcpStream::connect(upstream).await {
                        let _ = copy_bidirectional(&mut downstream, &mut upstream).await;
                    }
                });
                open.lock().unwrap().push(copying);
            }
        });
        Self { address, connections }
    }

    /// Cuts every connection; how many there were.
    pub fn cut(&self) -> usize {
        let cut = std::mem::take(&mut *self.connections.lock().unwrap());
        cut.iter().for_each(JoinHandle::abort);
        cut.len()
    }
}
