//! The table on disk. Every file opens with one, so that older files can be recycled.
//!
//! ```text
//! groups:  count u32, each: group u64, replica u64, incarnation u64, vote?, purged?, committed?, segments synced?,
//!          snapshot?, membership (u32 + bytes), last?, runs (count u32, each: first, last, term, file: u64)
//! removed: count u32, each: group u64, replica u64
//! files:   count u32, each: slot u32, sequence u64, last batch u64      older files that hold live entries
//! damage:  count u32, each: slot u32, start u64, end u64, all u8 | groups (count u32, each u64), reason (u32 + bytes)
//! ```
//! `?` is a flag byte and the value; a log id is term u64, index u64. In a checkpoint of layout 1 groups have no replica, and
//! there is no list of those that were removed.

use bytes::Bytes;

use super::codec::{Malformed, Pieces, Reader};
use super::frame::Kind;
use super::log_shape::{LogShape, Run};
use super::record::{decode_vote, encode_vote};
use super::table::{DamageRow, Group, Suspect, Table};
use crate::types::{GroupId, Incarnation, ReplicaId};

/// An older file that holds live entries, and the last batch in it that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LiveFile {
    pub(super) slot: u32,
    pub(super) file: u64,
    pub(super) last_batch: u64,
}

/// The first part of a checkpoint's body.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Checkpoint {
    pub(super) table: Table,
    pub(super) files: Vec<LiveFile>,
}

const GROUP_BYTES_MIN: usize = 30;
const REMOVED_BYTES: usize = 16;
const RUN_BYTES: usize = 32;
const FILE_BYTES: usize = 20;
const DAMAGE_BYTES_MIN: usize = 25;

pub(super) fn encode(out: &mut Pieces, table: &Table, files: &[LiveFile]) {
    out.put_len(table.groups.len());
    for (id, group) in &table.groups {
        out.put_u64(id.0);
        encode_group(out, group);
    }
    out.put_len(table.removed.len());
    for (id, replica) in &table.removed {
        out.put_u64(id.0);
        out.put_u64(replica.0);
    }
    out.put_len(files.len());
    for file in files {
        out.put_u32(file.slot);
        out.put_u64(file.file);
        out.put_u64(file.last_batch);
    }
    out.put_len(table.damage.len());
    table.damage.iter().for_each(|row| encode_damage(out, row));
}

fn encode_group(out: &mut Pieces, group: &Group) {
    out.put_u64(group.replica.0);
    out.put_u64(group.incarnation.0);
    out.put_option(group.vote, encode_vote);
    for mark in [group.purged, group.committed, group.segments_synced, group.snapshot] {
        out.put_option(mark, Pieces::put_log_id);
    }
    out.put_bytes(&group.membership);
    out.put_option(group.log.last(), Pieces::put_log_id);
    out.put_len(group.log.runs().len());
    for run in group.log.runs() {
        [run.first, run.last, run.term, run.file].into_iter().for_each(|value| out.put_u64(value));
    }
}

fn encode_damage(out: &mut Pieces, row: &DamageRow) {
    out.put_u32(row.slot);
    out.put_u64(row.range.start);
    out.put_u64(row.range.end);
    match &row.groups {
        Suspect::All => out.put_u8(1),
        Suspect::Named(groups) => {
            out.put_u8(0);
            out.put_len(groups.len());
            groups.iter().for_each(|group| out.put_u64(group.0));
        }
    }
    out.put_bytes(&Bytes::copy_from_slice(row.reason.as_bytes()));
}

/// Takes a checkpoint from the front of the body of a frame of this kind; records follow.
pub(super) fn decode(kind: Kind, from: &mut Reader) -> Result<Checkpoint, Malformed> {
    let mut checkpoint = Checkpoint::default();
    let knows_replicas = kind != Kind::OldCheckpoint;
    for _ in 0..from.count(GROUP_BYTES_MIN)? {
        let id = GroupId(from.u64()?);
        let replica = ReplicaId(if knows_replicas { from.u64()? } else { 0 });
        checkpoint.table.groups.insert(id, Group { replica, ..decode_group(from)? });
    }
    if knows_replicas {
        for _ in 0..from.count(REMOVED_BYTES)? {
            checkpoint.table.removed.insert(GroupId(from.u64()?), ReplicaId(from.u64()?));
        }
    }
    for _ in 0..from.count(FILE_BYTES)? {
        checkpoint.files.push(LiveFile { slot: from.u32()?, file: from.u64()?, last_batch: from.u64()? });
    }
    for _ in 0..from.count(DAMAGE_BYTES_MIN)? {
        checkpoint.table.damage.push(decode_damage(from)?);
    }
    Ok(checkpoint)
}

fn decode_group(from: &mut Reader) -> Result<Group, Malformed> {
    let incarnation = Incarnation(from.u64()?);
    let vote = from.option(decode_vote)?;
    let purged = from.option(Reader::log_id)?;
    let committed = from.option(Reader::log_id)?;
    let segments_synced = from.option(Reader::log_id)?;
    let snapshot = from.option(Reader::log_id)?;
    let membership = from.bytes()?;
    let last = from.option(Reader::log_id)?;
    let mut runs = Vec::new();
    for _ in 0..from.count(RUN_BYTES)? {
        runs.push(Run { first: from.u64()?, last: from.u64()?, term: from.u64()?, file: from.u64()? });
    }
    let log = LogShape::from_parts(last, runs).ok_or(Malformed("a group's entries are not contiguous"))?;
    let replica = ReplicaId::default();
    Ok(Group { replica, incarnation, vote, purged, committed, segments_synced, snapshot, membership, log })
}

fn decode_damage(from: &mut Reader) -> Result<DamageRow, Malformed> {
    let slot = from.u32()?;
    let range = from.u64()?..from.u64()?;
    let groups = if from.flag()? {
        Suspect::All
    } else {
        let count = from.count(8)?;
        Suspect::Named((0..count).map(|_| Ok(GroupId(from.u64()?))).collect::<Result<_, Malformed>>()?)
    };
    let reason = String::from_utf8_lossy(&from.bytes()?).into_owned();
    Ok(DamageRow { slot, range, groups, reason })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;
    use crate::types::{LogId, Vote};

    fn example() -> Checkpoint {
        let mut full = Group {
            replica: ReplicaId(17),
            incarnation: Incarnation(3),
            vote: Some(Vote { term: 4, voted_for: Some(ReplicaId(2)), committed: true }),
            purged: Some(LogId { term: 1, index: 5 }),
            committed: Some(LogId { term: 2, index: 8 }),
            segments_synced: Some(LogId { term: 2, index: 6 }),
            snapshot: Some(LogId { term: 1, index: 5 }),
            membership: Bytes::from_static(b"voters"),
            log: LogShape::default(),
        };
        full.log.append((7..20).map(|index| LogId { term: index / 10, index }), 9).unwrap();
        let mut table = Table::default();
        table.groups.insert(GroupId(0), Group::default());
        table.groups.insert(GroupId(1), full);
        table.removed.insert(GroupId(4), ReplicaId(12));
        let row = |groups| DamageRow { slot: 1, range: 4096..8192, groups, reason: "bad".into() };
        table.damage = vec![row(Suspect::All), row(Suspect::Named(vec![GroupId(1), GroupId(7)]))];
        Checkpoint { table, files: vec![LiveFile { slot: 2, file: 9, last_batch: 100 }] }
    }

    /// As layout 1 wrote them.
    #[test]
    fn a_checkpoint_without_replicas_is_read() {
        let mut table = example().table;
        table.removed.clear();
        table.groups.values_mut().for_each(|group| group.replica = ReplicaId(0));
        let mut pieces = Pieces::default();
        pieces.put_len(table.groups.len());
        for (id, group) in &table.groups {
            let mut encoded = Pieces::default();
            encode_group(&mut encoded, group);
            let encoded: Vec<u8> = encoded.slices().flatten().copied().collect();
            pieces.put_u64(id.0);
            encoded[8..].iter().for_each(|byte| pieces.put_u8(*byte));
        }
        pieces.put_len(0);
        pieces.put_len(table.damage.len());
        table.damage.iter().for_each(|row| encode_damage(&mut pieces, row));
        let bytes = Bytes::from(pieces.slices().flatten().copied().collect::<Vec<_>>());
        let decoded = decode(Kind::OldCheckpoint, &mut Reader::new(bytes)).unwrap();
        assert_eq!(decoded, Checkpoint { table, files: Vec::new() });
    }

    #[test]
    fn a_checkpoint_survives_the_round_trip_and_no_cut_panics() {
        let checkpoint = example();
        let mut pieces = Pieces::default();
        encode(&mut pieces, &checkpoint.table, &checkpoint.files);
        let bytes = Bytes::from(pieces.slices().flatten().copied().collect::<Vec<_>>());
        let mut reader = Reader::new(bytes.clone());
        assert_eq!(decode(Kind::Checkpoint, &mut reader).unwrap(), checkpoint);
        assert!(reader.is_empty());
        for len in 0..bytes.len() {
            assert!(decode(Kind::Checkpoint, &mut Reader::new(bytes.slice(..len))).is_err(), "cut at {len}");
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.to_vec();
            changed[at] ^= 0xff;
            let _ = decode(Kind::Checkpoint, &mut Reader::new(changed.into()));
        }
    }
}
