//! Taking over what is left of a damaged life into a new one: entries keep their decisions, what is missing is noted.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::life_writer::{LifeWriter, NewLife};
use super::{convert, decisions, restore};
use crate::disk::error::Class;
use crate::machine::{Machine, Row, Rows};
use crate::segments::{BodyKind, FoundFrame, Frame, ItemHeader, StoredFrame};
use crate::state::State;
use crate::state::keys::GroupKeys;
use crate::types::{Body, Decision, Entry, Item, Kept, LogId, Replica};

/// Offsets that are given up where nobody can say how many were given out. More than records that a journal can hold.
const OFFSETS_GIVEN_UP: u64 = 1 << 32;
/// Indexes of the log that are given up: fences are made of indexes, and nobody can say how many were given out.
const INDEXES_GIVEN_UP: u64 = 1 << 32;
/// Ranges of offsets that are told one by one.
const RANGES_MAX: usize = 100;
/// Bytes of frames that are written at once.
const WRITE_BYTES: u64 = 1 << 20;

/// What was left of a group's data.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Salvaged {
    /// Offsets that hold nothing (any more, or since an earlier loss), in order: the first of them.
    pub lost: Vec<Range<u64>>,
    /// How many offsets hold nothing any more.
    pub lost_offsets: u64,
    /// Whether more was lost, of which nothing is known. What comes behind it, new records at the latest, has offsets so far behind
    /// the known ones that none is given out twice.
    pub end_unknown: bool,
    /// Bytes of segments that are of no use.
    pub useless_bytes: u64,
    /// The offset of what is kept next.
    pub next_offset: u64,
}

/// The rows of a machine, in memory.
#[derive(Default)]
struct MachineRows(BTreeMap<(u8, Vec<u8>), Vec<u8>>);

/// See the module.
pub(crate) struct Salvager<'a> {
    machine: &'a mut dyn Machine,
    life: LifeWriter,
    rows: MachineRows,
    /// The last entry that the rows include.
    applied: Option<LogId>,
    /// What was decided about entries that may be in no segment.
    decided: BTreeMap<u64, Arc<[Decision]>>,
    /// The last entry that was taken over.
    last: Option<LogId>,
    /// One behind the last offset that was taken over, or was dead before.
    kept_end: u64,
    /// Whether an entry is missing whose effect the rows lack: what the machine knows of producers is not all.
    behind_gap: bool,
    /// What is to be written next, and its bytes.
    frames: (Vec<StoredFrame>, u64),
    salvaged: Salvaged,
}

impl Rows for MachineRows {
    fn put(&mut self, table: u8, key: &[u8], value: Vec<u8>) {
        self.0.insert((table, key.to_vec()), value);
    }

    fn delete(&mut self, table: u8, key: &[u8]) {
        self.0.remove(&(table, key.to_vec()));
    }
}

impl<'a> Salvager<'a> {
    /// Begins with the rows under `keys`, if they are intact; without any otherwise.
    ///
    /// # Errors
    /// If an empty machine cannot be had, or the rows cannot be read for another reason than that they are damaged.
    pub(crate) fn begin(state: &dyn State, keys: &GroupKeys, machine: &'a mut dyn Machine, life: LifeWriter) -> io::Result<Self> {
        let (mut rows, mut applied) = (Vec::new(), None);
        match intact_rows(state, keys, machine) {
            Ok(Some((found, upto))) => (rows, applied) = (found, Some(upto)),
            Ok(None) => {}
            Err(error) if Class::of(&error) != Class::Damage => return Err(error),
            Err(error) => {
                tracing::error!(%error, "the group's rows are lost: they are made again from what is left of its log");
                machine.restore(Vec::new()).map_err(io::Error::other)?;
            }
        }
        let mut decided = BTreeMap::new();
        let rows_of_decisions = match restore::scan_all(state, &keys.decisions_prefix()) {
            Err(error) if Class::of(&error) == Class::Damage => Vec::new(),
            read => read?,
        };
        for (_, value) in rows_of_decisions {
            if let Err(error) = decisions::decode(&value, &mut decided) {
                tracing::warn!(%error, "what was decided about some entries is lost");
            }
        }
        let kept_end = machine.live_from();
        let rows = MachineRows(rows.into_iter().map(|(table, key, value)| ((table, key), value)).collect());
        let (last, frames, salvaged) = (None, <_>::default(), Salvaged::default());
        Ok(Self { machine, life, rows, applied, decided, last, kept_end, behind_gap: false, frames, salvaged })
    }

    /// Takes over what is left of a frame, behind all that were taken before.
    ///
    /// # Errors
    /// If the disk refuses.
    pub(crate) fn take_frame(&mut self, found: FoundFrame) -> io::Result<()> {
        let (frame, lost) = found.into_rest();
        let StoredFrame { header, payloads } = &frame;
        if header.log_id.index >= self.first_unapplied() {
            self.behind_gap |= header.log_id.index > self.expected() || !lost.is_empty();
            if matches!(header.body, BodyKind::Items | BodyKind::Remains) {
                let items = header.items.iter().zip(payloads);
                let items: Vec<Item> = items.map(|(item, payload)| Item { kind: item.kind, payload: payload.clone() }).collect();
                let decisions: Vec<Decision> = header.items.iter().map(|item| item.decision).collect();
                self.machine.adopt(header.log_id, &items, Some(&decisions), &mut self.rows);
            }
            // Its offsets were given out.
            for kept in lost {
                self.machine.lose(kept.base_offset..end_of(&kept), &mut self.rows);
            }
        }
        self.keep(frame)
    }

    /// Takes over an entry that is in no segment, behind all that were taken before. If it was never applied, it is now.
    ///
    /// # Errors
    /// If the disk refuses, or the entry breaks the limits of a frame.
    pub(crate) fn take_entry(&mut self, entry: Entry) -> io::Result<()> {
        let LogId { index, .. } = entry.log_id;
        let decisions: Arc<[Decision]> = match &entry.body {
            Body::Items(_) if index < self.first_unapplied() => match self.decided.remove(&index) {
                Some(decisions) => decisions,
                // Nothing says any more under which offsets it was kept.
                None => return Ok(()),
            },
            Body::Items(items) => self.decide(entry.log_id, items),
            Body::Blank | Body::Membership(_) => Arc::from([]),
        };
        self.keep(StoredFrame::of(&Frame { entry, decisions, checksums: Arc::default() }).map_err(io::Error::other)?)
    }

    fn decide(&mut self, log_id: LogId, items: &[Item]) -> Arc<[Decision]> {
        if log_id.index > self.expected() {
            self.behind_gap = true;
            self.give_up_offsets();
        }
        if self.behind_gap {
            return self.machine.adopt(log_id, items, None, &mut self.rows).into();
        }
        let applied = self.machine.apply(log_id, items, &mut self.rows);
        applied.iter().map(|applied| applied.decision).collect()
    }

    /// Makes the new life complete and durable, with `replica` as the group's only voter. Its log begins far behind the last
    /// entry that is known, be it lost or not: no index is used twice. `known` is the last entry that was durable once.
    ///
    /// # Errors
    /// If disk or state refuse.
    pub(crate) fn finish(mut self, replica: Replica, known: Option<LogId>, all_known: bool) -> io::Result<(NewLife, Salvaged)> {
        let found = self.last.max(self.applied);
        self.note_lost(self.kept_end..self.machine.next_offset());
        if !all_known || found.map(|found| found.index) < known.map(|known| known.index) {
            self.give_up_offsets();
        }
        self.write_frames()?;
        self.salvaged.next_offset = self.machine.next_offset();
        let last = found.max(known).unwrap_or_default();
        let last = LogId { index: last.index.saturating_add(INDEXES_GIVEN_UP), ..last };
        let rows = std::mem::take(&mut self.rows.0);
        self.life.write_rows(rows.into_iter().map(|((table, key), value)| (table, key, value)))?;
        // Nobody has the same.
        let life = self.life.finish(last, convert::sole_voter(replica, last)?, None)?;
        Ok((life, self.salvaged))
    }

    fn first_unapplied(&self) -> u64 {
        self.applied.map_or(0, |applied| applied.index + 1)
    }

    /// The index of the next entry whose effect the rows lack.
    fn expected(&self) -> u64 {
        self.first_unapplied().max(self.last.map_or(0, |last| last.index + 1))
    }

    fn keep(&mut self, frame: StoredFrame) -> io::Result<()> {
        self.last = Some(frame.header.last_log_id());
        let live_from = self.machine.live_from();
        let mut is_live = false;
        for kept in frame.header.items.iter().filter_map(ItemHeader::kept) {
            let end = end_of(&kept);
            self.note_lost(self.kept_end.max(live_from)..kept.base_offset);
            self.kept_end = self.kept_end.max(end);
            is_live |= end > live_from;
        }
        if is_live {
            self.frames.1 += frame.header.bytes();
            self.frames.0.push(frame);
        }
        if self.frames.1 >= WRITE_BYTES { self.write_frames() } else { Ok(()) }
    }

    fn write_frames(&mut self) -> io::Result<()> {
        let (frames, _) = std::mem::take(&mut self.frames);
        self.life.write_frames(frames)
    }

    fn note_lost(&mut self, offsets: Range<u64>) {
        if offsets.is_empty() {
            return;
        }
        self.salvaged.lost_offsets += offsets.end - offsets.start;
        if self.salvaged.lost.len() < RANGES_MAX {
            self.salvaged.lost.push(offsets.clone());
        }
        self.kept_end = self.kept_end.max(offsets.end);
        self.machine.lose(offsets, &mut self.rows);
    }

    fn give_up_offsets(&mut self) {
        self.salvaged.end_unknown = true;
        let next = self.machine.next_offset();
        self.note_lost(self.kept_end..next);
        self.machine.lose(next..next.saturating_add(OFFSETS_GIVEN_UP), &mut self.rows);
        self.kept_end = self.machine.next_offset();
    }
}

/// One behind the last offset.
fn end_of(kept: &Kept) -> u64 {
    kept.base_offset.saturating_add(u64::from(kept.offset_count))
}

/// The rows that `machine` was restored from, and the last entry that they include; `None` if there are none.
fn intact_rows(state: &dyn State, keys: &GroupKeys, machine: &mut dyn Machine) -> io::Result<Option<(Vec<Row>, LogId)>> {
    let Some(applied) = state.get(&keys.applied()).map_err(io::Error::other)? else { return Ok(None) };
    let (applied, _) = GroupKeys::decode_applied(&applied).map_err(restore::undecodable)?;
    let rows = restore::read_rows(state, keys)?;
    machine.restore(rows.clone()).map_err(restore::undecodable)?;
    Ok(Some((rows, applied)))
}
