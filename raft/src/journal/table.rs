//! What the journal knows about every group: the content of a checkpoint. Records change it in the same way when
//! they are written and when they are replayed.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use bytes::Bytes;

use super::log_shape::LogShape;
use super::record::Record;
use super::rules::{self, Before};
use crate::types::{Entry, GroupId, Incarnation, LogId, ReplicaId, Vote};

/// Whose data damage may have taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Suspect {
    /// These groups.
    Named(Vec<GroupId>),
    /// Every group: the batch does not tell any more which ones were inside.
    All,
}

impl Suspect {
    /// Whether the group is among them.
    #[must_use]
    pub fn includes(&self, group: GroupId) -> bool {
        match self {
            Self::Named(groups) => groups.contains(&group),
            Self::All => true,
        }
    }
}

/// Damage that nobody dealt with yet. It stays in the checkpoints, and its file is not recycled, until then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DamageRow {
    pub(super) slot: u32,
    pub(super) range: Range<u64>,
    pub(super) groups: Suspect,
    pub(super) reason: String,
}

/// One group's durable state, without its entries.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Group {
    /// 0: it was created by a version that knew no replicas.
    pub(super) replica: ReplicaId,
    pub(super) incarnation: Incarnation,
    pub(super) vote: Option<Vote>,
    pub(super) purged: Option<LogId>,
    pub(super) committed: Option<LogId>,
    pub(super) segments_synced: Option<LogId>,
    pub(super) snapshot: Option<LogId>,
    pub(super) membership: Bytes,
    pub(super) log: LogShape,
}

/// All groups, and damage.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Table {
    pub(super) groups: BTreeMap<GroupId, Group>,
    /// The last replica of each group that was removed, until the group is forgotten or created again.
    pub(super) removed: BTreeMap<GroupId, ReplicaId>,
    pub(super) damage: Vec<DamageRow>,
}

/// What the table says of a group while the records of a submission change it.
#[derive(Debug, Clone)]
struct Place {
    group: Option<Group>,
    removed: Option<ReplicaId>,
}

/// How far each group's segments are synced, not yet written to the journal.
pub(super) type Marks = BTreeMap<GroupId, (Incarnation, LogId)>;

impl Group {
    fn purge(&mut self, upto: LogId) {
        self.purged = self.purged.max_by_index(upto);
        self.log.restart_behind(upto);
    }

    fn switch(&mut self, incarnation: Incarnation, snapshot: Option<LogId>, membership: Bytes) -> Result<(), String> {
        if incarnation < self.incarnation {
            return Err(format!("incarnation {incarnation} is older than the valid one, {}", self.incarnation));
        }
        if let (Some(snapshot), Some(synced)) = (snapshot, self.segments_synced)
            && snapshot.index < synced.index
        {
            return Err(format!("snapshot {snapshot} is behind {synced} in the segments: remove the group first"));
        }
        let (replica, vote) = (self.replica, self.vote);
        let mut next = Self { replica, incarnation, vote, snapshot, membership, ..Self::default() };
        if let Some(snapshot) = snapshot {
            next.purged = self.purged.max_by_index(snapshot);
            next.committed = self.committed.max_by_index(snapshot);
            next.segments_synced = Some(snapshot);
            next.log = std::mem::take(&mut self.log);
            next.log.restart_behind(snapshot);
            next.log.release(snapshot.index);
        }
        *self = next;
        Ok(())
    }

    /// Whether segments may announce `upto`: in this life, ahead of what they announced, in the log.
    fn takes_mark(&self, incarnation: Incarnation, upto: LogId) -> bool {
        self.incarnation == incarnation
            && self.segments_synced.is_none_or(|synced| synced.index < upto.index)
            && self.log.last().is_some_and(|last| upto.index <= last.index)
    }

    fn apply(&mut self, record: &Record, file: u64) -> Result<(), String> {
        match record {
            Record::Append { entries, .. } => self.log.append(entries.iter().map(|entry| entry.log_id), file)?,
            Record::Vote { vote, .. } => self.vote = Some(*vote),
            Record::Truncate { after, .. } => {
                if let Some(synced) = self.segments_synced
                    && after.is_none_or(|after| after.index < synced.index)
                {
                    return Err(format!("cannot truncate what segments hold: they are synced up to {synced}"));
                }
                self.log.truncate(*after);
            }
            Record::Purge { upto, .. } => self.purge(*upto),
            Record::Committed { log_id, .. } => self.committed = self.committed.max_by_index(*log_id),
            Record::Switch { incarnation, snapshot, membership, .. } => {
                self.switch(*incarnation, *snapshot, membership.clone())?;
            }
            Record::SegmentsSynced { incarnation, upto, .. } if self.takes_mark(*incarnation, *upto) => {
                self.segments_synced = Some(*upto);
                self.log.release(upto.index);
            }
            Record::SegmentsSynced { .. }
            | Record::Create { .. }
            | Record::BeginAgain { .. }
            | Record::Remove { .. }
            | Record::Forget { .. }
            | Record::AcceptLoss { .. }
            | Record::Suspects { .. } => {}
        }
        Ok(())
    }
}

impl Place {
    fn apply(&mut self, id: GroupId, record: &Record, file: u64) -> Result<(), String> {
        match record {
            Record::AcceptLoss { .. } => {}
            Record::Create { replica, incarnation, .. } => {
                if let Some(group) = &self.group {
                    return Err(format!(
                        "group {id} is here already, as replica {}: it is not created a second time",
                        group.replica
                    ));
                }
                self.begin(Group { replica: *replica, incarnation: *incarnation, ..Group::default() })?;
            }
            Record::BeginAgain { replica, incarnation, snapshot, membership, vote, .. } => {
                let (snapshot, membership) = (*snapshot, membership.clone());
                let (replica, incarnation, vote) = (*replica, *incarnation, Some(*vote));
                let marks = Group { purged: snapshot, committed: snapshot, segments_synced: snapshot, ..Group::default() };
                let mut group = Group { replica, incarnation, vote, snapshot, membership, ..marks };
                if let Some(snapshot) = snapshot {
                    group.log.restart_behind(snapshot);
                }
                self.begin(group)?;
            }
            Record::Remove { .. } => self.removed = self.group.take().map(|group| group.replica).max(self.removed),
            Record::Forget { .. } => self.removed = None,
            // As journals of layout 1 did it.
            Record::Switch { .. } if self.group.is_none() => {
                let mut group = Group { replica: self.removed.take().unwrap_or_default(), ..Group::default() };
                group.apply(record, file)?;
                self.group = Some(group);
            }
            _ => match &mut self.group {
                Some(group) => group.apply(record, file)?,
                None => return Err(format!("group {id} does not exist here: create it first")),
            },
        }
        Ok(())
    }

    fn begin(&mut self, group: Group) -> Result<(), String> {
        let valid = self.group.as_ref().map(|group| group.incarnation);
        if valid.is_some_and(|valid| group.incarnation < valid) {
            return Err(format!("incarnation {} is older than the valid one, {valid:?}", group.incarnation));
        }
        *self = Self { group: Some(group), removed: None };
        Ok(())
    }
}

impl Table {
    /// Applies the records of one submission, if they may be submitted: all of them, or none and the reason.
    pub(super) fn submit(&mut self, records: &[Record], file: u64) -> Result<(), String> {
        self.change(records, file, rules::check)
    }

    /// Applies records that were submitted before: all of them, or none and the reason.
    pub(super) fn apply_all(&mut self, records: &[Record], file: u64) -> Result<(), String> {
        self.change(records, file, |_, _, _| Ok(()))
    }

    fn change(
        &mut self,
        records: &[Record],
        file: u64,
        check: impl Fn(GroupId, &Record, Before<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut changed: BTreeMap<GroupId, Place> = BTreeMap::new();
        for record in records {
            let Some(id) = record.group() else { continue };
            let place = changed.entry(id).or_insert_with(|| self.place(id));
            let before = Before { group: place.group.as_ref(), removed: place.removed, damaged: self.is_damaged(id) };
            check(id, record, before)?;
            place.apply(id, record, file)?;
        }
        for (id, Place { group, removed }) in changed {
            match group {
                Some(group) => self.groups.insert(id, group),
                None => self.groups.remove(&id),
            };
            match removed {
                Some(removed) => self.removed.insert(id, removed),
                None => self.removed.remove(&id),
            };
        }
        records.iter().for_each(|record| self.resolve(record));
        Ok(())
    }

    fn place(&self, id: GroupId) -> Place {
        Place { group: self.groups.get(&id).cloned(), removed: self.removed.get(&id).copied() }
    }

    /// Forgets damage that the record deals with.
    fn resolve(&mut self, record: &Record) {
        match record {
            Record::AcceptLoss { group: None } => self.damage.clear(),
            Record::AcceptLoss { group: Some(group) }
            | Record::BeginAgain { group, .. }
            | Record::Switch { group, .. }
            | Record::Remove { group } => {
                for row in &mut self.damage {
                    if let Suspect::Named(groups) = &mut row.groups {
                        groups.retain(|suspect| suspect != group);
                    }
                }
                self.damage.retain(|row| row.groups != Suspect::Named(Vec::new()));
            }
            Record::Suspects { groups } => {
                for row in self.damage.iter_mut().filter(|row| row.groups == Suspect::All) {
                    row.groups = Suspect::Named(groups.clone());
                }
                self.damage.retain(|row| row.groups != Suspect::Named(Vec::new()));
            }
            _ => {}
        }
    }

    pub(super) fn is_damaged(&self, group: GroupId) -> bool {
        self.damage.iter().any(|row| row.groups.includes(group))
    }

    /// Drops marks that say nothing new, so that what waits is never larger than the groups with live entries.
    pub(super) fn useful_marks(&self, mut marks: Marks) -> Marks {
        marks.retain(|id, (incarnation, upto)| {
            self.groups.get(id).is_some_and(|group| !group.log.is_empty() && group.takes_mark(*incarnation, *upto))
        });
        marks
    }

    /// The files that hold live entries, once `marks` are written.
    pub(super) fn live_files(&self, marks: &Marks) -> BTreeSet<u64> {
        let mut files = BTreeSet::new();
        for (id, group) in &self.groups {
            let synced = marks.get(id).filter(|(incarnation, _)| *incarnation == group.incarnation);
            let live = group.log.runs().iter().filter(|run| synced.is_none_or(|(_, upto)| run.last > upto.index));
            files.extend(live.map(|run| run.file));
        }
        files
    }

    /// Whether records, once written, end the life of entries that the owner may not have any more to journal again.
    pub(super) fn frees(&self, records: &[Record]) -> bool {
        records.iter().any(|record| {
            let log = record.group().and_then(|group| self.groups.get(&group)).map(|group| &group.log);
            let last = log.and_then(LogShape::last).map(|last| last.index);
            match record {
                Record::Truncate { .. } | Record::Switch { .. } | Record::BeginAgain { .. } | Record::Remove { .. } => {
                    log.is_some()
                }
                Record::Purge { upto, .. } => last < Some(upto.index),
                Record::Append { entries, .. } => entries.first().is_some_and(|first| Some(first.log_id.index) <= last),
                _ => false,
            }
        })
    }

    /// The entries that are live exactly as given; the others were truncated, replaced or released meanwhile.
    pub(super) fn still_live(&self, group: GroupId, entries: Vec<Entry>) -> Vec<Entry> {
        let log = self.groups.get(&group).map(|group| &group.log);
        entries.into_iter().filter(|entry| log.is_some_and(|log| log.file_of(entry.log_id).is_some())).collect()
    }

    /// Groups with live entries: the most that one batch of marks can name.
    pub(super) fn groups_with_entries(&self) -> usize {
        self.groups.values().filter(|group| !group.log.is_empty()).count()
    }
}

/// The later of a mark and a new one.
trait MaxByIndex {
    fn max_by_index(self, other: LogId) -> Option<LogId>;
}

impl MaxByIndex for Option<LogId> {
    fn max_by_index(self, other: LogId) -> Option<LogId> {
        Some(self.map_or(other, |mark| if mark.index > other.index { mark } else { other }))
    }
}
