//! Opening: read what is there, write the last batch again, and only then report.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::frame::{BLOCK_BYTES, HEADER_BYTES, HEADER_GROUP_BYTES, blocks};
use super::options::{JournalError, JournalOptions};
use super::record::Record;
use super::replay::{Replay, Surveyed};
use super::ring::{Life, Ring, Slot, slot_of, slot_path};
use super::scan::Scan;
use super::table::{Marks, Suspect, Table};
use super::writer::{Current, Journal};
use crate::disk::Disk;
use crate::planted::{Bug, is_planted};
use crate::types::{Entry, GroupId, Incarnation, LogId, ReplicaId, Vote};

/// What the journal held when it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// How often the journal was opened, this time included. Grows with every opening.
    pub boot_epoch: u64,
    /// All groups, the damaged ones too.
    pub groups: BTreeMap<GroupId, RecoveredGroup>,
    /// The last replica of each group that was removed and is not forgotten.
    pub removed: BTreeMap<GroupId, ReplicaId>,
    /// Damage that nobody dealt with yet, found now or before.
    pub damage: Vec<Damage>,
}

/// A group as the journal knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveredGroup {
    /// Which replica of the group this is; 0: it was created by a version that knew no replicas.
    pub replica: ReplicaId,
    /// The valid life of its data.
    pub incarnation: Incarnation,
    /// The last vote.
    pub vote: Option<Vote>,
    /// The purge mark.
    pub purged: Option<LogId>,
    /// The last entry known to be committed; may be behind what was known.
    pub committed: Option<LogId>,
    /// What segments hold durably; may be behind what was announced.
    pub segments_synced: Option<LogId>,
    /// The snapshot that this life started with, and its membership.
    pub snapshot: Option<(LogId, Bytes)>,
    /// The last entry of the log, in `tail` or before it.
    pub last: Option<LogId>,
    /// The entries behind `segments_synced`, without holes. In a damaged group they end where the damage begins.
    pub tail: Vec<Entry>,
    /// Whether damage may have taken something. Such a group must neither vote nor serve.
    pub damaged: bool,
}

/// A place in the journal that was durable once and cannot be read any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file. It is left as it is, and not used again, until all groups are dealt with: by [`Record::BeginAgain`],
    /// [`Record::Remove`] or [`Record::AcceptLoss`].
    pub file: PathBuf,
    /// The bytes; empty if only the content of the records is wrong.
    pub range: Range<u64>,
    /// Whose data it held.
    pub groups: Suspect,
    /// What is wrong.
    pub reason: String,
}

impl Recovered {
    /// What was created by a version that knew no replicas is called as the node.
    pub(crate) fn call_as_node(&mut self, node: ReplicaId) {
        let of_groups = self.groups.values_mut().map(|group| &mut group.replica);
        let unnamed = of_groups.chain(self.removed.values_mut()).filter(|replica| **replica == ReplicaId::default());
        unnamed.for_each(|replica| *replica = node);
    }
}

impl RecoveredGroup {
    /// A group in a life that has just begun.
    #[must_use]
    pub fn empty(replica: ReplicaId, incarnation: Incarnation) -> Self {
        Self {
            replica,
            incarnation,
            vote: None,
            purged: None,
            committed: None,
            segments_synced: None,
            snapshot: None,
            last: None,
            tail: Vec::new(),
            damaged: false,
        }
    }
}

impl Journal {
    /// Opens the journal in `dir`, or creates it. When this returns, what it reports is on the disk.
    ///
    /// # Errors
    /// If the options are out of range, the disk refuses, or has no space for one more file. Damage is not an error.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, options: JournalOptions) -> Result<(Self, Recovered), JournalError> {
        options.validate()?;
        let file_bytes = options.file_bytes;
        let failed = |action| JournalError::disk(action, dir, file_bytes);
        disk.create_dir_all(dir).map_err(failed("create"))?;
        disk.sync_dir(dir.parent().unwrap_or(Path::new(""))).map_err(failed("create"))?;
        let mut files = survey(&disk, dir).map_err(failed("read"))?;
        let replay = Replay::run(&mut files).map_err(failed("read"))?;
        let journal = start(disk, dir, options, &files, &replay).map_err(failed("write"))?;
        journal.log_damage();
        let recovered = recovered(&journal, replay);
        Ok((journal, recovered))
    }
}

/// Looks at every file of the ring.
fn survey(disk: &Arc<dyn Disk>, dir: &Path) -> io::Result<Vec<Surveyed>> {
    let mut files = Vec::new();
    for path in disk.list(dir)? {
        if let Some(slot) = slot_of(&path) {
            files.push(Surveyed::new(slot, Scan::open(disk, &path)?)?);
        }
    }
    Ok(files)
}

/// Makes the writer, with a new file whose first batch holds what the last one held.
fn start(disk: Arc<dyn Disk>, dir: &Path, options: JournalOptions, files: &[Surveyed], replay: &Replay) -> io::Result<Journal> {
    let headers = || files.iter().filter_map(|file| file.header.as_ref());
    let boot_epoch = 1 + headers().map(|header| header.boot_epoch).max().unwrap_or(0);
    let sequence = 1 + headers().map(|header| header.file).max().unwrap_or(0);
    let moved = last_batch_again(replay);
    let mut ring = Ring::new(disk, dir.to_owned(), slots(files, replay));
    ring.settle()?;
    let slot = slot_to_start(&mut ring, &replay.table, &moved, &options)?;
    let bytes = ring.slot(slot).map_or(0, |slot| slot.bytes);
    let current = Current { file: ring.open(slot)?, slot, bytes, sequence, position: 0 };
    let (table, number) = (replay.table.clone(), replay.last_batch.max(1));
    let mut journal = Journal::new(options, ring, table, current, boot_epoch, number);
    journal.write_opening(&moved)?;
    Ok(journal)
}

/// The live entries of the last batch, which nothing proves to be on the disk.
fn last_batch_again(replay: &Replay) -> Vec<Record> {
    let mut records = Vec::new();
    for (group, held) in &replay.entries {
        let log = replay.table.groups.get(group).map(|group| &group.log);
        let is_live = |entry: &Entry| log.is_some_and(|log| log.file_of(entry.log_id).is_some());
        let last = held.values().filter(|held| held.batch == replay.last_batch && is_live(&held.entry));
        let entries: Vec<_> = last.map(|held| held.entry.clone()).collect();
        for stretch in entries.chunk_by(|a, b| a.log_id.index + 1 == b.log_id.index) {
            records.push(Record::Append { group: *group, entries: stretch.to_vec() });
        }
    }
    records
}

/// The files as the ring sees them. In the file of the last batch only those before it count from now on.
fn slots(files: &[Surveyed], replay: &Replay) -> Vec<Slot> {
    let replayed = files.iter().filter(|file| replay.last_batches.contains_key(&file.slot));
    let newest_file = replayed.filter_map(|file| file.header.as_ref()).map(|header| header.file).max().unwrap_or(0);
    let slot = |surveyed: &Surveyed| {
        let last_batch = replay.last_batches.get(&surveyed.slot).copied();
        let life = surveyed.header.as_ref().map(|header| Life {
            file: header.file,
            last_batch: last_batch.unwrap_or(0).min(replay.last_batch.saturating_sub(1)),
        });
        // A file behind the newest batch that holds no valid batch is a torn beginning: free.
        let life = life.filter(|life| last_batch.is_some() || life.file < newest_file);
        Slot { index: surveyed.slot, bytes: surveyed.scan.len(), life }
    };
    files.iter().map(slot).collect()
}

/// A free file that is large enough, or a new one.
fn slot_to_start(ring: &mut Ring, table: &Table, moved: &[Record], options: &JournalOptions) -> io::Result<u32> {
    let damaged: BTreeSet<u32> = table.damage.iter().map(|row| row.slot).collect();
    let mut pieces = super::codec::Pieces::default();
    super::checkpoint::encode(&mut pieces, table, &[]);
    let groups = (table.groups.len() * HEADER_GROUP_BYTES + HEADER_BYTES) as u64;
    let records: u64 = moved.iter().map(|record| record.encoded_bytes() as u64).sum();
    // One block for what the checkpoint says of older files, and as much as the records take is left for the first batches.
    let files = blocks(ring.slots().len() as u64 * 20);
    let needed = blocks(groups + pieces.len() as u64 + records) + files + BLOCK_BYTES;
    for index in ring.free(&table.live_files(&Marks::new()), &damaged) {
        let bytes = ring.slot(index).map_or(0, |slot| slot.bytes);
        if bytes >= needed && bytes == options.file_bytes {
            return Ok(index);
        }
    }
    ring.grow(needed.max(options.file_bytes))
}

fn recovered(journal: &Journal, mut replay: Replay) -> Recovered {
    let mut groups = BTreeMap::new();
    for (id, group) in &journal.table.groups {
        let held = replay.entries.remove(id).unwrap_or_default();
        let live = held.into_values().map(|held| held.entry);
        let mut tail: Vec<Entry> = live.filter(|entry| group.log.file_of(entry.log_id).is_some()).collect();
        if is_planted(Bug::LastEntryForgotten) {
            tail.pop();
        }
        let snapshot = group.snapshot.map(|snapshot| (snapshot, group.membership.clone()));
        let recovered = RecoveredGroup {
            replica: group.replica,
            incarnation: group.incarnation,
            vote: group.vote,
            purged: group.purged,
            committed: group.committed,
            segments_synced: group.segments_synced,
            snapshot,
            last: group.log.last(),
            tail,
            damaged: journal.table.is_damaged(*id),
        };
        groups.insert(*id, recovered);
    }
    let damage = journal.table.damage.iter().map(|row| Damage {
        file: slot_path(journal.ring.dir(), row.slot),
        range: row.range.clone(),
        groups: row.groups.clone(),
        reason: row.reason.clone(),
    });
    let removed = journal.table.removed.clone();
    Recovered { boot_epoch: journal.boot_epoch, groups, removed, damage: damage.collect() }
}
