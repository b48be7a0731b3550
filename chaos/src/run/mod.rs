//! A run on real processes: cluster, workload, faults, healing, final reads, verdict.

mod final_reads;
mod finish;
mod strikes;

use std::time::Duration;

use flotilla_client::{Client, ClientOptions, Error};

use crate::cluster::{Cluster, ClusterError, ClusterOptions};
use crate::fault::Fault;
use crate::history::{Clock, History, Micros};
use crate::random::Random;
use crate::report::Report;
use crate::workload::{Workload, WorkloadOptions, topic};

/// What a run consists of.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// The nodes. Its directory is made by whoever calls.
    pub cluster: ClusterOptions,
    /// What is written and read meanwhile.
    pub workload: WorkloadOptions,
    /// Replicas of each partition.
    pub replication_factor: u32,
    /// Faults, in turn; none: only the workload.
    pub faults: Vec<Fault>,
    /// How long is written.
    pub duration: Duration,
    /// From one fault to the next.
    pub every: Duration,
    /// From a fault to its undoing.
    pub down: Duration,
    /// Makes the same decisions again.
    pub seed: u64,
}

/// Why a run did not come about.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The cluster did not come up.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The topic could not be made.
    #[error("the topic cannot be created: {0}")]
    Topic(Error),
    /// Before anything was done to it, the cluster did not serve.
    #[error(
        "not every partition acknowledged a record within {waited:?}, and nothing was done to the cluster yet; errors: {errors}"
    )]
    NoAcks {
        /// How long it was waited for.
        waited: Duration,
        /// What clients were told.
        errors: String,
    },
}

/// Everything that takes longer than this hangs.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Where a run is.
struct Run {
    options: RunOptions,
    cluster: Cluster,
    workload: Workload,
    clock: Clock,
    random: Random,
    /// When the time began in which there are faults.
    began_at: Micros,
    incidents: Vec<String>,
    void_because: Vec<String>,
}

/// Runs and judges. `say` is told what happens, for people who wait.
///
/// # Errors
/// If there was nothing to judge. Broken promises are no error: the report has them.
pub async fn run(options: RunOptions, say: &mut dyn FnMut(String)) -> Result<(Report, History), RunError> {
    let mut run = Run::begin(options, say).await?;
    let strikes = run.strike(say).await;
    say("heal everything, read until the end".to_owned());
    Ok(run.finish(strikes).await)
}

impl Run {
    async fn begin(options: RunOptions, say: &mut dyn FnMut(String)) -> Result<Self, RunError> {
        let mut cluster = Cluster::start(&options.cluster)?;
        cluster.wait_ready(PATIENCE).await?;
        let client = Client::connect(cluster.addresses(0).1, ClientOptions::default()).await.map_err(RunError::Topic)?;
        let work = options.workload.clone();
        let created = topic::create(&client, &work.topic, work.partitions, options.replication_factor, PATIENCE);
        created.await.map_err(RunError::Topic)?;
        say(format!("{} nodes are up, topic {} has {} partitions", options.cluster.nodes, work.topic, work.partitions));
        let clock = Clock::start();
        let workload = Workload::start(&cluster, work, clock);
        let random = Random::new(options.seed);
        let mut run =
            Self { options, cluster, workload, clock, random, began_at: 0, incidents: Vec::new(), void_because: Vec::new() };
        run.wait_for_acks().await?;
        run.began_at = run.clock.now();
        Ok(run)
    }

    /// The time of faults begins when all partitions serve.
    async fn wait_for_acks(&self) -> Result<(), RunError> {
        let all = self.options.workload.partitions as usize;
        let serving = async {
            loop {
                let served: std::collections::BTreeSet<u32> =
                    self.workload.notes().history.acked().map(|(produce, _)| produce.partition).collect();
                if served.len() == all {
                    return;
                }
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        };
        tokio::time::timeout(PATIENCE, serving).await.map_err(|_| {
            let errors = self.workload.notes().errors.join("; ");
            RunError::NoAcks { waited: PATIENCE, errors }
        })
    }
}
