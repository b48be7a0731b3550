//! Data directories from which trials begin: written once, copied for each.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use flotilla_client::{Client, api};
use tokio::process::Command;
use tokio::time::Instant;

use super::ledger::{Ledger, Load};
use super::{Stage, SweepError};
use crate::cluster::{Cluster, Node};
use crate::workload::topic;

/// The topic whose records must all be there at the end.
pub(super) const KEPT: &str = "kept";
pub(super) const KEPT_PARTITIONS: u32 = 3;
/// The topic from whose start records are deleted.
pub(super) const PASSING: &str = "passing";
/// The topic that is deleted.
pub(super) const DOOMED: &str = "doomed";
const DOOMED_PARTITIONS: u32 = 2;

const PATIENCE: Duration = Duration::from_secs(60);
/// Several segments of each partition, and most of the journal's first file; little at a time, because what arrives together
/// is one entry, which lies in one segment.
const FILL: Load = Load { records: 4, bytes: 64 << 10, patience: PATIENCE };
const FILL_TIMES: u32 = 16;
/// What is on its way when the node is killed.
const UNDER_LOAD: Load = Load { records: 4_000, bytes: 2 << 10, patience: Duration::from_secs(2) };
const POLL_INTERVAL: Duration = Duration::from_millis(50);
const KILL_AFTER: Duration = Duration::from_millis(150);

/// A node's directory, and what is in it.
#[derive(Debug)]
pub(super) struct Template {
    dir: PathBuf,
    pub ledger: Ledger,
    /// The groups of the topic that is to be deleted.
    pub doomed: Vec<u64>,
    /// The group of the topic from whose start records are deleted.
    pub passing: Vec<u64>,
}

impl Template {
    /// Copies it to `dir`, which does not exist.
    pub async fn copy_to(&self, dir: &Path) -> Result<(), SweepError> {
        copy(&self.dir, dir).await
    }
}

/// The template of a clean stop, and that of a kill under load, which was the other one before.
pub(super) async fn make(stage: &Stage) -> Result<(Template, Template), SweepError> {
    let (clean, killed) = (stage.options.dir.join("clean"), stage.options.dir.join("killed"));
    let mut cluster = begin(stage, &clean).await?;
    let mut ledger = Ledger::new();
    let client = connect(&cluster).await?;
    for (name, partitions) in [(KEPT, KEPT_PARTITIONS), (PASSING, 1), (DOOMED, DOOMED_PARTITIONS)] {
        topic::create(&client, name, partitions, 1, PATIENCE).await?;
        let mut aside = Ledger::new();
        let of = if name == KEPT { &mut ledger } else { &mut aside };
        of.begin(name, partitions);
        for _ in 0..FILL_TIMES {
            written(of.write(&client, name, FILL).await.into_values())?;
        }
    }
    // After a stop everything lies in segments.
    written(cluster.stop().await)?;
    let mut cluster = begin(stage, &clean).await?;
    let client = connect(&cluster).await?;
    let (doomed, passing) = (groups(&client, DOOMED).await?, groups(&client, PASSING).await?);
    forget_first(&cluster, &client, &passing).await?;
    written(cluster.stop().await)?;
    let clean = Template { dir: clean, ledger, doomed, passing };

    clean.copy_to(&killed).await?;
    let mut cluster = begin(stage, &killed).await?;
    let mut ledger = clean.ledger.clone();
    let client = connect(&cluster).await?;
    let load = async { ledger.write(&client, KEPT, UNDER_LOAD).await };
    let kill = async {
        tokio::time::sleep(KILL_AFTER).await;
        let Some(node) = cluster.node(1) else { return Ok(()) };
        node.kill()?;
        node.reap().await
    };
    tokio::join!(load, kill).1.map_err(|error| SweepError::Prepare(error.to_string()))?;
    let (doomed, passing) = (clean.doomed.clone(), clean.passing.clone());
    Ok((clean, Template { dir: killed, ledger, doomed, passing }))
}

/// Deletes the first segment of the topic that passes: a log that does not begin at its beginning any more cannot be applied
/// anew from there.
async fn forget_first(cluster: &Cluster, client: &Client, passing: &[u64]) -> Result<(), SweepError> {
    let before_offset = u64::from(FILL.records * FILL_TIMES) / 3;
    let (before, began) = (segments(cluster, passing), Instant::now());
    client.delete_records(api::DeleteRecordsRequest { topic: PASSING.to_owned(), partition: 0, before_offset }).await?;
    while segments(cluster, passing).first() == before.first() {
        if began.elapsed() > PATIENCE {
            return Err(SweepError::Prepare(format!("none of the segments of {PASSING} is deleted within {PATIENCE:?}")));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    Ok(())
}

async fn groups(client: &Client, name: &str) -> Result<Vec<u64>, SweepError> {
    Ok(topic::describe(client, name).await?.into_iter().map(|partition| partition.group_id).collect())
}

/// The directories of these groups, on all nodes.
pub(super) fn dirs_of(cluster: &Cluster, groups: &[u64]) -> Vec<PathBuf> {
    let of_node = |node: &Node| std::fs::read_dir(node.data_dir().join("groups")).into_iter().flatten().flatten();
    let group = |dir: &Path| dir.file_name()?.to_str()?.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u64>().ok();
    let all = cluster.nodes().iter().flat_map(of_node).map(|entry| entry.path());
    all.filter(|dir| group(dir).is_some_and(|group| groups.contains(&group))).collect()
}

/// The segment files of these groups, on all nodes, in their order.
pub(super) fn segments(cluster: &Cluster, groups: &[u64]) -> Vec<OsString> {
    let files = dirs_of(cluster, groups).into_iter().filter_map(|dir| std::fs::read_dir(dir).ok()).flatten().flatten();
    let segment = |name: &OsString| Path::new(name).extension().is_some_and(|extension| extension == "segment");
    let mut names: Vec<OsString> = files.map(|file| file.file_name()).filter(segment).collect();
    names.sort();
    names
}

async fn begin(stage: &Stage, dir: &Path) -> Result<Cluster, SweepError> {
    std::fs::create_dir_all(dir).map_err(|error| SweepError::Prepare(format!("{}: {error}", dir.display())))?;
    let mut cluster = Cluster::start(&stage.cluster_options(dir, 1))?;
    cluster.wait_ready(PATIENCE).await?;
    Ok(cluster)
}

async fn connect(cluster: &Cluster) -> Result<Client, SweepError> {
    Ok(Client::connect(cluster.addresses(0).1, flotilla_client::ClientOptions::default()).await?)
}

fn written(wrong: impl IntoIterator<Item = String>) -> Result<(), SweepError> {
    match wrong.into_iter().next() {
        Some(wrong) => Err(SweepError::Prepare(wrong)),
        None => Ok(()),
    }
}

/// Copies a directory; holes stay holes.
async fn copy(from: &Path, to: &Path) -> Result<(), SweepError> {
    let mut command = Command::new("cp");
    command.args(["-a", "--sparse=always"]).arg(from).arg(to).stdin(Stdio::null());
    let output = command.output().await.map_err(|error| SweepError::Prepare(format!("cp: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    Err(SweepError::Prepare(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}
