//! What the journal's groups should hold: the rules of `Record`, written down a second time and as plainly as possible.

use std::collections::BTreeMap;

use bytes::Bytes;
use flotilla_raft::journal::{Record, RecoveredGroup};
use flotilla_raft::types::{Entry, GroupId, Incarnation, LogId, ReplicaId, Vote};

/// One group: every entry of its current life, also those that segments hold.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ModelGroup {
    pub replica: ReplicaId,
    pub incarnation: Incarnation,
    pub vote: Option<Vote>,
    pub purged: Option<LogId>,
    pub committed: Option<LogId>,
    pub snapshot: Option<(LogId, Bytes)>,
    pub last: Option<LogId>,
    pub log: BTreeMap<u64, Entry>,
}

/// All groups after some prefix of the submissions.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Model {
    pub groups: BTreeMap<GroupId, ModelGroup>,
    /// The last replica of each group that was removed.
    pub removed: BTreeMap<GroupId, ReplicaId>,
}

fn later(mark: Option<LogId>, other: LogId) -> Option<LogId> {
    if mark.is_some_and(|mark| mark.index > other.index) { mark } else { Some(other) }
}

impl ModelGroup {
    fn append(&mut self, entry: &Entry) {
        let index = entry.log_id.index;
        if self.last.is_some_and(|last| index <= last.index) {
            match self.log.get(&index) {
                Some(old) if old.log_id != entry.log_id => self.log.retain(|at, _| *at < index),
                _ => return,
            }
        }
        self.log.insert(index, entry.clone());
        self.last = Some(entry.log_id);
    }

    fn restart_behind(&mut self, mark: LogId) {
        if self.last.is_none_or(|last| last.index < mark.index) {
            self.log.clear();
            self.last = Some(mark);
        }
    }

    /// Compares with what was recovered. Segments may be known to hold less than was announced.
    pub fn check(&self, recovered: &RecoveredGroup, announced: Option<LogId>, floor: Option<LogId>) -> Result<(), String> {
        let same = (self.replica, self.incarnation, self.vote, self.purged, self.committed, &self.snapshot, self.last)
            == (
                recovered.replica,
                recovered.incarnation,
                recovered.vote,
                recovered.purged,
                recovered.committed,
                &recovered.snapshot,
                recovered.last,
            );
        if !same || recovered.damaged {
            return Err(format!("expected {self:?}, recovered {recovered:?}"));
        }
        let synced = recovered.segments_synced.map(|log_id| log_id.index);
        let (most, least) = (announced.map(|log_id| log_id.index), floor.map(|log_id| log_id.index));
        if synced > most || synced < least {
            return Err(format!("segments are synced to {synced:?}, announced {most:?}, known before {least:?}"));
        }
        let expected = self.log.range(synced.map_or(0, |synced| synced + 1)..).map(|(_, entry)| entry);
        if !expected.eq(&recovered.tail) {
            let ids: Vec<_> = recovered.tail.iter().map(|entry| entry.log_id).collect();
            return Err(format!(
                "synced {synced:?}, expected log {:?}, tail {ids:?}",
                self.log.values().map(|e| e.log_id).collect::<Vec<_>>()
            ));
        }
        Ok(())
    }
}

impl Model {
    pub fn apply_all(&mut self, records: &[Record]) {
        records.iter().for_each(|record| self.apply(record));
    }

    fn apply(&mut self, record: &Record) {
        let id = record.group().unwrap();
        match record {
            Record::Remove { .. } => {
                if let Some(group) = self.groups.remove(&id) {
                    self.removed.insert(id, group.replica);
                }
            }
            Record::Forget { .. } => {
                self.removed.remove(&id);
            }
            Record::Create { replica, incarnation, .. } => {
                self.begin(id, ModelGroup { replica: *replica, incarnation: *incarnation, ..ModelGroup::default() });
            }
            Record::BeginAgain { replica, incarnation, snapshot, membership, vote, .. } => {
                let (last, snapshot) = (*snapshot, snapshot.map(|snapshot| (snapshot, membership.clone())));
                let (replica, incarnation, vote) = (*replica, *incarnation, Some(*vote));
                let (purged, committed) = (last, last);
                let log = BTreeMap::new();
                self.begin(id, ModelGroup { replica, incarnation, vote, purged, committed, snapshot, last, log });
            }
            Record::Switch { incarnation, snapshot, membership, .. } => {
                let (snapshot, old) = (snapshot.unwrap(), self.groups.remove(&id).unwrap());
                let mut new = ModelGroup { incarnation: *incarnation, ..old };
                new.snapshot = Some((snapshot, membership.clone()));
                new.purged = later(new.purged, snapshot);
                new.committed = later(new.committed, snapshot);
                new.restart_behind(snapshot);
                new.log.retain(|index, _| *index > snapshot.index);
                self.groups.insert(id, new);
            }
            _ => self.apply_to_group(id, record),
        }
    }

    fn begin(&mut self, id: GroupId, group: ModelGroup) {
        self.groups.insert(id, group);
        self.removed.remove(&id);
    }

    fn apply_to_group(&mut self, id: GroupId, record: &Record) {
        let group = self.groups.get_mut(&id).unwrap();
        match record {
            Record::Append { entries, .. } => entries.iter().for_each(|entry| group.append(entry)),
            Record::Vote { vote, .. } => group.vote = Some(*vote),
            Record::Truncate { after, .. } => {
                group.log.retain(|index, _| after.is_some_and(|after| *index <= after.index));
                group.last = *after;
            }
            Record::Purge { upto, .. } => {
                group.purged = later(group.purged, *upto);
                group.restart_behind(*upto);
            }
            Record::Committed { log_id, .. } => group.committed = later(group.committed, *log_id),
            other => panic!("the model does not submit {other:?}"),
        }
    }

    /// Bytes of entries behind what segments hold.
    pub fn live_bytes(&self, announced: &BTreeMap<GroupId, (Incarnation, LogId)>) -> usize {
        let live = self.groups.iter().flat_map(|(id, group)| {
            let from = announced.get(id).filter(|mark| mark.0 == group.incarnation).map_or(0, |mark| mark.1.index + 1);
            group.log.range(from..)
        });
        live.map(|(_, entry)| entry.payload_bytes() + 64).sum()
    }
}
