//! Nodes in one process. Each has a runtime of its own, so that it can be killed: its tasks end where they are, and its
//! sockets close, as when a process dies.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use super::line::Line;
use crate::data_dir::{ClusterId, DataDir, Identity};
use crate::disk::real::RealDisk;
use crate::driver::Driver;
use crate::group::Group;
use crate::journal::JournalOptions;
use crate::log::tests::node::{Ledger, PATIENCE, expected, kept};
use crate::machine::Machine;
use crate::network::{Peers, TcpDialer};
use crate::registry::{Begin, Registry, RegistryOptions, TransferOptions};
use crate::segments::SegmentOptions;
use crate::state::{RocksOptions, RocksState};
use crate::types::{GroupId, NodeId, Replica, ReplicaId};

pub(super) const CLUSTER: ClusterId = ClusterId([7; 16]);
pub(super) const GROUP: GroupId = GroupId(5);
/// Less than openraft's own timers need to find out that a leader is gone.
pub(super) const SOON: Duration = Duration::from_secs(9);

/// Less than a follower believes in a leader from whom it hears nothing.
pub(super) const LEASE: Duration = Duration::from_secs(5);

/// The replica of a group on a node, where a test does not say otherwise: not called as its node is.
pub(super) fn replica(node: NodeId) -> Replica {
    Replica { id: ReplicaId(10 + node), node }
}

pub(super) fn replicas(nodes: &[NodeId]) -> Vec<Replica> {
    nodes.iter().copied().map(replica).collect()
}

pub(super) fn ids(nodes: impl IntoIterator<Item = NodeId>) -> BTreeSet<ReplicaId> {
    nodes.into_iter().map(|node| replica(node).id).collect()
}

pub(super) struct Cluster {
    nodes: BTreeMap<NodeId, Node>,
    lines: BTreeMap<(NodeId, NodeId), Line>,
    transfers: TransferOptions,
}

struct Node {
    dir: TempDir,
    port: u16,
    running: Option<Running>,
}

struct Running {
    runtime: Runtime,
    registry: Arc<Registry>,
}

impl Cluster {
    /// Nodes `1..=count`, all running and linked, without groups.
    pub(super) async fn new(count: NodeId) -> Self {
        Self::with(count, Duration::ZERO, TransferOptions::default()).await
    }

    pub(super) async fn with(count: NodeId, delay: Duration, transfers: TransferOptions) -> Self {
        let mut nodes = BTreeMap::new();
        for id in 1..=count {
            nodes.insert(id, Node { dir: tempfile::tempdir().unwrap(), port: free_port(), running: None });
        }
        let mut lines = BTreeMap::new();
        for from in 1..=count {
            for to in (1..=count).filter(|to| *to != from) {
                lines.insert((from, to), Line::to(nodes[&to].port, delay).await);
            }
        }
        let mut cluster = Self { nodes, lines, transfers };
        for id in 1..=count {
            cluster.start_node(id).await;
        }
        cluster.linked().await;
        cluster
    }

    /// Opens a node that does not run. Its groups are to be started.
    pub(super) async fn start_node(&mut self, id: NodeId) {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let peers = Peers::new(id, CLUSTER, Arc::new(TcpDialer));
        let node = self.nodes.get_mut(&id).unwrap();
        let (data, options) = (node.dir.path().join("data"), options(peers.clone(), self.transfers));
        let address: SocketAddr = ([127, 0, 0, 1], node.port).into();
        let addresses = self.lines.iter().filter(|((from, _), _)| *from == id);
        let addresses: BTreeMap<NodeId, String> = addresses.map(|((_, to), line)| (*to, line.address.clone())).collect();
        let open = move || {
            let identity = || Identity { cluster_id: CLUSTER, node_id: id, directory_id: [id as u8; 16], created_at_ms: 0 };
            let data_dir = DataDir::open(&data, identity).unwrap();
            let state = RocksState::open(&data_dir.state_dir(), &RocksOptions::default()).unwrap();
            Registry::open(options, data_dir, Arc::new(RealDisk), Arc::new(state)).unwrap()
        };
        let registry = runtime.spawn_blocking(open).await.unwrap();
        let serve = async move {
            // What the node's last life listened on may be closed a moment later.
            let bound = || TcpIncoming::bind(address).ok();
            let incoming = eventually(PATIENCE, "the node's port is free", bound).await.with_nodelay(Some(true));
            peers.set(addresses);
            tokio::spawn(Server::builder().add_service(peers.service()).serve_with_incoming(incoming));
        };
        runtime.spawn(serve).await.unwrap();
        node.running = Some(Running { runtime, registry: Arc::new(registry) });
    }

    /// Ends a node as if its process died.
    pub(super) fn kill(&mut self, id: NodeId) {
        let running = self.nodes.get_mut(&id).unwrap().running.take().unwrap();
        end(running.runtime);
        drop(running.registry);
    }

    pub(super) async fn close_node(&mut self, id: NodeId) {
        let Running { runtime, registry } = self.nodes.get_mut(&id).unwrap().running.take().unwrap();
        let closing = registry.clone();
        runtime.spawn(async move { closing.close().await }).await.unwrap();
        end(runtime);
        drop(registry);
    }

    pub(super) fn running(&self) -> Vec<NodeId> {
        self.nodes.iter().filter(|(_, node)| node.running.is_some()).map(|(id, _)| *id).collect()
    }

    pub(super) fn registry(&self, id: NodeId) -> Arc<Registry> {
        self.nodes[&id].running.as_ref().unwrap().registry.clone()
    }

    /// The segments of a group on a node, whether it runs or not.
    pub(super) fn segments_of(&self, id: NodeId, group: GroupId) -> Vec<PathBuf> {
        let entries =
            |dir: &Path| -> Vec<PathBuf> { std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect() };
        let dirs = entries(&self.groups_dir(id)).into_iter();
        let dirs = dirs.filter(|dir| dir.file_name().unwrap().to_string_lossy().starts_with(&format!("{group}-")));
        let files = dirs.flat_map(|dir| entries(&dir));
        files.filter(|file| file.extension().is_some_and(|extension| extension == "segment")).collect()
    }

    pub(super) fn groups_dir(&self, id: NodeId) -> PathBuf {
        self.nodes[&id].dir.path().join("data/groups")
    }

    /// Where a node keeps what was damaged.
    pub(super) fn damaged_dir(&self, id: NodeId) -> PathBuf {
        self.nodes[&id].dir.path().join("data/damaged")
    }

    /// A copy of all that a node has on its disk. It must not run.
    pub(super) fn keep_data(&self, id: NodeId) -> TempDir {
        let copy = tempfile::tempdir().unwrap();
        copy_all(&self.nodes[&id].dir.path().join("data"), &copy.path().join("data"));
        copy
    }

    /// The node's disk has what it had when `kept` was copied.
    pub(super) fn restore_data(&self, id: NodeId, kept: &TempDir) {
        let data = self.nodes[&id].dir.path().join("data");
        std::fs::remove_dir_all(&data).unwrap();
        copy_all(&kept.path().join("data"), &data);
    }

    pub(super) fn line(&self, from: NodeId, to: NodeId) -> &Line {
        &self.lines[&(from, to)]
    }

    pub(super) fn port(&self, id: NodeId) -> u16 {
        self.nodes[&id].port
    }

    /// Runs something on a node's runtime.
    pub(super) async fn on<T: Send + 'static>(&self, id: NodeId, work: impl Future<Output = T> + Send + 'static) -> T {
        self.nodes[&id].running.as_ref().unwrap().runtime.spawn(work).await.unwrap()
    }

    pub(super) async fn start(&self, id: NodeId, group: GroupId, begin: Begin) -> Group {
        self.start_machine(id, group, begin, Box::new(Ledger::default())).await
    }

    pub(super) async fn start_machine(&self, id: NodeId, group: GroupId, begin: Begin, machine: Box<dyn Machine>) -> Group {
        self.start_replica(replica(id), group, begin, machine).await
    }

    pub(super) async fn start_replica(&self, replica: Replica, group: GroupId, begin: Begin, machine: Box<dyn Machine>) -> Group {
        let registry = self.registry(replica.node);
        self.on(replica.node, async move { registry.start(group, replica.id, machine, None, begin).await.unwrap() }).await
    }

    /// Starts a group on all its voters.
    pub(super) async fn found(&self, group: GroupId, voters: &[NodeId]) {
        for id in voters {
            self.start(*id, group, Begin::Initialize(replicas(voters))).await;
        }
    }

    pub(super) fn group(&self, id: NodeId, group: GroupId) -> Group {
        self.registry(id).group(group).unwrap()
    }

    /// Waits until every node that runs has a link to every other one.
    pub(super) async fn linked(&self) {
        let running = self.running();
        for id in &running {
            let mut links = self.registry(*id).peers().links();
            let all = links.wait_for(|up| running.iter().all(|peer| peer == id || up.contains_key(peer)));
            tokio::time::timeout(PATIENCE, all).await.expect("links come up").unwrap();
        }
    }

    /// Waits until one of the nodes leads the group, and all of them that run say so.
    pub(super) async fn leader(&self, group: GroupId, among: &[NodeId]) -> NodeId {
        self.leader_within(group, among, PATIENCE).await
    }

    pub(super) async fn leader_within(&self, group: GroupId, among: &[NodeId], patience: Duration) -> NodeId {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            let leader = eventually(left, "one leader", || {
                let leaders: BTreeSet<_> = among.iter().map(|id| self.group(*id, group).leader_node()).collect();
                let leader = leaders.first().copied().flatten().filter(|leader| leaders.len() == 1 && among.contains(leader))?;
                self.group(leader, group).is_leader().then_some(leader)
            })
            .await;
            // One that was just elected may have lost against another candidate already.
            if self.group(leader, group).read_barrier().await.is_ok() {
                return leader;
            }
        }
    }

    /// Waits until a replica has exactly the payloads `0..count`.
    pub(super) async fn holds(&self, id: NodeId, group: GroupId, live_from: u64, count: u64) {
        let replica = self.group(id, group);
        let applied = || replica.raft().metrics();
        eventually(PATIENCE, "everything is applied", || {
            use openraft::async_runtime::WatchReceiver as _;
            let last = applied().borrow_watched().last_applied.map(|log_id| log_id.index);
            (last.is_some() && last == replica.last_index()).then_some(())
        })
        .await;
        let mut found = kept(&replica, live_from).await;
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while found.len() as u64 != count - live_from && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
            found = kept(&replica, live_from).await;
        }
        assert_eq!(found, expected(0..count)[live_from as usize..], "node {id}");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for id in self.running() {
            self.kill(id);
        }
    }
}

/// A port that is free, and stays it while its node is down: no other cluster gets it, nor does an outgoing connection
/// (on Linux these have ports from 32768).
fn free_port() -> u16 {
    const FIRST: u16 = 12_000;
    const COUNT: u16 = 8_000;
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id().wrapping_mul(37) % u32::from(COUNT)) as u16;
    let mut ports = (0..COUNT).map(|_| FIRST + (start + TAKEN.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT);
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a port is free")
}

fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_all(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Returns when the runtime's tasks are gone, and with them what they hold.
fn end(runtime: Runtime) {
    tokio::task::block_in_place(|| runtime.shutdown_timeout(PATIENCE));
}

/// Asks again and again until there is an answer.
pub(super) async fn eventually<T>(patience: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + patience;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "not within {patience:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn options(peers: Peers, transfers: TransferOptions) -> RegistryOptions {
    let journal = JournalOptions { file_bytes: 64 << 20, files_max: 4, files_hard_max: 16, ..JournalOptions::default() };
    RegistryOptions {
        node_id: peers.node_id(),
        journal,
        segments: SegmentOptions { segment_bytes_max: 64 << 10, ..SegmentOptions::default() },
        proposal_bytes_max: 64 << 20,
        tail_bytes_max: 256 << 20,
        peers,
        transfers,
        driver: Driver::Threads,
    }
}
