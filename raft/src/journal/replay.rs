//! Rebuilds the table and the live entries from the files, and tells a torn tail from damage.
//!
//! It starts from the newest checkpoint that can be read: the older files that it lists are read for their live entries only; the
//! file itself and those behind it are replayed record by record. A file behind the newest readable checkpoint can only be
//! one whose own checkpoint is bad.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;

use super::checkpoint::{self, Checkpoint, LiveFile};
use super::codec::{Malformed, Reader};
use super::frame::{Header, Kind};
use super::log_shape::LogShape;
use super::record::Record;
use super::scan::{Found, Frame, Scan};
use super::table::{DamageRow, Suspect, Table};
use crate::types::{Entry, GroupId, LogId};

/// A file as it was found.
#[derive(Debug)]
pub(super) struct Surveyed {
    pub(super) slot: u32,
    pub(super) scan: Scan,
    /// The header of its first frame, or (if that is unreadable) the newest one in it.
    pub(super) header: Option<Header>,
    /// Its checkpoint, if it can be read.
    pub(super) checkpoint: Option<Checkpoint>,
}

/// An entry, and the batch that it was read from.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) entry: Entry,
    pub(super) batch: u64,
}

/// What the files said.
#[derive(Debug, Default)]
pub(super) struct Replay {
    pub(super) table: Table,
    pub(super) entries: BTreeMap<GroupId, BTreeMap<u64, Held>>,
    /// The last valid batch of each file that counts.
    pub(super) last_batches: BTreeMap<u32, u64>,
    /// The highest valid batch; 0 if there is none.
    pub(super) last_batch: u64,
    has_base: bool,
    /// Damaged in this replay: what follows in these groups is not applied.
    fresh: BTreeSet<GroupId>,
    fresh_all: bool,
    /// Bad places that no valid batch has proven to be damage yet.
    pending: Vec<BadPlace>,
    /// Bad places in older files.
    older: Vec<BadPlace>,
}

#[derive(Debug, Clone)]
struct BadPlace {
    slot: u32,
    file: u64,
    range: Range<u64>,
    header: Option<Header>,
}

impl Surveyed {
    pub(super) fn new(slot: u32, scan: Scan) -> io::Result<Self> {
        let (header, frame) = scan.first()?;
        let frame = frame.filter(|frame| is_checkpoint(frame.header.kind));
        let checkpoint = frame.and_then(|frame| checkpoint::decode(frame.header.kind, &mut Reader::new(frame.body)).ok());
        let header = if header.is_some() { header } else { scan.newest_life()? };
        Ok(Self { slot, scan, header, checkpoint })
    }

    fn file(&self) -> Option<u64> {
        self.header.as_ref().map(|header| header.file)
    }
}

impl Replay {
    /// Replays all files.
    pub(super) fn run(files: &mut [Surveyed]) -> io::Result<Self> {
        let mut replay = Self::default();
        files.sort_by_key(Surveyed::file);
        let base = files.iter().rposition(|file| file.checkpoint.is_some());
        if let Some(checkpoint) = base.and_then(|base| files.get_mut(base)).and_then(|file| file.checkpoint.take()) {
            replay.has_base = true;
            replay.table = checkpoint.table;
            for older in checkpoint.files {
                replay.read_older(files, older)?;
            }
        }
        for file in files.iter().skip(base.unwrap_or(0)) {
            replay.replay_file(file)?;
        }
        replay.drop_torn_tail();
        replay.check_entries(files);
        Ok(replay)
    }

    /// Collects the entries of an older file that the checkpoint expects there.
    fn read_older(&mut self, files: &[Surveyed], older: LiveFile) -> io::Result<()> {
        self.last_batches.insert(older.slot, older.last_batch);
        let Some(found) = files.iter().find(|file| file.slot == older.slot && file.file() == Some(older.file)) else {
            let range = 0..files.iter().find(|file| file.slot == older.slot).map_or(0, |file| file.scan.len());
            self.older.push(BadPlace { slot: older.slot, file: older.file, range, header: None });
            return Ok(());
        };
        let mut last = 0;
        let end = found.scan.walk(older.file, |at| {
            match at {
                Found::Frame(frame) => {
                    last = frame.header.number;
                    if last <= older.last_batch && self.hold_older(frame, older.file).is_err() {
                        self.older.push(BadPlace { slot: older.slot, file: older.file, range: 0..0, header: None });
                    }
                }
                Found::Bad { range, header } => {
                    last = header.as_ref().map_or(last, |header| header.number);
                    self.older.push(BadPlace { slot: older.slot, file: older.file, range, header });
                }
            }
            last < older.last_batch
        })?;
        if last < older.last_batch {
            let range = end..found.scan.len();
            self.older.push(BadPlace { slot: older.slot, file: older.file, range, header: None });
        }
        Ok(())
    }

    fn hold_older(&mut self, frame: Frame, file: u64) -> Result<(), Malformed> {
        for record in records_of(frame.header.kind, frame.body)? {
            let Record::Append { group, entries } = record else { continue };
            let Some(log) = self.table.groups.get(&group).map(|group| &group.log) else { continue };
            let held = self.entries.entry(group).or_default();
            for entry in entries {
                if log.file_of(entry.log_id) == Some(file) {
                    held.insert(entry.log_id.index, Held { entry, batch: frame.header.number });
                }
            }
        }
        Ok(())
    }

    /// Replays the file of the newest checkpoint, or one behind it.
    fn replay_file(&mut self, surveyed: &Surveyed) -> io::Result<()> {
        let Some(file) = surveyed.file() else { return Ok(()) };
        let slot = surveyed.slot;
        surveyed.scan.walk(file, |found| {
            match found {
                Found::Frame(frame) => self.accept(slot, frame),
                Found::Bad { range, header } => self.pending.push(BadPlace { slot, file, range, header }),
            }
            true
        })?;
        // Files have their full length before anything is written to them, so a shorter one lost something.
        let (len, full) = (surveyed.scan.len(), surveyed.header.as_ref().map_or(0, Header::file_bytes));
        if len < full {
            self.declare(slot, len..full, Suspect::All, format!("the file was cut from {full} to {len} bytes"));
        }
        Ok(())
    }

    /// Takes the next valid batch. It proves that everything below it was synced.
    fn accept(&mut self, slot: u32, frame: Frame) {
        let number = frame.header.number;
        let first = self.last_batch == 0 && self.has_base;
        if !first && number <= self.last_batch {
            return;
        }
        let missing = if first { number..number } else { self.last_batch + 1..number };
        if missing.is_empty() {
            // Nothing is missing: what was bad is an older copy.
            self.pending.clear();
        } else {
            self.declare_missing(slot, missing);
        }
        self.last_batch = number;
        self.last_batches.insert(slot, number);
        let (kind, file) = (frame.header.kind, frame.header.file);
        match records_of(kind, frame.body) {
            Ok(records) => records.into_iter().for_each(|record| self.apply(slot, record, file, number)),
            Err(Malformed(reason)) => {
                let groups = frame.header.groups.iter().map(|(group, _)| *group).collect();
                self.declare(slot, 0..0, Suspect::Named(groups), format!("batch {number} cannot be decoded: {reason}"));
            }
        }
    }

    /// Batches are missing below a valid one: damage.
    fn declare_missing(&mut self, slot: u32, missing: Range<u64>) {
        let bad = std::mem::take(&mut self.pending);
        let named: BTreeSet<u64> = bad.iter().filter_map(|place| place.header.as_ref().map(|header| header.number)).collect();
        let all_named = self.has_base && missing.clone().all(|number| named.contains(&number));
        if bad.is_empty() {
            let reason = format!("batches {} to {} are missing", missing.start, missing.end - 1);
            self.declare(slot, 0..0, Suspect::All, reason);
        }
        for place in bad {
            let (groups, reason) = match place.header.filter(|_| all_named) {
                Some(header) => {
                    let groups = header.groups.iter().map(|(group, _)| *group).collect();
                    (Suspect::Named(groups), format!("the content of batch {} is bad", header.number))
                }
                None => {
                    let (first, last) = (missing.start, missing.end - 1);
                    (Suspect::All, format!("batches {first} to {last} are bad, and which groups they hold is unreadable"))
                }
            };
            self.declare(place.slot, place.range, groups, reason);
        }
    }

    fn declare(&mut self, slot: u32, range: Range<u64>, groups: Suspect, reason: String) {
        match &groups {
            Suspect::Named(named) => self.fresh.extend(named),
            Suspect::All => self.fresh_all = true,
        }
        let known = self.table.damage.iter().any(|row| row.slot == slot && row.range == range && row.groups == groups);
        if !known && groups != Suspect::Named(Vec::new()) {
            self.table.damage.push(DamageRow { slot, range, groups, reason });
        }
    }

    fn apply(&mut self, slot: u32, record: Record, file: u64, batch: u64) {
        let group = record.group();
        let suspect = self.fresh_all || group.is_some_and(|group| self.fresh.contains(&group));
        match (&record, group) {
            // What was there before does not matter any more.
            (Record::Remove { .. } | Record::BeginAgain { .. }, Some(group)) => _ = self.fresh.remove(&group),
            _ if suspect => return,
            _ => {}
        }
        if let Err(reason) = self.table.apply_all(std::slice::from_ref(&record), file) {
            let groups = Suspect::Named(group.into_iter().collect());
            self.declare(slot, 0..0, groups, format!("batch {batch} contradicts what came before: {reason}"));
            return;
        }
        let Some(group) = group else { return };
        if let Record::Append { entries, .. } = record {
            let held = self.entries.entry(group).or_default();
            held.extend(entries.into_iter().map(|entry| (entry.log_id.index, Held { entry, batch })));
        } else {
            self.forget_dead(group);
        }
    }

    /// Frees the memory of entries below the group's first live one.
    fn forget_dead(&mut self, group: GroupId) {
        let log = self.table.groups.get(&group).map(|group| &group.log);
        match log.and_then(|log| log.runs().first()) {
            None => {
                self.entries.remove(&group);
            }
            Some(run) => {
                if let Some(held) = self.entries.get_mut(&group) {
                    *held = held.split_off(&run.first);
                }
            }
        }
    }

    fn drop_torn_tail(&mut self) {
        for place in self.pending.drain(..) {
            tracing::info!(slot = place.slot, range = ?place.range, "dropped a batch that was never acknowledged");
        }
    }

    /// Every live entry must have been found where the table says. A group's log ends before its first missing one.
    fn check_entries(&mut self, files: &[Surveyed]) {
        let mut lost: BTreeMap<u64, BTreeSet<GroupId>> = BTreeMap::new();
        for (id, group) in &mut self.table.groups {
            let held = self.entries.get(id);
            let is_held =
                |log_id: LogId| held.and_then(|held| held.get(&log_id.index)).is_some_and(|held| held.entry.log_id == log_id);
            if let Some((log_id, file)) = first_missing(&group.log, is_held) {
                lost.entry(file).or_default().insert(*id);
                group.log.end_before(log_id.index, group.segments_synced);
            }
        }
        for place in std::mem::take(&mut self.older) {
            let of_file = lost.get(&place.file).cloned().unwrap_or_default();
            let inside =
                |id: &&GroupId| place.header.as_ref().is_none_or(|header| header.groups.iter().any(|(group, _)| group == *id));
            let groups: Vec<_> = of_file.iter().filter(inside).copied().collect();
            if groups.is_empty() {
                tracing::warn!(slot = place.slot, range = ?place.range, "a bad place in the journal held nothing live");
            } else {
                let reason = "live entries cannot be read any more".to_owned();
                self.declare(place.slot, place.range, Suspect::Named(groups), reason);
            }
        }
        for (file, groups) in lost {
            let unexplained: Vec<_> = groups.into_iter().filter(|group| !self.table.is_damaged(*group)).collect();
            let found = files.iter().find(|surveyed| surveyed.file() == Some(file));
            let (slot, len) = found.map_or((0, 0), |surveyed| (surveyed.slot, surveyed.scan.len()));
            let reason = format!("live entries are not in file {file}, where the checkpoint says");
            self.declare(slot, 0..len, Suspect::Named(unexplained), reason);
        }
    }
}

/// The first live entry that was not found, and the file that should hold it.
fn first_missing(log: &LogShape, is_held: impl Fn(LogId) -> bool) -> Option<(LogId, u64)> {
    log.runs().iter().find_map(|run| {
        let ids = (run.first..=run.last).map(|index| LogId { term: run.term, index });
        ids.into_iter().find(|log_id| !is_held(*log_id)).map(|log_id| (log_id, run.file))
    })
}

fn is_checkpoint(kind: Kind) -> bool {
    matches!(kind, Kind::Checkpoint | Kind::OldCheckpoint)
}

fn records_of(kind: Kind, body: bytes::Bytes) -> Result<Vec<Record>, Malformed> {
    let mut from = Reader::new(body);
    if is_checkpoint(kind) {
        checkpoint::decode(kind, &mut from)?;
    }
    let mut records = Vec::new();
    while !from.is_empty() {
        records.push(Record::decode(&mut from)?);
    }
    Ok(records)
}
