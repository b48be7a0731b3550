//! One trial: nodes are brought to a phase, the victim's calls are counted or harmed while it goes through it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flotilla_client::{Client, ClientOptions, Error, api};
use tokio::time::Instant;

use super::health::{self, Look};
use super::ledger::{Ledger, Load};
use super::phase::Phase;
use super::template::{DOOMED, KEPT, KEPT_PARTITIONS, PASSING, dirs_of, segments};
use super::{Setup, SweepError};
use crate::cluster::{Cluster, Node};
use crate::trap::order::{Census, Errno, Fired, Harm, Step};
use crate::workload::topic;

/// The topic that is created.
pub(super) const CREATED: &str = "created";
pub(super) const CREATED_PARTITIONS: u32 = 2;
/// The partition that moves, from node 1 to node 2.
pub(super) const MOVING: u32 = 0;
pub(super) const MOVES_TO: u64 = 2;

/// Undisturbed, everything comes about within this.
const PREPARE_TIMEOUT: Duration = Duration::from_secs(60);
/// What a phase does takes this long at most, harmed or not; what is left of it is done afterwards.
const WORK_TIMEOUT: Duration = Duration::from_secs(10);
const KILLED_WORK_TIMEOUT: Duration = Duration::from_secs(2);
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Longer than anything that is written here takes to be refused or done.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);
/// Rolls segments, and the journal.
const WORK: Load = Load { records: 64, bytes: 64 << 10, patience: WORK_TIMEOUT };
/// Records of the topic that passes which are left at first.
const HALF: u32 = 32;
const PROBE: Load = Load { records: 1, bytes: 100, patience: Duration::from_secs(2) };

/// See the module.
pub(super) struct Trial<'a> {
    pub setup: &'a Setup,
    pub phase: Phase,
    pub cluster: Cluster,
    pub ledger: Ledger,
    /// Segment files of the topic from whose start records are deleted, before they were.
    segments_before: Vec<OsString>,
    /// How many of them are to go.
    pub segments_to_go: usize,
}

impl<'a> Trial<'a> {
    /// Brings nodes in the new directory `dir` to where the phase begins.
    pub async fn prepare(setup: &'a Setup, phase: Phase, dir: &Path) -> Result<Self, SweepError> {
        let template = match phase {
            Phase::FirstStart | Phase::MoveFrom | Phase::MoveTo | Phase::Reopen => None,
            Phase::RestartAfterKill => Some(&setup.killed),
            _ => Some(&setup.clean),
        };
        let ledger = match template {
            Some(template) => {
                template.copy_to(dir).await?;
                template.ledger.clone()
            }
            None => {
                std::fs::create_dir_all(dir).map_err(|error| SweepError::Prepare(format!("{}: {error}", dir.display())))?;
                Ledger::new()
            }
        };
        let cluster = Cluster::prepare(&setup.stage.cluster_options(dir, phase.nodes()))?;
        let mut trial = Self { setup, phase, cluster, ledger, segments_before: Vec::new(), segments_to_go: 1 };
        if !phase.starts() {
            trial.begin().await?;
        }
        trial.segments_before = trial.segments();
        Ok(trial)
    }

    async fn begin(&mut self) -> Result<(), SweepError> {
        for id in 1..=self.phase.nodes() {
            self.node(id)?.start().map_err(|error| SweepError::Prepare(format!("node {id}: {error}")))?;
        }
        self.cluster.wait_ready(PREPARE_TIMEOUT).await?;
        if self.phase.moves() {
            self.place().await?;
        }
        let began = Instant::now();
        loop {
            let look = self.look().await;
            if look.is_good() {
                return Ok(());
            }
            if began.elapsed() > PREPARE_TIMEOUT {
                return Err(SweepError::Prepare(format!("nothing was done to it yet, and it is not well: {look:?}")));
            }
        }
    }

    /// All partitions on node 1.
    async fn place(&mut self) -> Result<(), SweepError> {
        let client = self.client().await?;
        topic::create(&client, KEPT, KEPT_PARTITIONS, 1, PREPARE_TIMEOUT).await?;
        self.ledger.begin(KEPT, KEPT_PARTITIONS);
        let elsewhere = topic::describe(&client, KEPT).await?.into_iter().filter(|partition| partition.replicas != [1]);
        for partition in elsewhere {
            self.move_to(&client, partition.partition, 1).await?;
        }
        let began = Instant::now();
        while !topic::describe(&client, KEPT).await?.iter().all(|partition| partition.replicas == [1]) {
            if began.elapsed() > PREPARE_TIMEOUT {
                return Err(SweepError::Prepare("the partitions do not come to node 1".to_owned()));
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        match self.ledger.write(&client, KEPT, WORK).await.into_values().next() {
            Some(why) => Err(SweepError::Prepare(why)),
            None => Ok(()),
        }
    }

    pub async fn move_to(&self, client: &Client, partition: u32, node: u64) -> Result<(), Error> {
        let request = api::MovePartitionRequest { topic: KEPT.to_owned(), partition, replicas: vec![node] };
        client.move_partition(request).await.map(drop)
    }

    /// Goes through the phase while `steps` are carried out. What fails on the way is not judged here.
    pub async fn go(&mut self, steps: Vec<Step>) -> Result<(), SweepError> {
        let steps = match self.phase {
            // The first harm is what makes the group be opened again.
            Phase::Reopen => [unreadable_once()].into_iter().chain(steps).collect(),
            _ => steps,
        };
        let patience = self.setup.stage.options.patience;
        // Who is killed does not come back before it is started again.
        let killed = steps.iter().any(|step| step.harm == Harm::Kill);
        let work_patience = if killed { KILLED_WORK_TIMEOUT } else { WORK_TIMEOUT };
        if self.phase.starts() {
            let failed = |error: std::io::Error| SweepError::Prepare(format!("the node cannot be started: {error}"));
            let node = self.node(self.phase.victim())?;
            node.start_armed(steps).map_err(failed)?;
            // If it is neither ready nor gone, that is seen later.
            let _ = node.wait_ready_or_ended(patience).await;
            return Ok(());
        }
        let victim = self.phase.victim();
        let client = self.client().await?;
        if let Some(trap) = self.node(victim)?.trap() {
            trap.arm(steps);
        }
        match self.phase {
            // Whoever has ended meanwhile cannot be asked to.
            Phase::Stop => drop(self.node(victim)?.end(patience).await),
            Phase::Write => drop(self.ledger.write(&client, KEPT, Load { patience: work_patience, ..WORK }).await),
            Phase::Read => drop(tokio::time::timeout(WORK_TIMEOUT, topic::read_all(&self.address(), KEPT)).await),
            // What a call says does not matter: what is asked for is looked for, and asked for again, afterwards.
            phase => {
                let _ = self.ask(phase, &client).await;
                let began = Instant::now();
                while self.node(victim)?.ended().is_none()
                    && !self.has_come(phase, &client).await
                    && began.elapsed() < WORK_TIMEOUT
                {
                    tokio::time::sleep(POLL_INTERVAL).await;
                }
            }
        }
        Ok(())
    }

    /// Asks for what the phase is about.
    pub async fn ask(&mut self, phase: Phase, client: &Client) -> Result<(), Error> {
        match phase {
            Phase::Create => {
                self.ledger.begin(CREATED, CREATED_PARTITIONS);
                topic::create(client, CREATED, CREATED_PARTITIONS, 1, CALL_TIMEOUT).await
            }
            Phase::Retain => delete_records(client, HALF).await,
            Phase::Delete => {
                let request = api::DeleteTopicRequest { name: DOOMED.to_owned(), if_exists: true };
                client.delete_topic(request).await.map(drop)
            }
            Phase::MoveFrom | Phase::MoveTo | Phase::Reopen => self.move_to(client, MOVING, MOVES_TO).await,
            _ => Ok(()),
        }
    }

    /// Whether that has come about.
    pub async fn has_come(&self, phase: Phase, client: &Client) -> bool {
        match phase {
            Phase::Create => topic::leaders(client, CREATED).await.is_ok_and(|leaders| leaders.values().all(Option::is_some)),
            Phase::Retain => {
                let stays = self.segments_before.get(self.segments_to_go);
                self.segments().first().is_some_and(|first| stays.is_some_and(|stays| first >= stays))
            }
            Phase::Delete => self.leftovers().is_empty(),
            Phase::MoveFrom | Phase::MoveTo | Phase::Reopen => {
                let moved = |partitions: Vec<api::Partition>| {
                    partitions.iter().any(|partition| partition.partition == MOVING && partition.replicas == [MOVES_TO])
                };
                topic::describe(client, KEPT).await.is_ok_and(moved)
            }
            _ => true,
        }
    }

    /// Writes to every partition, and asks for health before and after.
    pub async fn look(&mut self) -> Look {
        let (binary, address) = (self.setup.stage.options.binary.clone(), self.address());
        let before = health::ask(&binary, &address).await;
        let at = Instant::now();
        let mut down = std::collections::BTreeMap::new();
        for name in self.ledger.names() {
            match self.client().await {
                Ok(client) => down.extend(self.ledger.write(&client, &name, PROBE).await),
                Err(error) => drop(down.insert((name, 0), error.to_string())),
            }
        }
        let after = health::ask(&binary, &address).await;
        Look { at, before, after, down }
    }

    /// What was counted since the last harm.
    pub fn census(&self) -> Census {
        self.trap_of_victim().map(crate::trap::Trap::census).unwrap_or_default()
    }

    /// Calls of a step's kind that were counted.
    pub fn count_of(&self, step: &Step) -> u64 {
        let fits = |((call, kind), _): &(&(&str, String), &u64)| *call == step.call && *kind == step.kind;
        self.census().iter().find(fits).map_or(0, |(_, count)| *count)
    }

    /// The harm that was done, without what led there.
    pub fn fired(&self) -> Option<Fired> {
        let wanted = if self.phase == Phase::Reopen { 2 } else { 1 };
        self.trap_of_victim()?.fired().into_iter().nth(wanted - 1)
    }

    fn trap_of_victim(&self) -> Option<&crate::trap::Trap> {
        self.cluster.nodes().iter().find(|node| node.id() == self.phase.victim())?.trap()
    }

    pub fn node(&mut self, id: u64) -> Result<&mut Node, SweepError> {
        self.cluster.node(id).ok_or_else(|| SweepError::Prepare(format!("there is no node {id}")))
    }

    pub fn address(&self) -> String {
        let victim = self.phase.victim();
        self.cluster.nodes().iter().find(|node| node.id() == victim).map(Node::address).unwrap_or_default()
    }

    pub async fn client(&self) -> Result<Client, Error> {
        let options = ClientOptions { connect_timeout: CALL_TIMEOUT, request_timeout: CALL_TIMEOUT, ..ClientOptions::default() };
        Client::connect(self.cluster.addresses(0).1, options).await
    }

    fn segments(&self) -> Vec<OsString> {
        segments(&self.cluster, &self.setup.clean.passing)
    }

    /// Directories of the topic that is deleted.
    pub fn leftovers(&self) -> Vec<PathBuf> {
        dirs_of(&self.cluster, &self.setup.clean.doomed)
    }
}

/// What makes a group die that sends a replica: it cannot read a segment.
fn unreadable_once() -> Step {
    Step { call: "pread64".to_owned(), kind: "groups/#-#/#.segment".to_owned(), nth: 1, harm: Harm::Error(Errno::Eio) }
}

/// Deletes all but the last `left` records of the topic that passes.
pub(super) async fn delete_records(client: &Client, left: u32) -> Result<(), Error> {
    let end = topic::ends(client, PASSING).await?.values().copied().max().unwrap_or_default();
    let before_offset = end.saturating_sub(left.into());
    let request = api::DeleteRecordsRequest { topic: PASSING.to_owned(), partition: 0, before_offset };
    client.delete_records(request).await.map(drop)
}
