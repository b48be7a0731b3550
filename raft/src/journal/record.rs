//! What groups put into the journal, and how it is laid out inside a batch.
//!
//! A record is a kind byte, the group, and the fields in the order in which [`Record`] lists them. Kinds are never
//! reused: 1 Append, 2 Vote, 3 Truncate, 4 Purge, 5 Committed, 6 Switch, 7 Remove, 8 `SegmentsSynced`, 9 `AcceptLoss`,
//! 10 `Suspects`, 11 Create, 12 `BeginAgain`, 13 Forget. Which of them may be submitted when: `rules.rs`.

use std::sync::Arc;

use bytes::Bytes;

use super::codec::{Malformed, Pieces, Reader};
use crate::types::{Body, Entry, GroupId, Incarnation, Item, LogId, ReplicaId, Vote};

/// One change of a group's durable state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// Log entries with consecutive indices, from at most one behind the last. An entry whose log id is in the log
    /// already stays what it is; a different one replaces it and drops everything behind it.
    Append {
        /// The group.
        group: GroupId,
        /// The entries, in order.
        entries: Vec<Entry>,
    },
    /// What the node promised in elections.
    Vote {
        /// The group.
        group: GroupId,
        /// The promise; replaces the one before.
        vote: Vote,
    },
    /// Entries behind `after` are dropped (all of them if there is none).
    Truncate {
        /// The group.
        group: GroupId,
        /// The last entry that stays.
        after: Option<LogId>,
    },
    /// The purge mark. A mark only: entries stay live until segments hold them, except where it lies behind the log's
    /// end: then the log starts anew behind it.
    Purge {
        /// The group.
        group: GroupId,
        /// The last purged entry.
        upto: LogId,
    },
    /// The last entry known to be committed.
    Committed {
        /// The group.
        group: GroupId,
        /// Its identity.
        log_id: LogId,
    },
    /// The group begins here, empty: it was never here, or was removed. No other record makes a log where there is none.
    Create {
        /// The group.
        group: GroupId,
        /// Which replica of it this is: higher than every one that was here before.
        replica: ReplicaId,
        /// The life of the group's data.
        incarnation: Incarnation,
    },
    /// Makes a new incarnation of the group's data the valid one. Entries up to `snapshot` are dropped; the vote stays.
    Switch {
        /// The group.
        group: GroupId,
        /// The life of the group's data that is valid from now on. Never goes back.
        incarnation: Incarnation,
        /// The last entry that this life starts with; its segments hold everything up to there. There always is one in what is
        /// submitted. In journals of layout 1, a switch without one created the group, or gave up what it had.
        snapshot: Option<LogId>,
        /// The membership at `snapshot`, as the owner encodes it.
        membership: Bytes,
    },
    /// What the group has here is given up, because its peers go on without it or somebody accepts the loss, and it begins
    /// again from what is said here and nothing else. The one record that drops a log; it makes one where damage took even the
    /// word that there was one, too.
    BeginAgain {
        /// The group.
        group: GroupId,
        /// Which replica of it this is from now on: the same, or a higher one.
        replica: ReplicaId,
        /// The life of the group's data that is valid from now on.
        incarnation: Incarnation,
        /// The last entry that this life starts with; `None`: it is empty.
        snapshot: Option<LogId>,
        /// The membership at `snapshot`, as the owner encodes it.
        membership: Bytes,
        /// What it promised in elections; not less than before.
        vote: Vote,
    },
    /// The group is no longer hosted here. Of it stays the number of the last replica that was here, so that no other gets it, and
    /// so that data which is found afterwards is known to be left over.
    Remove {
        /// The group.
        group: GroupId,
    },
    /// The group was removed here and is gone everywhere, and no data of it is left: nothing of it stays.
    Forget {
        /// The group.
        group: GroupId,
    },
    /// Segments hold everything up to `upto` durably (see [`JournalHandle::segments_synced`](super::JournalHandle::segments_synced)).
    SegmentsSynced {
        /// The group.
        group: GroupId,
        /// The life whose segments were synced; ignored if it is no longer the valid one.
        incarnation: Incarnation,
        /// The last entry they hold.
        upto: LogId,
    },
    /// The operator gives up what damage took from a group, or (`None`) from all groups: the damage is forgotten and
    /// damaged files may be recycled. [`Record::BeginAgain`], [`Record::Switch`] and [`Record::Remove`] say the same of their
    /// group.
    AcceptLoss {
        /// The group; `None` for all, also those that are not known any more.
        group: Option<GroupId>,
    },
    /// Damage that does not tell whose data it took can only have taken data of these groups: they are all that the owner
    /// has data of. From now on it names them, so that they can be dealt with one by one.
    Suspects {
        /// The groups.
        groups: Vec<GroupId>,
    },
}

/// The least that an entry takes: term, index, tag.
const ENTRY_BYTES_MIN: usize = 17;
/// The least that an item takes: kind, length.
const ITEM_BYTES_MIN: usize = 5;

impl Record {
    /// The group that this is about; `None` for all.
    #[must_use]
    pub fn group(&self) -> Option<GroupId> {
        match self {
            Self::Append { group, .. }
            | Self::Vote { group, .. }
            | Self::Truncate { group, .. }
            | Self::Purge { group, .. }
            | Self::Committed { group, .. }
            | Self::Create { group, .. }
            | Self::Switch { group, .. }
            | Self::BeginAgain { group, .. }
            | Self::Remove { group }
            | Self::Forget { group }
            | Self::SegmentsSynced { group, .. } => Some(*group),
            Self::AcceptLoss { group } => *group,
            Self::Suspects { .. } => None,
        }
    }

    /// Bytes that this takes in a batch, at most.
    pub(super) fn encoded_bytes(&self) -> usize {
        match self {
            Self::Append { entries, .. } => 13 + entries.iter().map(entry_bytes).sum::<usize>(),
            Self::Switch { membership, .. } => 40 + membership.len(),
            Self::BeginAgain { membership, .. } => 64 + membership.len(),
            Self::Suspects { groups } => 5 + 8 * groups.len(),
            _ => 41,
        }
    }

    pub(super) fn encode(&self, out: &mut Pieces) {
        match self {
            Self::Append { group, entries } => {
                start(out, 1, *group);
                out.put_len(entries.len());
                entries.iter().for_each(|entry| encode_entry(out, entry));
            }
            Self::Vote { group, vote } => {
                start(out, 2, *group);
                encode_vote(out, *vote);
            }
            Self::Truncate { group, after } => {
                start(out, 3, *group);
                out.put_option(*after, Pieces::put_log_id);
            }
            Self::Purge { group, upto } => {
                start(out, 4, *group);
                out.put_log_id(*upto);
            }
            Self::Committed { group, log_id } => {
                start(out, 5, *group);
                out.put_log_id(*log_id);
            }
            Self::Switch { group, incarnation, snapshot, membership } => {
                start(out, 6, *group);
                out.put_u64(incarnation.0);
                out.put_option(*snapshot, Pieces::put_log_id);
                out.put_bytes(membership);
            }
            Self::Create { group, replica, incarnation } => {
                start(out, 11, *group);
                out.put_u64(replica.0);
                out.put_u64(incarnation.0);
            }
            Self::BeginAgain { group, replica, incarnation, snapshot, membership, vote } => {
                start(out, 12, *group);
                out.put_u64(replica.0);
                out.put_u64(incarnation.0);
                out.put_option(*snapshot, Pieces::put_log_id);
                out.put_bytes(membership);
                encode_vote(out, *vote);
            }
            Self::Remove { group } => start(out, 7, *group),
            Self::Forget { group } => start(out, 13, *group),
            Self::SegmentsSynced { group, incarnation, upto } => {
                start(out, 8, *group);
                out.put_u64(incarnation.0);
                out.put_log_id(*upto);
            }
            Self::AcceptLoss { group } => {
                out.put_u8(9);
                out.put_option(*group, |out, group| out.put_u64(group.0));
            }
            Self::Suspects { groups } => {
                out.put_u8(10);
                out.put_len(groups.len());
                groups.iter().for_each(|group| out.put_u64(group.0));
            }
        }
    }

    pub(super) fn decode(from: &mut Reader) -> Result<Self, Malformed> {
        let kind = from.u8()?;
        if kind == 9 {
            return Ok(Self::AcceptLoss { group: from.option(|from| Ok(GroupId(from.u64()?)))? });
        }
        if kind == 10 {
            let count = from.count(8)?;
            return Ok(Self::Suspects {
                groups: (0..count).map(|_| Ok(GroupId(from.u64()?))).collect::<Result<_, Malformed>>()?,
            });
        }
        let group = GroupId(from.u64()?);
        Ok(match kind {
            1 => {
                let count = from.count(ENTRY_BYTES_MIN)?;
                Self::Append { group, entries: (0..count).map(|_| decode_entry(from)).collect::<Result<_, _>>()? }
            }
            2 => Self::Vote { group, vote: decode_vote(from)? },
            3 => Self::Truncate { group, after: from.option(Reader::log_id)? },
            4 => Self::Purge { group, upto: from.log_id()? },
            5 => Self::Committed { group, log_id: from.log_id()? },
            6 => Self::Switch {
                group,
                incarnation: Incarnation(from.u64()?),
                snapshot: from.option(Reader::log_id)?,
                membership: from.bytes()?,
            },
            7 => Self::Remove { group },
            8 => Self::SegmentsSynced { group, incarnation: Incarnation(from.u64()?), upto: from.log_id()? },
            11 => Self::Create { group, replica: ReplicaId(from.u64()?), incarnation: Incarnation(from.u64()?) },
            12 => Self::BeginAgain {
                group,
                replica: ReplicaId(from.u64()?),
                incarnation: Incarnation(from.u64()?),
                snapshot: from.option(Reader::log_id)?,
                membership: from.bytes()?,
                vote: decode_vote(from)?,
            },
            13 => Self::Forget { group },
            _ => return Err(Malformed("it holds a kind of record that this version does not know")),
        })
    }
}

fn start(out: &mut Pieces, kind: u8, group: GroupId) {
    out.put_u8(kind);
    out.put_u64(group.0);
}

pub(super) fn encode_vote(out: &mut Pieces, vote: Vote) {
    out.put_u64(vote.term);
    out.put_option(vote.voted_for, |out, replica| out.put_u64(replica.0));
    out.put_u8(u8::from(vote.committed));
}

pub(super) fn decode_vote(from: &mut Reader) -> Result<Vote, Malformed> {
    Ok(Vote { term: from.u64()?, voted_for: from.option(Reader::u64)?.map(ReplicaId), committed: from.flag()? })
}

fn entry_bytes(entry: &Entry) -> usize {
    let framing = match &entry.body {
        Body::Blank => 0,
        Body::Items(items) => 4 + items.len() * ITEM_BYTES_MIN,
        Body::Membership(_) => 4,
    };
    ENTRY_BYTES_MIN + framing + entry.payload_bytes()
}

fn encode_entry(out: &mut Pieces, entry: &Entry) {
    out.put_log_id(entry.log_id);
    match &entry.body {
        Body::Blank => out.put_u8(0),
        Body::Items(items) => {
            out.put_u8(1);
            out.put_len(items.len());
            for item in items.iter() {
                out.put_u8(item.kind);
                out.put_bytes(&item.payload);
            }
        }
        Body::Membership(bytes) => {
            out.put_u8(2);
            out.put_bytes(bytes);
        }
    }
}

fn decode_entry(from: &mut Reader) -> Result<Entry, Malformed> {
    let log_id = from.log_id()?;
    let body = match from.u8()? {
        0 => Body::Blank,
        1 => {
            let count = from.count(ITEM_BYTES_MIN)?;
            let items = (0..count).map(|_| Ok(Item { kind: from.u8()?, payload: from.bytes()? }));
            Body::Items(items.collect::<Result<Arc<[_]>, Malformed>>()?)
        }
        2 => Body::Membership(from.bytes()?),
        _ => return Err(Malformed("it holds a kind of entry that this version does not know")),
    };
    Ok(Entry { log_id, body })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;

    fn one_of_each() -> Vec<Record> {
        let group = GroupId(3);
        let log_id = LogId { term: 2, index: 9 };
        let item = |len| Item { kind: 4, payload: Bytes::from(vec![5; len]) };
        let body = [Body::Blank, Body::Items([item(0), item(10), item(5000)].into()), Body::Membership(Bytes::from_static(b"m"))];
        let entries = body.map(|body| Entry { log_id, body }).to_vec();
        let vote = Vote { term: 7, voted_for: Some(ReplicaId(1)), committed: true };
        let (replica, incarnation) = (ReplicaId(12), Incarnation(4));
        let again = |snapshot| Record::BeginAgain { group, replica, incarnation, snapshot, membership: Bytes::from("x"), vote };
        vec![
            Record::Append { group, entries },
            Record::Vote { group, vote },
            Record::Vote { group, vote: Vote::default() },
            Record::Truncate { group, after: Some(log_id) },
            Record::Truncate { group, after: None },
            Record::Purge { group, upto: log_id },
            Record::Committed { group, log_id },
            Record::Switch { group, incarnation: Incarnation(4), snapshot: Some(log_id), membership: Bytes::from("x") },
            Record::Switch { group, incarnation: Incarnation(4), snapshot: None, membership: Bytes::new() },
            Record::Create { group, replica: ReplicaId(12), incarnation: Incarnation(4) },
            again(Some(log_id)),
            again(None),
            Record::Remove { group },
            Record::Forget { group },
            Record::SegmentsSynced { group, incarnation: Incarnation(4), upto: log_id },
            Record::AcceptLoss { group: Some(group) },
            Record::AcceptLoss { group: None },
            Record::Suspects { groups: vec![group, GroupId(9)] },
        ]
    }

    fn encoded(record: &Record) -> Bytes {
        let mut pieces = Pieces::default();
        record.encode(&mut pieces);
        assert!(pieces.len() <= record.encoded_bytes(), "{record:?} is larger than announced");
        pieces.slices().flatten().copied().collect::<Vec<_>>().into()
    }

    #[test]
    fn every_record_survives_the_round_trip() {
        for record in one_of_each() {
            let mut reader = Reader::new(encoded(&record));
            assert_eq!(Record::decode(&mut reader).unwrap(), record);
            assert!(reader.is_empty());
        }
    }

    #[test]
    fn cut_and_changed_records_never_panic() {
        for record in one_of_each() {
            let bytes = encoded(&record);
            for len in 0..bytes.len().min(200) {
                assert!(Record::decode(&mut Reader::new(bytes.slice(..len))).is_err(), "cut {record:?} at {len}");
            }
            for at in 0..bytes.len().min(200) {
                let mut changed = bytes.to_vec();
                changed[at] ^= 0x81;
                let _ = Record::decode(&mut Reader::new(changed.into()));
            }
        }
    }
}
