//! What this node has of each group: one state per group, and every way from one to the next.
//!
//! ```text
//!              start                                 remove
//!   (absent) ─────────► Starting ─────► Running ─────► Removing ──► (absent, removed)
//!                ▲          │              │ condemn       │
//!   Stopped ─────┤          ▼              ▼ restart       │
//!                └──────── Down ◄────── Stopping           │
//!                          ▲  └──────────────────────────►─┤
//!                          └───────────────────────────────┘
//! ```
//!
//! Absent is who is not in the map: the journal has nothing of it, or says that it was removed. That is the only place from
//! which a log begins, and the journal refuses to begin one anywhere else. A group of which anything is here is in one of the
//! states, whatever fails: who wants to change it holds a [`Claim`], and nobody else gets one meanwhile, so that nothing is
//! started, stopped or deleted twice at once. A claim ends in a state; one that is dropped on the way, by a panic or because its
//! task is gone, leaves the group down.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::StartError;
use super::closing::Closing;
use crate::disk::error::{Class, path_of};
use crate::group::Group;
use crate::journal::RecoveredGroup;
use crate::standing::Changes;
use crate::troubles::{Subject, Troubles};
use crate::types::{GroupId, ReplicaId, Vote};

/// The state of a group that is not absent.
pub(super) enum GroupState {
    /// Its data is here, and nobody has opened it.
    Stopped(Box<RecoveredGroup>),
    /// Somebody holds the claim.
    Claimed(Step),
    /// It runs.
    Running(Group),
    /// It cannot run.
    Down(Box<Down>),
}

/// What whoever holds a claim is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Starting,
    Stopping,
    Removing,
    /// What it had is set aside, because of this damage.
    BeginningAgain(String),
}

/// Why a group is down, and what is known of it.
pub(super) struct Down {
    pub(super) reason: String,
    pub(super) class: Class,
    /// Which file or directory it is about, if it is about one.
    pub(super) file: Option<PathBuf>,
    pub(super) known: Known,
}

/// What helps a group that is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Its data is damaged. It is not started again before it is set aside, or its loss accepted.
    Damaged,
    /// Something failed that may work the next time: it is tried again.
    Passing,
    /// Nobody knows how far it came. The node has to start again.
    Unknown,
}

/// What is known of a group that does not run.
pub(super) enum Known {
    /// It is not here yet: it may be created.
    New,
    /// What a start from the disk would find.
    Stopped(Box<RecoveredGroup>),
    /// It was stopped, and what it had in memory is not given back yet.
    Closing(Closing),
    /// There is data, and the journal does not know of it.
    Nothing,
}

/// Why a group does not run here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outage {
    /// In words.
    pub reason: String,
    /// What helps.
    pub cause: Cause,
}

/// The groups of a node, shared with whoever looks for those that run.
pub(crate) struct Groups {
    inner: Mutex<Inner>,
    changes: Arc<Changes>,
    /// Where it is said which of them are down.
    troubles: Troubles,
}

struct Inner {
    states: BTreeMap<GroupId, GroupState>,
    /// The last replica of each group that was removed.
    removed: BTreeMap<GroupId, ReplicaId>,
    /// The node closes: nothing begins any more.
    closed: bool,
}

/// The right to take a group to another state.
pub(super) struct Claim<'a> {
    groups: &'a Groups,
    id: GroupId,
    ended: bool,
}

impl Outage {
    /// Its data is damaged.
    #[must_use]
    pub fn damaged(reason: String) -> Self {
        Self { reason, cause: Cause::Damaged }
    }
}

impl Down {
    pub(super) fn damaged(reason: String, known: Known) -> Self {
        Self { reason, class: Class::Damage, file: None, known }
    }

    pub(super) fn passing(reason: String, known: Known) -> Self {
        Self { reason, class: Class::Passing, file: None, known }
    }

    /// Because it did not start.
    pub(super) fn of(error: &StartError, known: Known) -> Self {
        let class = match error.class() {
            // What is open about its files is found out by opening them again.
            Class::Final if !matches!(known, Known::Nothing) => Class::Passing,
            class => class,
        };
        Self { reason: error.reason(), class, file: path_of(error).map(Into::into), known }
    }

    fn cause(&self) -> Cause {
        match (self.class, &self.known) {
            (Class::Damage, _) => Cause::Damaged,
            (_, Known::Nothing) => Cause::Unknown,
            (Class::Full | Class::Final | Class::Passing, _) => Cause::Passing,
        }
    }

    fn outage(&self) -> Outage {
        Outage { reason: self.reason.clone(), cause: self.cause() }
    }
}

impl Known {
    /// Which replica it is; `None` if nothing is here, or nobody knows.
    pub(super) fn replica(&self) -> Option<ReplicaId> {
        match self {
            Self::Stopped(recovered) => Some(recovered.replica),
            Self::Closing(closing) => Some(closing.log().replica),
            Self::New | Self::Nothing => None,
        }
    }

    pub(super) fn vote(&self) -> Option<Vote> {
        match self {
            Self::Stopped(recovered) => recovered.vote,
            Self::Closing(closing) => closing.log().vote(),
            Self::New | Self::Nothing => None,
        }
    }
}

impl Groups {
    pub(super) fn new(
        states: BTreeMap<GroupId, GroupState>,
        removed: BTreeMap<GroupId, ReplicaId>,
        (changes, troubles): (Arc<Changes>, Troubles),
    ) -> Arc<Self> {
        let groups = Self { inner: Mutex::new(Inner { states, removed, closed: false }), changes, troubles };
        for (id, state) in &groups.lock().states {
            groups.say(*id, Some(state));
        }
        Arc::new(groups)
    }

    /// Says in the node's list of troubles whether a group is down.
    fn say(&self, id: GroupId, state: Option<&GroupState>) {
        match state {
            Some(GroupState::Down(down)) => {
                self.troubles.raise(Subject::Group(id), down.class, down.file.as_deref(), down.reason.clone());
            }
            Some(GroupState::Claimed(_)) => {}
            Some(GroupState::Stopped(_) | GroupState::Running(_)) | None => self.troubles.clear(Subject::Group(id)),
        }
    }

    /// A group that runs.
    pub(crate) fn running(&self, id: GroupId) -> Option<Group> {
        match self.lock().states.get(&id) {
            Some(GroupState::Running(group)) => Some(group.clone()),
            _ => None,
        }
    }

    /// The groups that run, in the order of their ids.
    pub(crate) fn all_running(&self) -> Vec<Group> {
        let inner = self.lock();
        inner.states.values().filter_map(GroupState::running).cloned().collect()
    }

    /// Shows each group that runs, one after the other.
    pub(super) fn for_each_running(&self, show: impl FnMut(&Group)) {
        self.lock().states.values().filter_map(GroupState::running).for_each(show);
    }

    /// Groups of which this node has data, or is to create some, and that do not run.
    pub(super) fn not_running(&self) -> Vec<GroupId> {
        let inner = self.lock();
        let idle = |state: &GroupState| match state {
            GroupState::Stopped(_) => true,
            GroupState::Down(down) => !matches!(down.known, Known::Nothing),
            GroupState::Claimed(_) | GroupState::Running(_) => false,
        };
        inner.states.iter().filter(|(_, state)| idle(state)).map(|(id, _)| *id).collect()
    }

    pub(super) fn outage(&self, id: GroupId) -> Option<Outage> {
        match self.lock().states.get(&id)? {
            GroupState::Down(down) => Some(down.outage()),
            GroupState::Claimed(Step::BeginningAgain(reason)) => Some(Outage { reason: reason.clone(), cause: Cause::Damaged }),
            _ => None,
        }
    }

    /// The replica of a group that is here, running or not; `None` if nothing is here, nobody knows, or it is just changing.
    pub(super) fn replica_here(&self, id: GroupId) -> Option<ReplicaId> {
        match self.lock().states.get(&id)? {
            GroupState::Stopped(recovered) => Some(recovered.replica),
            GroupState::Running(group) => Some(group.replica()),
            GroupState::Down(down) => down.known.replica(),
            GroupState::Claimed(_) => None,
        }
    }

    /// The last replica of a group that was removed.
    pub(super) fn removed(&self, id: GroupId) -> Option<ReplicaId> {
        self.lock().removed.get(&id).copied()
    }

    /// The groups that were removed and are not here again.
    pub(super) fn all_removed(&self) -> Vec<GroupId> {
        let inner = self.lock();
        inner.removed.keys().filter(|id| !inner.states.contains_key(id)).copied().collect()
    }

    pub(super) fn forget(&self, ids: &[GroupId]) {
        let mut inner = self.lock();
        ids.iter().for_each(|id| _ = inner.removed.remove(id));
    }

    /// From absent, stopped, or down for a passing reason.
    pub(super) fn claim_start(&self, id: GroupId) -> Result<(Claim<'_>, Known), StartError> {
        self.claim(id, Step::Starting, |state| match state {
            None => Ok(Known::New),
            Some(state) => from_rest(id, state),
        })
    }

    /// From running, stopped, or down for a passing reason.
    pub(super) fn claim_restart(&self, id: GroupId) -> Result<(Claim<'_>, Known), StartError> {
        self.claim(id, Step::Stopping, |state| match state {
            None => Err((None, StartError::Down { group: id, reason: "it is not here".to_owned() })),
            Some(GroupState::Running(group)) => Ok(Known::Closing(Closing::begin(&group))),
            Some(state) => from_rest(id, state),
        })
    }

    /// From running; `None` if it does not.
    pub(super) fn claim_condemned(&self, id: GroupId) -> Option<(Claim<'_>, Closing)> {
        let mut inner = self.lock();
        let Some(GroupState::Running(group)) = inner.states.get(&id) else { return None };
        let closing = Closing::begin(group);
        inner.states.insert(id, GroupState::Claimed(Step::Stopping));
        Some((Claim::new(self, id), closing))
    }

    /// From down because of damage, which is told; `None` if it is not.
    pub(super) fn claim_damaged(&self, id: GroupId) -> Option<(Claim<'_>, Known, String)> {
        let mut inner = self.lock();
        let Entry::Occupied(mut entry) = inner.states.entry(id) else { return None };
        let GroupState::Down(down) = entry.get() else { return None };
        if down.cause() != Cause::Damaged {
            return None;
        }
        let reason = down.reason.clone();
        let before = entry.insert(GroupState::Claimed(Step::BeginningAgain(reason.clone())));
        let known = match before {
            GroupState::Down(down) => down.known,
            _ => Known::Nothing,
        };
        Some((Claim::new(self, id), known, reason))
    }

    /// From any state in which somebody knows what is there.
    pub(super) fn claim_removal(&self, id: GroupId) -> Result<(Claim<'_>, Known), StartError> {
        self.claim(id, Step::Removing, |state| match state {
            None => Ok(Known::New),
            Some(GroupState::Running(group)) => Ok(Known::Closing(Closing::begin(&group))),
            Some(GroupState::Stopped(recovered)) => Ok(Known::Stopped(recovered)),
            // Nothing is deleted of which nobody knows what it is.
            Some(GroupState::Down(down)) if !matches!(down.known, Known::Nothing) => Ok(down.known),
            Some(state) => Err(refused(id, state)),
        })
    }

    /// Nothing begins any more. Returns the groups that ran.
    pub(super) fn close(&self) -> Vec<Group> {
        let mut inner = self.lock();
        inner.closed = true;
        let running: Vec<Group> = inner.states.values().filter_map(GroupState::running).cloned().collect();
        for group in &running {
            inner.states.insert(group.id(), GroupState::Claimed(Step::Stopping));
        }
        running
    }

    /// Takes a group out of its state if `take` allows it.
    fn claim(
        &self,
        id: GroupId,
        step: Step,
        take: impl FnOnce(Option<GroupState>) -> Result<Known, (Option<GroupState>, StartError)>,
    ) -> Result<(Claim<'_>, Known), StartError> {
        let mut inner = self.lock();
        if inner.closed {
            return Err(StartError::Closed);
        }
        let known = match take(inner.states.remove(&id)) {
            Ok(known) => known,
            Err((state, error)) => {
                if let Some(state) = state {
                    inner.states.insert(id, state);
                }
                return Err(error);
            }
        };
        inner.states.insert(id, GroupState::Claimed(step));
        Ok((Claim::new(self, id), known))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a start may begin with.
fn from_rest(id: GroupId, state: GroupState) -> Result<Known, (Option<GroupState>, StartError)> {
    match state {
        GroupState::Stopped(recovered) => Ok(Known::Stopped(recovered)),
        GroupState::Down(down) if down.cause() == Cause::Passing => Ok(down.known),
        state => Err(refused(id, state)),
    }
}

fn refused(id: GroupId, state: GroupState) -> (Option<GroupState>, StartError) {
    let down = |reason: &str| StartError::Down { group: id, reason: reason.to_owned() };
    let error = match &state {
        GroupState::Stopped(_) => down("it is stopped"),
        GroupState::Running(_) => StartError::Running(id),
        GroupState::Claimed(step) => StartError::Busy { group: id, doing: step.in_words() },
        GroupState::Down(of) if of.cause() == Cause::Damaged => StartError::Damaged { group: id, reason: of.reason.clone() },
        GroupState::Down(of) => down(&of.reason),
    };
    (Some(state), error)
}

impl Step {
    fn in_words(&self) -> &'static str {
        match self {
            Self::Starting => "being started",
            Self::Stopping => "being stopped",
            Self::Removing => "being removed",
            Self::BeginningAgain(_) => "beginning again without what was damaged",
        }
    }
}

impl GroupState {
    fn running(&self) -> Option<&Group> {
        match self {
            Self::Running(group) => Some(group),
            _ => None,
        }
    }
}

impl<'a> Claim<'a> {
    fn new(groups: &'a Groups, id: GroupId) -> Self {
        Self { groups, id, ended: false }
    }

    /// The group was stopped, and is to be started next.
    pub(super) fn goes_on(&self, step: Step) {
        self.put(Some(GroupState::Claimed(step)));
    }

    /// It runs, unless the node closes: then it is told to end.
    pub(super) fn end_running(self, group: &Group) -> Result<(), StartError> {
        let mut inner = self.groups.lock();
        if inner.closed {
            drop(inner);
            let closing = Closing::begin(group);
            self.end_down(Down::passing("the node closes".to_owned(), Known::Closing(closing)));
            return Err(StartError::Closed);
        }
        let state = GroupState::Running(group.clone());
        self.groups.say(self.id, Some(&state));
        inner.states.insert(self.id, state);
        drop(inner);
        self.end_as_put();
        Ok(())
    }

    pub(super) fn end_stopped(self, recovered: RecoveredGroup) {
        self.end(Some(GroupState::Stopped(Box::new(recovered))));
    }

    pub(super) fn end_down(self, down: Down) {
        self.end(Some(GroupState::Down(Box::new(down))));
    }

    /// Nothing of it is here any more, and the journal knows that this was its last replica.
    pub(super) fn end_removed(self, replica: Option<ReplicaId>) {
        if let Some(replica) = replica {
            self.groups.lock().removed.insert(self.id, replica);
        }
        self.end(None);
    }

    fn end(self, state: Option<GroupState>) {
        self.put(state);
        self.end_as_put();
    }

    fn put(&self, state: Option<GroupState>) {
        self.groups.say(self.id, state.as_ref());
        let mut inner = self.groups.lock();
        match state {
            Some(state) => inner.states.insert(self.id, state),
            None => inner.states.remove(&self.id),
        };
    }

    fn end_as_put(mut self) {
        self.ended = true;
        self.groups.changes.note(self.id);
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if !self.ended {
            let reason = "what was being done with it was broken off: the node has to be started again".to_owned();
            let (class, file, known) = (Class::Final, None, Known::Nothing);
            self.put(Some(GroupState::Down(Box::new(Down { reason, class, file, known }))));
            self.groups.changes.note(self.id);
        }
    }
}
