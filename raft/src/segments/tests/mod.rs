//! Tests of segments on the real disk; crashes are in the crate's `tests/segments_crash.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod damage;
mod format;
mod reading;
mod removing;
mod writing;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::disk::real::RealDisk;
use crate::types::{Body, Decision, Entry, Item};

const GROUP: GroupId = GroupId(7);
const SMALL: SegmentOptions =
    SegmentOptions { segment_bytes_max: 2000, index_interval_bytes: 200, write_bytes_max: 700, index_save_bytes: 500 };

/// A directory of segments that goes away with the test.
struct Home {
    dir: TempDir,
}

impl Home {
    fn new() -> Home {
        Home { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("7-1")
    }

    fn try_open(&self, synced: Option<LogId>) -> Result<(SegmentWriter, SegmentReader), SegmentError> {
        SegmentWriter::open(Arc::new(RealDisk), &self.path(), GROUP, SMALL, synced)
    }

    fn open(&self, synced: Option<LogId>) -> (SegmentWriter, SegmentReader) {
        self.try_open(synced).unwrap()
    }

    /// Writes `frames`, closes, and returns what is synced.
    fn write(&self, frames: &[Frame]) -> LogId {
        let (mut writer, _) = self.open(None);
        writer.append(frames).unwrap();
        writer.close().unwrap().unwrap()
    }

    /// The files with this extension, in order.
    fn files(&self, extension: &str) -> Vec<PathBuf> {
        let files = std::fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
        files.sort();
        files
    }
}

/// Entry `index` in term 1 with two kept items of two offsets each around a dropped one: offsets from `4 * index` on,
/// timestamps `10 * index` and `10 * index + 5`.
fn frame(index: u64) -> Frame {
    frame_of(index, 60)
}

fn frame_of(index: u64, payload_bytes: usize) -> Frame {
    let keep = |base_offset, max_timestamp_ms| Decision::Keep(Kept { base_offset, offset_count: 2, max_timestamp_ms });
    let time = 10 * index as i64;
    let items = [("a", payload_bytes), ("b", 3), ("c", payload_bytes / 2)]
        .map(|(name, bytes)| Item { kind: 3, payload: format!("{name}{index:0bytes$}").into() });
    let entry = Entry { log_id: LogId { term: 1, index }, body: Body::Items(Arc::new(items)) };
    Frame {
        entry,
        decisions: Arc::new([keep(4 * index, time), Decision::Drop, keep(4 * index + 2, time + 5)]),
        checksums: Arc::default(),
    }
}

fn frames(indexes: std::ops::Range<u64>) -> Vec<Frame> {
    indexes.map(frame).collect()
}

/// The kept items of `frames`, as a reader must return them.
fn items_of(frames: &[Frame]) -> Vec<StoredItem> {
    let mut found = Vec::new();
    for Frame { entry, decisions, .. } in frames {
        let Body::Items(items) = &entry.body else { continue };
        for (item, decision) in items.iter().zip(decisions.iter()) {
            if let Decision::Keep(kept) = *decision {
                found.push(StoredItem { log_id: entry.log_id, kind: item.kind, kept, payload: item.payload.clone() });
            }
        }
    }
    found
}

/// Everything that can be read by offset, in several reads.
fn read_all(reader: &SegmentReader) -> Result<Vec<StoredItem>, SegmentError> {
    let (mut found, mut next): (Vec<StoredItem>, u64) = (Vec::new(), 0);
    loop {
        let items = reader.read(next, 500)?;
        let Some(last) = items.last() else { return Ok(found) };
        next = last.kept.base_offset + u64::from(last.kept.offset_count);
        found.extend(items);
    }
}

/// Everything that can be read by raft index, in several reads.
fn entries_all(reader: &SegmentReader, from: u64) -> Result<Vec<Entry>, SegmentError> {
    let mut found: Vec<Entry> = Vec::new();
    loop {
        let next = found.last().map_or(from, |entry| entry.log_id.index + 1);
        let entries = reader.entries(next, u64::MAX, 500)?;
        if entries.is_empty() {
            return Ok(found);
        }
        found.extend(entries);
    }
}

fn entries_of(frames: &[Frame]) -> Vec<Entry> {
    frames.iter().map(|frame| frame.entry.clone()).collect()
}
