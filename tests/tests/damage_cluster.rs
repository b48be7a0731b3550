//! Damage to the files of one node of three: it is noticed and said, neither votes nor serves, and is copied again from the
//! others. Nothing acknowledged is lost, and the replicas end equal.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flotilla_client::{Client, api};
use flotilla_tests::cluster::Cluster;
use flotilla_tests::files;
use flotilla_tests::read::{self, Partitions};
use flotilla_tests::writers::Writers;

const ARGS: [&str; 4] = ["--journal-bytes", "128MiB", "--segment-bytes", "1MiB"];
const TOPIC: &str = "t";
const PARTITIONS: u32 = 3;
/// Enough for some closed segments.
const RECORDS: usize = 30_000;
/// A replica that is not there again by then is not coming.
const PATIENCE: Duration = Duration::from_secs(60);

/// Three nodes with a topic of three replicas.
struct Scene {
    cluster: Cluster,
    client: Client,
    writers: Writers,
    dir: tempfile::TempDir,
}

impl Scene {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cluster = Cluster::started(dir.path(), 3, &ARGS);
        let client = cluster.client().await;
        read::create_topic(&client, TOPIC, PARTITIONS).await;
        let writers = Writers::start(&client, TOPIC, 4, PATIENCE).await;
        writers.wait_for_acks(RECORDS).await;
        cluster.wait_in_sync(TOPIC, PATIENCE).await;
        Self { cluster, client, writers, dir }
    }

    fn path(&self, node: u64) -> PathBuf {
        self.dir.path().join(format!("n{node}"))
    }

    /// Stops a node, damages its files, starts it again while the others are written to, and waits until it is a whole
    /// replica again. What it said since its start.
    async fn damage(&mut self, node: u64, damage: impl FnOnce(&Path)) -> String {
        assert!(self.cluster.node(node).stop().success());
        self.writers.wait_for_acks(1_000).await;
        damage(&self.path(node));
        self.cluster.node(node).start();
        self.writers.wait_for_acks(1_000).await;
        self.cluster.wait_none_down(node, PATIENCE).await;
        self.cluster.wait_in_sync(TOPIC, PATIENCE).await;
        self.cluster.node(node).log()
    }

    /// Reads everything as the leader has it, and makes `node` lead everything: it must have the same.
    async fn finish(self, node: u64) {
        let history = self.writers.stop().await;
        let before = read::all(&self.client, TOPIC).await;
        history.check(&before);
        assert_eq!(led_by(&self.client, node).await, before, "node {node} has something else than the others");
    }
}

/// Has `node` lead every partition, and reads.
async fn led_by(client: &Client, node: u64) -> Partitions {
    for partition in 0..PARTITIONS {
        lead(client, partition, node).await;
    }
    read::all(client, TOPIC).await
}

async fn lead(client: &Client, partition: u32, node: u64) {
    let request = api::TransferLeaderRequest { topic: TOPIC.into(), partition, node_id: Some(node) };
    assert_eq!(client.transfer_leader(request).await.unwrap().leader, node);
}

/// The files below a data directory whose path in it `picks` accepts.
fn picked(path: &Path, picks: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let name = |file: &Path| file.strip_prefix(path).unwrap().to_string_lossy().into_owned();
    let files = files::below(path).into_iter().filter(|file| files::len(file) > 0 && picks(&name(file)));
    let files: Vec<PathBuf> = files.collect();
    assert!(!files.is_empty(), "nothing to damage in {}", path.display());
    files
}

/// Changes a bit in every block of a file up to its last byte that is not zero.
fn riddle(file: &Path) {
    let used = fs::read(file).unwrap().iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64);
    (0..used).step_by(4096).for_each(|block| files::flip(file, (block + 100).min(used)));
}

fn is_segment_of_partition(name: &str) -> bool {
    name.starts_with("groups/") && !name.starts_with("groups/0-") && name.ends_with(".segment")
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_partitions_are_copied_from_the_others() {
    let mut scene = Scene::new().await;
    let log = scene
        .damage(1, |path| {
            for file in picked(path, is_segment_of_partition) {
                files::truncate(&file, files::len(&file) / 2);
            }
        })
        .await;
    assert!(log.contains("is damaged and stays down") && log.contains("set aside"), "{log}");
    assert!(scene.path(1).join("damaged").read_dir().unwrap().count() >= PARTITIONS as usize);
    scene.finish(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_journal_is_every_group_s_and_all_are_copied() {
    let mut scene = Scene::new().await;
    for (node, removed) in [(2, false), (1, true)] {
        let log = scene
            .damage(node, |path| {
                for file in picked(path, |name| name.starts_with("journal/")) {
                    if removed { fs::remove_file(file).unwrap() } else { riddle(&file) }
                }
            })
            .await;
        assert!(log.contains("this node's replica of the controller is damaged") && log.contains("journal"), "{log}");
        let aside = fs::read_dir(scene.path(node).join("damaged")).unwrap();
        let journals = aside.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("journal-"));
        assert_eq!(journals.count() > 0, !removed);
    }
    scene.finish(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_controller_is_copied_from_the_others() {
    let mut scene = Scene::new().await;
    let log = scene
        .damage(3, |path| {
            for file in picked(path, |name| name.starts_with("groups/0-") && name.ends_with(".segment")) {
                files::truncate(&file, files::len(&file) / 2);
            }
        })
        .await;
    assert!(log.contains("this node's replica of the controller is damaged"), "{log}");
    let described = scene.client.describe_cluster(api::DescribeClusterRequest {}).await.unwrap();
    assert_eq!(described.nodes.len(), 3);
    scene.finish(3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_state_is_made_anew() {
    let mut scene = Scene::new().await;
    let log = scene.damage(2, |path| picked(path, |name| name.starts_with("state/")).iter().for_each(|file| riddle(file))).await;
    assert!(log.contains("the state is damaged"), "{log}");
    assert!(scene.path(2).join("damaged/state-1").is_dir());
    scene.finish(2).await;
}

/// A bit of a payload in a closed segment: nobody looks at it before it is read.
#[tokio::test(flavor = "multi_thread")]
async fn damage_that_is_met_by_reading_is_neither_served_nor_kept() {
    let mut scene = Scene::new().await;
    let log = scene
        .damage(1, |path| {
            let mut flipped = 0;
            for file in picked(path, is_segment_of_partition) {
                let value = fs::read(&file).unwrap();
                // In the middle of the longest stretch of a value's filler would do; any byte of the file's middle does, too.
                files::flip(&file, value.len() as u64 / 2);
                flipped += 1;
            }
            assert!(flipped > PARTITIONS);
        })
        .await;
    println!("at its start node 1 says: {} lines", log.lines().count());
    let Scene { mut cluster, client, writers, dir } = scene;
    let history = writers.stop().await;
    // Whatever it leads, nobody reads anything wrong; and it does not go on leading what is damaged.
    history.check(&led_by(&client, 1).await);
    cluster.wait_none_down(1, PATIENCE).await;
    cluster.wait_in_sync(TOPIC, PATIENCE).await;
    assert_eq!(led_by(&client, 1).await, led_by(&client, 2).await);
    let log = cluster.node(1).log();
    assert!(log.contains("is damaged: it is stopped on this node") || log.contains("is damaged and stays down"), "{log}");
    drop(dir);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_does_not_know_who_it_is_does_not_start() {
    let mut scene = Scene::new().await;
    scene.cluster.node(3).kill();
    files::flip(&scene.path(3).join("META"), 30);
    let refused = scene.cluster.node(3).try_start().unwrap_err();
    assert!(refused.log.contains("META is damaged") && refused.log.contains("flotilla node remove"), "{}", refused.log);
    scene.writers.wait_for_acks(1_000).await;
    let history = scene.writers.stop().await;
    history.check(&read::all(&scene.client, TOPIC).await);
}
