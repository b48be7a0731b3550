//! What may be submitted, beyond what makes sense by itself. Whoever breaks one of these rules would lose what was
//! acknowledged, or forget what was promised; so it is the journal that refuses, and writes nothing of the submission.
//!
//! - A log begins only where there is none: [`Record::Create`] needs a group that is not here (see `table.rs`), that damage did
//!   not hide, and a replica above every one that was here before. Leftovers of those do not hinder it.
//! - A log that is there is given up by [`Record::BeginAgain`] and by [`Record::Remove`] alone.
//! - A promise is never taken back: a vote follows the one before it.
//!
//! They do not hold for replayed records: those were checked when they were submitted, or are of a version that knew no
//! replicas.

use super::record::Record;
use super::table::Group;
use crate::types::{GroupId, ReplicaId, Vote};

/// What the journal knows of a group before a record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Before<'a> {
    pub(super) group: Option<&'a Group>,
    /// The last replica that was removed.
    pub(super) removed: Option<ReplicaId>,
    pub(super) damaged: bool,
}

/// Whether a record may be submitted; in words, if not.
pub(super) fn check(id: GroupId, record: &Record, before: Before<'_>) -> Result<(), String> {
    match record {
        Record::Create { replica, .. } => may_create(id, *replica, before),
        Record::BeginAgain { replica, vote, .. } => may_begin_again(id, *replica, *vote, before),
        Record::Switch { snapshot: None, .. } => {
            Err(format!("group {id} cannot switch to a life without a snapshot: it would lose its log"))
        }
        Record::Switch { .. } if before.group.is_none() => Err(format!("group {id} does not exist here: a switch creates none")),
        Record::Vote { vote, .. } => match before.group {
            Some(group) => may_vote(id, *vote, group.vote),
            None => Ok(()),
        },
        Record::Forget { .. } if before.group.is_some() => Err(format!("group {id} is here: remove it before it is forgotten")),
        _ => Ok(()),
    }
}

fn may_create(id: GroupId, replica: ReplicaId, before: Before<'_>) -> Result<(), String> {
    if before.damaged {
        return Err(format!("group {id} may have been here: the part of the journal that would say so is damaged"));
    }
    match before.removed {
        Some(removed) if replica <= removed => {
            Err(format!("replica {replica} of group {id} was here before: the last one that was removed is {removed}"))
        }
        _ => Ok(()),
    }
}

fn may_begin_again(id: GroupId, replica: ReplicaId, vote: Vote, before: Before<'_>) -> Result<(), String> {
    let highest = before.group.map(|group| group.replica).max(before.removed);
    if Some(replica) < highest {
        return Err(format!("replica {replica} of group {id} is older than the last one that was here: {highest:?}"));
    }
    may_vote(id, vote, before.group.and_then(|group| group.vote))
}

fn may_vote(id: GroupId, vote: Vote, before: Option<Vote>) -> Result<(), String> {
    match vote.may_follow(before) {
        true => Ok(()),
        false => Err(format!("group {id} promised {before:?}: {vote:?} would take that back")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use bytes::Bytes;

    use super::super::table::Table;
    use super::*;
    use crate::types::{Body, Entry, Incarnation, LogId};

    const GROUP: GroupId = GroupId(7);

    fn create(replica: u64) -> Record {
        Record::Create { group: GROUP, replica: ReplicaId(replica), incarnation: Incarnation(replica) }
    }

    fn switch(snapshot: Option<LogId>) -> Record {
        Record::Switch { group: GROUP, incarnation: Incarnation(100), snapshot, membership: Bytes::new() }
    }

    fn again(replica: u64, term: u64) -> Record {
        let (vote, replica) = (Vote { term, ..Vote::default() }, ReplicaId(replica));
        let (incarnation, membership) = (Incarnation(200), Bytes::new());
        Record::BeginAgain { group: GROUP, replica, incarnation, snapshot: None, membership, vote }
    }

    fn vote(term: u64, voted_for: u64, committed: bool) -> Record {
        Record::Vote { group: GROUP, vote: Vote { term, voted_for: Some(ReplicaId(voted_for)), committed } }
    }

    fn append(index: u64) -> Record {
        let entry = Entry { log_id: LogId { term: 1, index }, body: Body::Blank };
        Record::Append { group: GROUP, entries: vec![entry] }
    }

    /// A table to which everything was submitted.
    fn table(records: &[Record]) -> Table {
        let mut table = Table::default();
        for record in records {
            table.submit(std::slice::from_ref(record), 1).unwrap();
        }
        table
    }

    #[test]
    fn a_log_that_is_there_is_not_begun_again_by_mistake() {
        for something in [vote(1, 2, false), append(0), Record::Purge { group: GROUP, upto: LogId { term: 1, index: 5 } }] {
            let mut table = table(&[create(3), something.clone()]);
            let before = table.clone();
            for lost in [create(4), switch(None), again(2, 9), again(3, 0)] {
                let lost = [Record::Committed { group: GROUP, log_id: LogId::default() }, lost];
                let refused = table.submit(&lost, 1);
                let allowed = matches!(
                    (&something, &lost[1]),
                    (Record::Append { .. } | Record::Purge { .. }, Record::BeginAgain { replica: ReplicaId(3), .. })
                );
                assert_eq!(refused.is_ok(), allowed, "{something:?}, {lost:?}: {refused:?}");
                if !allowed {
                    assert_eq!(table, before, "a part of it was done");
                }
            }
            table.submit(&[again(3, 9)], 1).unwrap();
        }
    }

    #[test]
    fn a_replica_comes_once() {
        let remove = Record::Remove { group: GROUP };
        let mut table = table(&[create(3), append(0), remove.clone()]);
        assert_eq!(table.removed.get(&GROUP), Some(&ReplicaId(3)));
        for old in [create(1), create(3), again(2, 1)] {
            table.submit(&[old], 1).unwrap_err();
        }
        assert!(table.submit(&[switch(Some(LogId::default()))], 1).is_err(), "a late switch begins nothing");
        table.submit(&[create(4)], 1).unwrap();
        assert!(table.removed.is_empty());
        assert!(table.submit(&[Record::Forget { group: GROUP }], 1).is_err(), "it is here");
        table.submit(&[remove, Record::Forget { group: GROUP }], 1).unwrap();
        assert_eq!(table, Table::default());
    }

    #[test]
    fn no_promise_is_taken_back() {
        let mut table = table(&[create(1), vote(5, 2, true)]);
        for less in [vote(4, 2, true), vote(5, 3, true), vote(5, 2, false)] {
            table.submit(&[less], 1).unwrap_err();
        }
        for more in [vote(5, 2, true), vote(6, 3, false), vote(6, 4, true)] {
            table.submit(&[more], 1).unwrap();
        }
    }

    #[test]
    fn what_damage_may_have_hidden_is_not_new() {
        let mut table = Table::default();
        let groups = super::super::Suspect::Named(vec![GROUP]);
        table.damage.push(super::super::table::DamageRow { slot: 1, range: 0..1, groups, reason: "bad".into() });
        table.submit(&[create(1)], 1).unwrap_err();
        table.submit(&[again(1, 1)], 1).unwrap();
        assert!(table.damage.is_empty());
    }

    /// As layout 1 created groups, gave up what they had, and salvaged it.
    #[test]
    fn journals_of_before_are_replayed() {
        let mut table = Table::default();
        let salvaged = LogId { term: 3, index: 9 };
        let remove = Record::Remove { group: GROUP };
        for record in [switch(None), append(0), vote(2, 1, false), switch(None), vote(1, 2, true), remove, switch(Some(salvaged))]
        {
            table.apply_all(&[record], 1).unwrap();
        }
        let group = &table.groups[&GROUP];
        assert_eq!(
            (group.replica, group.snapshot, group.log.last(), group.vote),
            (ReplicaId(0), Some(salvaged), Some(salvaged), None)
        );
        assert!(table.removed.is_empty());
    }
}
