//! How a group starts: from what is on disk, or new.

use std::io;
use std::sync::Arc;

use openraft::{Config, SnapshotPolicy};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::closing::Closing;
use super::pulse::HEARTBEAT;
use super::states::{Claim, Down, Known};
use super::{Begin, Registry, StartError};
use crate::barrier::Barriers;
use crate::disk::error::Class;
use crate::group::{Group, Parts, Raft};
use crate::heard::Heard;
use crate::joining::Joining;
use crate::journal::{Record, RecoveredGroup};
use crate::log::convert::first_entry;
use crate::log::group_log::GroupLog;
use crate::log::machine_store::MachineStore;
use crate::log::store::LogStore;
use crate::machine::Machine;
use crate::network::{Network, Urgency};
use crate::proposals::{Preamble, Proposals};
use crate::quorum::Quorum;
use crate::standing::{Standing, Watched};
use crate::tripwire::Tripwire;
use crate::types::{GroupId, Replica, ReplicaId};

/// A leader's node that is gone is noticed by the links; what these times catch is rare. The second is also how long a
/// leader's lease lasts.
const ELECTION_MS_MIN: u64 = 6_500;
pub(super) const ELECTION_MS_MAX: u64 = 9_000;

/// What a group is started with.
pub(super) struct Opening {
    pub(super) group: GroupId,
    pub(super) replica: ReplicaId,
    pub(super) machine: Box<dyn Machine>,
    pub(super) preamble: Option<Preamble>,
    pub(super) begin: Begin,
}

/// Why a group did not start, and what is known of it now.
type Failed = (StartError, Known);

impl Registry {
    /// Starts a replica of a group: from what is on disk, or new as `begin` says. It is new only if it was never here.
    ///
    /// # Errors
    /// See [`StartError`]. A group of which anything is here is down then: see [`Registry::outage`].
    pub async fn start(
        &self,
        group: GroupId,
        replica: ReplicaId,
        machine: Box<dyn Machine>,
        preamble: Option<Preamble>,
        begin: Begin,
    ) -> Result<Group, StartError> {
        let (claim, known) = self.groups.claim_start(group)?;
        self.bring_up(claim, known, Opening { group, replica, machine, preamble, begin }).await
    }

    /// Starts a group from rest; whatever happens, it is in a state afterwards.
    pub(super) async fn bring_up(&self, claim: Claim<'_>, known: Known, opening: Opening) -> Result<Group, StartError> {
        match self.try_start(known, opening).await {
            Ok(group) => claim.end_running(&group).map(|()| group),
            Err((error, known)) => {
                claim.end_down(Down::of(&error, known));
                Err(error)
            }
        }
    }

    async fn try_start(&self, known: Known, opening: Opening) -> Result<Group, Failed> {
        let Opening { group, replica, machine, preamble, begin } = opening;
        let failed = |error: io::Error| failed(group, error);
        let recovered = self.begin_with((group, replica), known, &begin).await?;
        let (lives, last) = (self.lives.clone(), recovered.last.map(|last| last.index));
        let joining = self.options.driver.try_run(move || lives.joining(group, last)).await;
        let opened = match joining {
            Ok(joining) => {
                self.open_storage(group, (*recovered).clone(), machine).await.map(|opened| (Arc::new(joining), opened))
            }
            Err(error) => Err(failed(error)),
        };
        let (joining, (log, machine)) = opened.map_err(|error| (error, Known::Stopped(recovered)))?;
        self.flusher.opened(&log);
        self.holders.opened(&log);
        let machine_gone = machine.gone();
        let started = self.start_core(log.clone(), machine, joining, preamble, begin).await;
        let (started, campaigns) = match started {
            Ok(started) => started,
            Err(error) => return Err((error, self.settle(Closing::of(log, machine_gone)).await.0)),
        };
        match self.campaign(&started, campaigns).await {
            Ok(()) => Ok(started),
            Err(error) => Err((failed(error), self.settle(Closing::begin(&started)).await.0)),
        }
    }

    /// What a group at rest begins with.
    async fn begin_with(
        &self,
        (group, replica): (GroupId, ReplicaId),
        known: Known,
        begin: &Begin,
    ) -> Result<Box<RecoveredGroup>, Failed> {
        let io = |source: io::Error| StartError::Io { group, source };
        match known {
            Known::Stopped(recovered) if recovered.replica != replica => {
                let reason = format!("its replica {} is here, not replica {replica}", recovered.replica);
                Err((StartError::Down { group, reason }, Known::Stopped(recovered)))
            }
            Known::Stopped(recovered) => Ok(recovered),
            Known::Closing(closing) => match self.give_back(&closing).await {
                Ok(recovered) => Ok(Box::new(recovered)),
                Err(error) => Err((io(error), Known::Closing(closing))),
            },
            Known::New if *begin == Begin::Resume => {
                let reason = format!("replica {replica} is lost: its group counts on it, and nothing of it is here");
                Err((StartError::Damaged { group, reason }, Known::New))
            }
            Known::New => self.create(group, replica).await.map(Box::new).map_err(|error| (io(error), Known::New)),
            Known::Nothing => {
                let reason = "nobody knows what is here of it".to_owned();
                Err((StartError::Down { group, reason }, Known::Nothing))
            }
        }
    }

    async fn create(&self, group: GroupId, replica: ReplicaId) -> io::Result<RecoveredGroup> {
        let incarnation = self.lives.next();
        self.write_through(vec![Record::Create { group, replica, incarnation }]).await?;
        Ok(RecoveredGroup::empty(replica, incarnation))
    }

    /// Starts the group's core, and whether it is to campaign at once.
    async fn start_core(
        &self,
        log: Arc<GroupLog>,
        machine: MachineStore,
        joining: Arc<Joining>,
        preamble: Option<Preamble>,
        begin: Begin,
    ) -> Result<(Group, bool), StartError> {
        let (group, replica) = (log.group(), Replica { id: log.replica, node: self.options.node_id });
        let io = |source: io::Error| StartError::Io { group, source };
        let campaigns = begin_log(&log, begin, replica).await.map_err(io)?;
        let (config, machine_gone) = (raft_config(group).map_err(io)?, machine.gone());
        let (urgency, transfers, peers) = (Urgency::default(), self.transfers.clone(), self.options.peers.clone());
        let network = Network { group, peers, urgency: urgency.clone(), transfers, held: machine.held() };
        let started = Raft::new(replica.id, config, network, LogStore::new(log.clone()), machine).await;
        let raft = started.map_err(|error| match log.damage().borrow().clone() {
            Some(reason) => StartError::Damaged { group, reason },
            None => io(io::Error::other(error)),
        })?;
        let (standing, standing_now) = watch::channel(Standing::default());
        let quorum = Quorum::new(standing_now.clone(), &self.options.peers);
        let proposals = Proposals::start(group, (raft.clone(), urgency.clone()), quorum.clone(), preamble);
        let stopping = CancellationToken::new();
        let ends = (stopping.clone(), machine_gone.clone());
        let heard = Arc::new(Heard::now());
        tokio::spawn(Watched::new(group, &raft, log.damage(), heard.clone()).keep(standing, self.changes.clone(), ends));
        let parts = Parts {
            replica,
            raft,
            log,
            proposals,
            barriers: Barriers::default(),
            flusher: self.flusher.clone(),
            admission: self.admission.share(),
            quorum,
            tail_budget: self.tail_budget.clone(),
            urgency,
            heard,
            joining,
            tripwire: Tripwire::new(group, self.troubles.clone()),
            standing: standing_now,
            stopping,
            machine_gone,
        };
        Ok((Group::new(parts), campaigns))
    }

    /// Campaigns where nobody leads and others expect that this node will: there is no reason to wait for an election timeout.
    async fn campaign(&self, group: &Group, campaigns: bool) -> io::Result<()> {
        let raft = group.raft();
        // Of the core itself: what its metrics say is empty until it runs.
        let voters = raft.with_raft_state(|state| state.membership_state.effective().voter_ids().collect::<Vec<_>>()).await;
        let alone = voters.map_err(io::Error::other)? == [group.replica()];
        if campaigns || alone && group.may_elect() {
            raft.trigger().elect(true).await.map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// The log and the machine of a group.
    async fn open_storage(
        &self,
        group: GroupId,
        recovered: RecoveredGroup,
        machine: Box<dyn Machine>,
    ) -> Result<(Arc<GroupLog>, MachineStore), StartError> {
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

    /// The storage of a group without a core: a test is the core.
    #[cfg(test)]
    pub(crate) async fn open_without_core(&self, group: GroupId, machine: Box<dyn Machine>) -> (Arc<GroupLog>, MachineStore) {
        let Ok((claim, known)) = self.groups.claim_start(group) else { panic!("group {group} is not at rest") };
        let replica = known.replica().unwrap_or(crate::log::tests::node::REPLICA.id);
        let begun = self.begin_with((group, replica), known, &Begin::Wait).await;
        let Ok(recovered) = begun else { panic!("group {group} was not created") };
        let Ok(opened) = self.open_storage(group, *recovered, machine).await else { panic!("group {group} was not opened") };
        claim.end_down(Down::passing("a test has it".to_owned(), Known::Nothing));
        opened
    }
}

/// Puts the first entry into an empty log, the same on each of its voters: so that any of them can campaign, whoever
/// of the others is not there yet. Returns whether this one is to campaign at once.
async fn begin_log(log: &GroupLog, begin: Begin, replica: Replica) -> io::Result<bool> {
    let Begin::Initialize(voters) = begin else { return Ok(false) };
    let is_new = log.vote().is_none() && log.last().is_none();
    if !is_new || !voters.contains(&replica) {
        return Ok(false);
    }
    let (tx, rx) = tokio::sync::oneshot::channel();
    log.append(vec![first_entry(&voters)?], move |result| drop(tx.send(result)))?;
    rx.await.map_err(|_| io::Error::other("the journal stopped"))??;
    Ok(voters.first() == Some(&replica))
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
