//! How a group starts: from what is on disk, or new.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use openraft::{Config, SnapshotPolicy};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::pulse::HEARTBEAT;
use super::{Begin, Down, Registry, StartError, lock};
use crate::disk::error::{Class, path_of};
use crate::group::{Group, Parts, Raft};
use crate::heard::Heard;
use crate::journal::{Damage, Record, RecoveredGroup, Suspect};
use crate::log::convert::first_entry;
use crate::log::group_log::GroupLog;
use crate::log::machine_store::MachineStore;
use crate::log::store::LogStore;
use crate::machine::Machine;
use crate::network::{Network, Urgency};
use crate::proposals::{Preamble, Proposals};
use crate::standing::{Standing, Watched};
use crate::troubles::Subject;
use crate::types::{GroupId, NodeId};

/// A leader's node that is gone is noticed by the links; what these times catch is rare. The second is also how long a
/// leader's lease lasts.
const ELECTION_MS_MIN: u64 = 6_500;
pub(super) const ELECTION_MS_MAX: u64 = 9_000;

impl Registry {
    /// Starts a group: from what is on disk, or new as `begin` says.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(
        &self,
        group: GroupId,
        machine: Box<dyn Machine>,
        preamble: Option<Preamble>,
        begin: Begin,
    ) -> Result<Group, StartError> {
        if lock(&self.running).contains_key(&group) {
            return Err(StartError::Running(group));
        }
        if let Some(down) = lock(&self.down).get(&group) {
            return Err(StartError::Damaged { group, reason: down.reason.clone() });
        }
        let known = lock(&self.recovered).get(&group).cloned();
        let opened = self.open_group(group, machine, preamble, begin).await;
        let opened = opened.inspect_err(|error| self.stays_down(group, known, error))?;
        self.troubles.clear(Subject::Group(group));
        lock(&self.running).insert(group, opened.clone());
        self.changes.note(group);
        Ok(opened)
    }

    /// Remembers a group that has data and did not start. Its data stays as it is until the node is started again, or the
    /// group is set aside.
    fn stays_down(&self, group: GroupId, known: Option<RecoveredGroup>, error: &StartError) {
        let (reason, damaged) = match error {
            StartError::Damaged { reason, .. } => (reason.clone(), true),
            other => (other.to_string(), false),
        };
        self.troubles.raise(Subject::Group(group), error.class(), path_of(error), error.to_string());
        // What is new and did not start left nothing behind that another attempt could not use.
        if known.is_some() || damaged {
            lock(&self.down).insert(group, Down { known, damaged, reason });
        }
    }

    /// What the journal knows of a group, unless damage may have taken something of it.
    fn take_recovered(&self, group: GroupId) -> Result<Option<RecoveredGroup>, StartError> {
        let mut recovered = lock(&self.recovered);
        if recovered.get(&group).is_some_and(|recovered| !recovered.damaged) {
            return Ok(recovered.remove(&group));
        }
        let known = recovered.contains_key(&group);
        let hit = self.damage.iter().find(|damage| match &damage.groups {
            Suspect::Named(groups) => groups.contains(&group),
            Suspect::All => true,
        });
        match hit {
            Some(damage) => {
                let Damage { file, range, reason, .. } = damage;
                let reason = format!("{} bytes {}..{}: {reason}", file.display(), range.start, range.end);
                Err(StartError::Damaged { group, reason })
            }
            None if known => Err(StartError::Damaged { group, reason: "the journal lost a part of it".into() }),
            None => Ok(None),
        }
    }

    async fn create(&self, group: GroupId, joins: bool) -> io::Result<RecoveredGroup> {
        let (incarnation, lives) = (self.lives.next(), self.lives.clone());
        self.options.driver.try_run(move || lives.set_joining(group, joins)).await?;
        let membership = Bytes::new();
        self.write_through(vec![Record::Switch { group, incarnation, snapshot: None, membership }]).await?;
        Ok(RecoveredGroup::empty(incarnation))
    }

    async fn open_group(
        &self,
        group: GroupId,
        machine: Box<dyn Machine>,
        preamble: Option<Preamble>,
        begin: Begin,
    ) -> Result<Group, StartError> {
        let io = |source: io::Error| StartError::Io { group, source };
        let (log, machine) = self.open_storage(group, machine, begin == Begin::Join).await?;
        let (lives, last) = (self.lives.clone(), log.last().map(|last| last.index));
        let joining = self.options.driver.try_run(move || lives.joining(group, last)).await;
        let joining = Arc::new(joining.map_err(io)?);
        let campaigns = begin_log(&log, begin, self.options.node_id).await.map_err(io)?;
        let (config, node_id, machine_gone) = (raft_config(group).map_err(io)?, self.options.node_id, machine.gone());
        let (urgency, transfers, peers) = (Urgency::default(), self.transfers.clone(), self.options.peers.clone());
        let network = Network { group, peers, urgency: urgency.clone(), transfers, held: machine.held() };
        let started = Raft::new(node_id, config, network, LogStore::new(log.clone()), machine).await;
        let raft = started.map_err(|error| match log.damage().borrow().clone() {
            Some(reason) => StartError::Damaged { group, reason },
            None => io(io::Error::other(error)),
        })?;
        // Of the core itself: what its metrics say is empty until it runs.
        let voters = raft.with_raft_state(|state| state.membership_state.effective().voter_ids().collect::<Vec<_>>()).await;
        let alone = voters.map_err(|error| io(io::Error::other(error)))? == [node_id];
        if campaigns || alone && joining.is_over(last) {
            // Nobody leads, and others expect that this node will: there is no reason to wait for an election timeout.
            raft.trigger().elect(true).await.map_err(|error| io(io::Error::other(error)))?;
        }
        self.flusher.opened(&log);
        self.holders.opened(&log);
        let proposals = Proposals::start(group, raft.clone(), preamble, urgency.clone());
        let (standing, standing_now) = watch::channel(Standing::default());
        let stopping = CancellationToken::new();
        let ends = (stopping.clone(), machine_gone.clone());
        let heard = Arc::new(Heard::now());
        tokio::spawn(Watched::new(group, &raft, log.damage(), heard.clone()).keep(standing, self.changes.clone(), ends));
        Ok(Group::new(Parts {
            raft,
            log,
            proposals,
            flusher: self.flusher.clone(),
            admission: self.admission.clone(),
            tail_budget: self.tail_budget.clone(),
            urgency,
            heard,
            joining,
            standing: standing_now,
            stopping,
            machine_gone,
        }))
    }

    /// The log and the machine of a group: what is on disk, or empty.
    pub(crate) async fn open_storage(
        &self,
        group: GroupId,
        machine: Box<dyn Machine>,
        joins: bool,
    ) -> Result<(Arc<GroupLog>, MachineStore), StartError> {
        let recovered = match self.take_recovered(group)? {
            Some(recovered) => recovered,
            None => self.create(group, joins).await.map_err(|source| StartError::Io { group, source })?,
        };
        let (lives, journal, flusher) = (self.lives.clone(), self.journal.clone(), self.flusher.clone());
        let budget = self.tail_budget.clone();
        let open = move || -> Result<(Arc<GroupLog>, MachineStore), StartError> {
            let failed = |error: io::Error| failed(group, error);
            let segments = lives.open_segments(group, recovered.incarnation, recovered.segments_synced);
            let segments = segments.map_err(|error| failed(io::Error::other(error)))?;
            let log = Arc::new(GroupLog::open(group, lives, journal, recovered, segments, budget).map_err(failed)?);
            let machine = MachineStore::open(log.clone(), machine, flusher).map_err(failed)?;
            Ok((log, machine))
        };
        self.options.driver.run(open).await.map_err(|source| StartError::Io { group, source })?
    }
}

/// Puts the first entry into an empty log, the same on each of its voters: so that any of them can campaign, whoever
/// of the others is not there yet. Returns whether this node is to campaign at once.
async fn begin_log(log: &GroupLog, begin: Begin, node_id: NodeId) -> io::Result<bool> {
    let Begin::Initialize(voters) = begin else { return Ok(false) };
    let is_new = log.vote().is_none() && log.last().is_none();
    if !is_new || !voters.contains(&node_id) {
        return Ok(false);
    }
    let (tx, rx) = tokio::sync::oneshot::channel();
    log.append(vec![first_entry(&voters)?], move |result| drop(tx.send(result)))?;
    rx.await.map_err(|_| io::Error::other("the journal stopped"))??;
    Ok(voters.first() == Some(&node_id))
}

/// Log, segments and rows that were read, and are wrong or do not fit together, are damage; what could not be read or written
/// says nothing about the data.
fn failed(group: GroupId, source: io::Error) -> StartError {
    match Class::of(&source) {
        Class::Damage => StartError::Damaged { group, reason: source.to_string() },
        _ => StartError::Io { group, source },
    }
}

fn raft_config(group: GroupId) -> io::Result<Arc<Config>> {
    let config = Config {
        cluster_name: format!("group-{group}"),
        // We alone send heartbeats and campaign: see `pulse.rs` and `elections.rs`.
        enable_tick: false,
        heartbeat_interval: u64::try_from(HEARTBEAT.as_millis()).map_err(io::Error::other)?,
        election_timeout_min: ELECTION_MS_MIN,
        election_timeout_max: ELECTION_MS_MAX,
        // We alone trigger snapshots and purges: see `Group::release_below`.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        enable_pre_vote: Some(true),
        // A restarted leader must win an election, or it proposes other entries under ids that followers hold.
        enable_leader_restore: Some(false),
        ..Config::default()
    };
    Ok(Arc::new(config.validate().map_err(io::Error::other)?))
}
