//! One schedule: the real journal on a simulated disk, groups that use it like a log store would, and faults. All of it
//! follows from a seed.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use flotilla_raft::disk::sim::{Rng, SimDisk};
use flotilla_raft::journal::{
    Journal, JournalError, JournalHandle, JournalObserver, JournalOptions, JournalSeq, Record, Recovered, Recycle, Step,
};
use flotilla_raft::types::{Body, Entry, GroupId, Incarnation, Item, LogId, ReplicaId, Vote};

use super::model::Model;

const DIR: &str = "/data/journal";
const GROUPS: u64 = 5;
/// Unapplied bytes that the "node" admits; less than what the ring may grow by.
const LIVE_BYTES_MAX: usize = 96 << 10;

/// Tiny files, so that a few dozen batches go around the ring.
pub fn options() -> JournalOptions {
    JournalOptions {
        file_bytes: 64 << 10,
        files_max: 4,
        files_hard_max: 8,
        seal_after: Duration::from_millis(5),
        batch_bytes_max: 24 << 10,
    }
}

/// What callbacks and observer say, in order.
#[derive(Debug, Default)]
struct Reports {
    replies: Mutex<Vec<(u64, Result<(), io::ErrorKind>)>>,
    wishes: Mutex<Vec<Recycle>>,
}

impl JournalObserver for Reports {
    fn recycle(&self, wishes: &[Recycle]) {
        self.wishes.lock().unwrap().extend_from_slice(wishes);
    }
}

/// A submission that was not answered yet.
struct Unanswered {
    id: u64,
    records: Vec<Record>,
    valid: bool,
}

/// Figures that prove that a set of schedules reached what it is for.
#[derive(Debug, Default, Clone, Copy)]
pub struct Reached {
    pub acknowledged: u64,
    pub reopened: u64,
    pub failed: u64,
    pub wishes: u64,
    pub waited: u64,
    pub crashed_while_opening: u64,
    pub disk_full: u64,
}

pub struct World {
    pub disk: SimDisk,
    pub rng: Rng,
    pub reached: Reached,
    journal: Option<Journal>,
    handle: Option<JournalHandle>,
    reports: Arc<Reports>,
    now: Duration,
    next_id: u64,
    next_incarnation: u64,
    /// Raised whenever an index may be written a second time: a log id names one entry for ever.
    term: u64,
    boot_epoch: u64,
    /// The state after everything that was acknowledged, and after everything that was submitted.
    acknowledged: Model,
    submitted: Model,
    unanswered: Vec<Unanswered>,
    /// What segments announced, per life of a group.
    announced: BTreeMap<GroupId, (Incarnation, LogId)>,
    /// What the last opening knew to be synced.
    known_synced: BTreeMap<GroupId, (Incarnation, LogId)>,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let disk = SimDisk::new(seed ^ 0xD15C);
        Self {
            disk,
            rng: Rng::new(seed),
            reached: Reached::default(),
            journal: None,
            handle: None,
            reports: Arc::default(),
            now: Duration::ZERO,
            next_id: 0,
            next_incarnation: 1,
            term: 1,
            boot_epoch: 0,
            acknowledged: Model::default(),
            submitted: Model::default(),
            unanswered: Vec::new(),
            announced: BTreeMap::new(),
            known_synced: BTreeMap::new(),
        }
    }

    /// Opens the journal, sometimes with a crash on the way, and compares what it recovered.
    pub fn open(&mut self) -> Result<(), String> {
        loop {
            if self.rng.below(3) == 0 {
                let operations = self.rng.below(8);
                self.disk.faults(|faults| faults.power_fails_in = Some(operations));
            }
            match Journal::open(Arc::new(self.disk.clone()), Path::new(DIR), options()) {
                Ok((mut journal, recovered)) => {
                    self.disk.faults(|faults| faults.power_fails_in = None);
                    self.reports = Arc::default();
                    journal.observe(self.reports.clone());
                    self.handle = Some(journal.handle());
                    self.journal = Some(journal);
                    self.reached.reopened += 1;
                    return self.check(&recovered);
                }
                Err(JournalError::DiskFull { .. }) => {
                    self.reached.disk_full += 1;
                    self.disk.faults(|faults| faults.capacity_bytes = u64::MAX);
                    self.disk.kill();
                }
                Err(JournalError::Disk { .. }) => {
                    self.reached.crashed_while_opening += 1;
                    if self.rng.below(2) == 0 { self.disk.power_cut() } else { self.disk.kill() }
                }
                Err(error) => return Err(format!("the journal refuses to open: {error}")),
            }
        }
    }

    /// Some prefix of what was submitted must be there, with everything acknowledged in it, and nothing else.
    fn check(&mut self, recovered: &Recovered) -> Result<(), String> {
        if !recovered.damage.is_empty() {
            return Err(format!("damage where none was done: {:?}", recovered.damage));
        }
        if recovered.boot_epoch <= self.boot_epoch {
            return Err(format!("boot epoch {} after {}", recovered.boot_epoch, self.boot_epoch));
        }
        self.boot_epoch = recovered.boot_epoch;
        self.term += 1;
        let mut model = self.acknowledged.clone();
        let mut reason = self.compare(&model, recovered);
        for submission in std::mem::take(&mut self.unanswered).into_iter().filter(|one| one.valid) {
            if reason.is_ok() {
                break;
            }
            model.apply_all(&submission.records);
            reason = self.compare(&model, recovered).map_err(|_| reason.unwrap_err());
        }
        reason?;
        for (id, group) in &recovered.groups {
            if let Some(synced) = group.segments_synced {
                self.known_synced.insert(*id, (group.incarnation, synced));
            }
        }
        self.acknowledged = model.clone();
        self.submitted = model;
        Ok(())
    }

    fn compare(&self, model: &Model, recovered: &Recovered) -> Result<(), String> {
        if !model.groups.keys().eq(recovered.groups.keys()) {
            return Err(format!("groups {:?} instead of {:?}", recovered.groups.keys(), model.groups.keys()));
        }
        if model.removed != recovered.removed {
            return Err(format!("removed {:?} instead of {:?}", recovered.removed, model.removed));
        }
        for (id, group) in &model.groups {
            let of_life = |marks: &BTreeMap<GroupId, (Incarnation, LogId)>| {
                marks.get(id).filter(|mark| mark.0 == group.incarnation).map(|mark| mark.1)
            };
            let snapshot = group.snapshot.as_ref().map(|(log_id, _)| *log_id);
            let announced = of_life(&self.announced).or(snapshot);
            let floor = of_life(&self.known_synced).or(snapshot);
            let recovered = recovered.groups.get(id).unwrap();
            group.check(recovered, announced, floor).map_err(|reason| format!("group {id}: {reason}"))?;
        }
        Ok(())
    }

    fn submit(&mut self, records: Vec<Record>, valid: bool) {
        self.term += u64::from(!records.iter().all(|record| matches!(record, Record::Append { .. })));
        let id = self.next_id;
        self.next_id += 1;
        if valid {
            self.submitted.apply_all(&records);
        }
        self.unanswered.push(Unanswered { id, records: records.clone(), valid });
        let reports = self.reports.clone();
        let done = move |result: io::Result<JournalSeq>| {
            let result = result.map(|_| ()).map_err(|error| error.kind());
            reports.replies.lock().unwrap().push((id, result));
        };
        self.handle.as_ref().unwrap().submit(records, done);
    }

    /// Submits something random.
    pub fn submit_something(&mut self) {
        let group = GroupId(self.rng.below(GROUPS));
        let Some(state) = self.submitted.groups.get(&group).cloned() else {
            if self.rng.below(10) == 0 {
                return self.submit(vec![Record::Committed { group, log_id: LogId::default() }], false);
            }
            return self.submit_beginning(group);
        };
        let last = state.last;
        let floor = self.announced_in(group).map(|mark| mark.index);
        match self.rng.below(20) {
            0..=9 => self.submit_entries(group),
            10..=11 => self.submit_vote(group, state.vote),
            12 => {
                let kept = state.log.values().map(|entry| entry.log_id).filter(|id| floor.is_none_or(|f| f <= id.index));
                let kept: Vec<_> = kept.collect();
                if let Some(after) = kept.get(self.rng.below(kept.len() as u64 + 1) as usize) {
                    self.submit(vec![Record::Truncate { group, after: Some(*after) }], true);
                } else if floor.is_none() && state.snapshot.is_none() && state.purged.is_none() {
                    self.submit(vec![Record::Truncate { group, after: None }], true);
                }
            }
            13..=14 if last.is_some() => {
                self.submit(vec![Record::Committed { group, log_id: last.unwrap() }], true);
            }
            15 => {
                let beyond = self.rng.below(10) == 0;
                let index = last.map_or(0, |last| last.index) + if beyond { 3 } else { 0 };
                let upto = LogId { term: last.map_or(1, |last| last.term), index };
                self.submit(vec![Record::Purge { group, upto }], true);
            }
            16 if self.rng.below(4) == 0 => self.submit_switch(group),
            16 if self.rng.below(4) == 0 => self.submit_again(group),
            16 => self.submit_what_would_lose(group, state.replica),
            17 if self.rng.below(6) == 0 => self.submit(vec![Record::Remove { group }], true),
            18 if last.is_some() => {
                let log_id = LogId { term: 1, index: last.unwrap().index + 2 };
                let entries = vec![Entry { log_id, body: Body::Blank }];
                let vote = Vote { term: 1_000_000, ..Vote::default() };
                self.submit(vec![Record::Vote { group, vote }, Record::Append { group, entries }], false);
            }
            _ => self.announce(group, 1.0),
        }
    }

    /// A group that is not here begins, with a replica that was not here before.
    fn submit_beginning(&mut self, group: GroupId) {
        let removed = self.submitted.removed.get(&group).copied();
        let replica = ReplicaId(removed.map_or(1, |removed: ReplicaId| removed.0) + self.rng.below(3));
        let incarnation = self.incarnation();
        match (self.rng.below(6), removed) {
            (0, Some(_)) => self.submit(vec![Record::Forget { group }], true),
            (1, _) => self.submit_again(group),
            (2, _) => {
                let (snapshot, membership) = (Some(LogId { term: 1, index: 5 }), Bytes::new());
                self.submit(vec![Record::Switch { group, incarnation, snapshot, membership }], false);
            }
            _ => {
                let valid = removed.is_none_or(|removed| replica > removed);
                self.submit(vec![Record::Create { group, replica, incarnation }], valid);
            }
        }
    }

    /// What a group has is given up.
    fn submit_again(&mut self, group: GroupId) {
        let (incarnation, membership) = (self.incarnation(), Bytes::from_static(b"again"));
        let live = self.submitted.groups.get(&group);
        let highest = live.map(|group| group.replica).or(self.submitted.removed.get(&group).copied());
        let term = live.and_then(|group| group.vote).map_or(0, |vote| vote.term);
        let vote = Vote { term: term + 1, ..Vote::default() };
        let snapshot = (self.rng.below(2) == 0).then(|| LogId { term: self.term, index: self.rng.below(100) });
        let replica = ReplicaId((highest.map_or(1, |highest| highest.0) + self.rng.below(3)).saturating_sub(1));
        let records = vec![Record::BeginAgain { group, replica, incarnation, snapshot, membership, vote }];
        self.submit(records, highest.is_none_or(|highest| replica >= highest));
    }

    fn submit_what_would_lose(&mut self, group: GroupId, replica: ReplicaId) {
        let (incarnation, membership) = (self.incarnation(), Bytes::new());
        let record = match self.rng.below(3) {
            0 => Record::Create { group, replica: ReplicaId(replica.0 + 1), incarnation },
            1 => Record::Switch { group, incarnation, snapshot: None, membership },
            _ => Record::Forget { group },
        };
        self.submit(vec![record], false);
    }

    fn submit_vote(&mut self, group: GroupId, before: Option<Vote>) {
        let term = (before.map_or(1, |before| before.term) + self.rng.below(3)).saturating_sub(1);
        let vote = Vote { term, voted_for: Some(ReplicaId(1 + self.rng.below(2))), committed: false };
        let valid = before.is_none_or(|before| {
            term > before.term || term == before.term && (before.voted_for.is_none() || before.voted_for == vote.voted_for)
        });
        self.submit(vec![Record::Vote { group, vote }], valid);
    }

    fn incarnation(&mut self) -> Incarnation {
        self.next_incarnation += 1;
        Incarnation(self.next_incarnation - 1)
    }

    fn submit_switch(&mut self, group: GroupId) {
        let incarnation = self.incarnation();
        let membership = Bytes::from(format!("membership {incarnation}"));
        let last = self.submitted.groups.get(&group).and_then(|state| state.last);
        let synced = self.announced_in(group);
        let snapshot = match (self.rng.below(2), last) {
            (0, Some(last)) => LogId { term: last.term, index: last.index + self.rng.below(3) },
            _ => synced.unwrap_or(LogId { term: 1, index: self.rng.below(50) }),
        };
        // A snapshot must not lie behind what segments hold.
        let valid = synced.is_none_or(|synced| synced.index <= snapshot.index);
        self.submit(vec![Record::Switch { group, incarnation, snapshot: Some(snapshot), membership }], valid);
    }

    fn submit_entries(&mut self, group: GroupId) {
        if self.submitted.live_bytes(&self.announced) > LIVE_BYTES_MAX {
            return self.run_and_flush();
        }
        let state = &self.submitted.groups[&group];
        let last = state.last;
        let overwrite = self.rng.below(8) == 0;
        let floor = self.announced_in(group).or(state.purged).map_or(0, |mark| mark.index + 1);
        let next = last.map_or(0, |last| last.index + 1);
        let first = if overwrite && next > floor { floor + self.rng.below(next - floor) } else { next };
        let first = if state.log.contains_key(&first) { first } else { next };
        self.term += u64::from(first < next || self.rng.below(6) == 0);
        let term = self.term;
        let count = 1 + self.rng.below(4);
        let entries = (first..first + count).map(|index| self.entry(LogId { term, index })).collect();
        self.submit(vec![Record::Append { group, entries }], true);
    }

    fn entry(&mut self, log_id: LogId) -> Entry {
        let body = match self.rng.below(10) {
            0 => Body::Blank,
            1 => Body::Membership(self.payload(100)),
            2 => Body::Items((0..2).map(|kind| Item { kind, payload: self.payload(5500) }).collect()),
            _ => Body::Items([Item { kind: 7, payload: self.payload(600) }].into()),
        };
        Entry { log_id, body }
    }

    fn payload(&mut self, len_max: u64) -> Bytes {
        let len = self.rng.below(len_max) as usize;
        vec![self.rng.next_u64() as u8; len].into()
    }

    fn announced_in(&self, group: GroupId) -> Option<LogId> {
        let state = self.submitted.groups.get(&group)?;
        let mark = self.announced.get(&group).filter(|mark| mark.0 == state.incarnation).map(|mark| mark.1);
        mark.or(state.snapshot.as_ref().map(|(log_id, _)| *log_id))
    }

    /// The flusher: announces a part of the acknowledged entries as synced in segments.
    fn announce(&mut self, group: GroupId, part: f64) {
        let (Some(durable), Some(state)) = (self.acknowledged.groups.get(&group), self.submitted.groups.get(&group)) else {
            return;
        };
        if durable.incarnation != state.incarnation {
            return;
        }
        let agreed: Vec<_> = durable
            .log
            .values()
            .map(|entry| entry.log_id)
            .take_while(|id| state.log.get(&id.index).is_some_and(|entry| entry.log_id == *id))
            .collect();
        let count = (agreed.len() as f64 * part) as usize;
        let Some(upto) = count.checked_sub(1).and_then(|at| agreed.get(at)) else { return };
        if self.announced_in(group).is_none_or(|old| old.index < upto.index) {
            self.announced.insert(group, (state.incarnation, *upto));
            self.handle.as_ref().unwrap().segments_synced(group, state.incarnation, *upto);
        }
    }

    fn run_and_flush(&mut self) {
        for _ in 0..20 {
            if self.step() == Step::Waiting {
                break;
            }
        }
        (0..GROUPS).for_each(|group| self.announce(GroupId(group), 1.0));
    }

    /// Does what the journal asked for: some entries go to segments, the others are journaled again.
    pub fn answer_wishes(&mut self) {
        let wishes = std::mem::take(&mut *self.reports.wishes.lock().unwrap());
        self.reached.wishes += wishes.len() as u64;
        for wish in wishes {
            let part = if self.rng.below(3) == 0 { 0.0 } else { self.rng.below(100) as f64 / 100.0 };
            self.announce(wish.group, part);
            // A mark may have been lost in a crash: like a flusher, say it again.
            if let Some((incarnation, upto)) = self.announced.get(&wish.group) {
                self.handle.as_ref().unwrap().segments_synced(wish.group, *incarnation, *upto);
            }
            let synced = self.announced_in(wish.group).map_or(0, |mark| mark.index + 1);
            // The owner's view may be ahead of the journal's (queued) or behind it (truncated): both must be harmless.
            let view = if self.rng.below(2) == 0 { &self.acknowledged } else { &self.submitted };
            let Some(state) = view.groups.get(&wish.group).filter(|state| state.incarnation == wish.incarnation) else {
                continue;
            };
            if synced <= wish.upto {
                let entries = state.log.range(synced..=wish.upto).map(|(_, entry)| entry.clone()).collect();
                self.handle.as_ref().unwrap().rejournal(wish.group, entries, |_| {});
            }
        }
    }

    pub fn step(&mut self) -> Step {
        self.now += Duration::from_millis(self.rng.below(4));
        let step = self.journal.as_mut().unwrap().step(self.now);
        self.take_replies();
        step
    }

    fn take_replies(&mut self) {
        let replies = std::mem::take(&mut *self.reports.replies.lock().unwrap());
        let mut answered = replies.into_iter();
        while let Some((id, Ok(()) | Err(io::ErrorKind::InvalidInput))) = answered.as_slice().first() {
            let first = self.unanswered.remove(0);
            assert_eq!(first.id, *id, "callbacks come in order");
            let (_, result) = answered.next().unwrap();
            assert_eq!(result.is_ok(), first.valid, "{:?}", first.records);
            if first.valid {
                self.reached.acknowledged += 1;
                self.acknowledged.apply_all(&first.records);
            }
        }
        assert!(answered.all(|(_, result)| result.is_err()), "nothing is acknowledged after a failure");
    }

    /// Steps until nothing waits; what is stuck shows.
    pub fn settle(&mut self) -> Result<Step, String> {
        for _ in 0..2000 {
            match self.step() {
                Step::Wrote => {}
                Step::Waiting => {
                    self.reached.waited += 1;
                    self.disk.faults(|faults| faults.capacity_bytes = u64::MAX);
                    self.now += Duration::from_millis(100);
                    self.answer_wishes();
                }
                other => return Ok(other),
            }
        }
        Err("the journal waits for ever".into())
    }

    /// Ends the journal without a word, as a crash or a failed disk does.
    pub fn drop_journal(&mut self) {
        self.journal = None;
        self.handle = None;
    }

    /// Stops the journal as a clean shutdown does: afterwards everything must be provable.
    pub fn close(&mut self) -> bool {
        let Some(journal) = self.journal.take() else { return false };
        let closed = journal.close().is_ok();
        self.take_replies();
        self.handle = None;
        closed
    }
}
