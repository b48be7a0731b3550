//! Random crash schedules of the real segments on the simulated disk: everything at or before the recorded position
//! is there, nothing is invented, and opening never calls anything damage.
//!
//! `FLOTILLA_CRASH_SCHEDULES` sets how many schedules run (1,000), `FLOTILLA_SEED` the seed of the first one (1). A
//! failure names its seed; that seed with a count of 1 repeats it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use flotilla_raft::disk::Disk;
use flotilla_raft::disk::sim::{Rng, SimDisk};
use flotilla_raft::segments::{
    BodyKind, Frame, FrameHeader, SegmentError, SegmentOptions, SegmentReader, SegmentWriter, StoredFrame, StoredItem,
};
use flotilla_raft::types::{Body, Decision, Entry, GroupId, Item, Kept, LogId};

const DIR: &str = "groups/7-1";
const FRAMES: u64 = 300;
const OPTIONS: SegmentOptions =
    SegmentOptions { segment_bytes_max: 4000, index_interval_bytes: 300, write_bytes_max: 1500, index_save_bytes: 900 };

/// The applied log: a crash may make the flusher write an entry again, but never a different one.
fn history(rng: &mut Rng) -> Vec<Frame> {
    let (mut term, mut next_offset) = (1, 0);
    let mut frames = Vec::new();
    for index in 0..FRAMES {
        term += u64::from(rng.below(20) == 0);
        let log_id = LogId { term, index };
        let (body, decisions) = match rng.below(12) {
            0 => (Body::Blank, Vec::new()),
            1 => (Body::Membership(payload(rng, 40)), Vec::new()),
            _ => items(rng, &mut next_offset),
        };
        frames.push(Frame { entry: Entry { log_id, body }, decisions: decisions.into(), checksums: [].into() });
    }
    frames
}

fn items(rng: &mut Rng, next_offset: &mut u64) -> (Body, Vec<Decision>) {
    let (mut items, mut decisions) = (Vec::new(), Vec::new());
    for _ in 0..rng.below(4) {
        let longest = if rng.below(10) == 0 { 3000 } else { 200 };
        items.push(Item { kind: rng.below(5) as u8, payload: payload(rng, longest) });
        decisions.push(if rng.below(3) == 0 {
            Decision::Drop
        } else {
            let offset_count = 1 + rng.below(5) as u32;
            let kept = Kept { base_offset: *next_offset, offset_count, max_timestamp_ms: rng.below(1000) as i64 };
            *next_offset += u64::from(offset_count);
            Decision::Keep(kept)
        });
    }
    (Body::Items(items.into()), decisions)
}

fn payload(rng: &mut Rng, longest: u64) -> Bytes {
    let len = rng.below(longest);
    (0..len).map(|_| rng.next_u64() as u8).collect()
}

/// What the machine says about an item: the same whenever it is asked.
fn is_live(header: &FrameHeader, item: usize) -> bool {
    header.items[item].kept().is_some_and(|kept| lives(header.log_id, kept))
}

fn lives(log_id: LogId, kept: Kept) -> bool {
    !kept.base_offset.is_multiple_of(3) && !log_id.index.is_multiple_of(7)
}

#[derive(Default)]
struct Reached {
    crashes: u64,
    failed: u64,
    failed_opens: u64,
    unlinked: u64,
    rewritten: u64,
    verified: u64,
}

struct World {
    rng: Rng,
    disk: SimDisk,
    frames: Vec<Frame>,
    /// What the journal remembers; it may lag behind what is synced.
    recorded: Option<LogId>,
    synced: Option<LogId>,
    /// Nothing at or before this index need be there any more.
    unlinked_through: Option<u64>,
    /// Dead items at or before this index may be gone.
    purged: Option<u64>,
    reached: Reached,
}

impl World {
    fn new(seed: u64) -> World {
        let mut rng = Rng::new(seed);
        let disk = SimDisk::new(rng.next_u64());
        disk.create_dir_all(Path::new("groups")).unwrap();
        disk.sync_dir(Path::new("groups")).unwrap();
        let frames = history(&mut rng);
        let (recorded, synced, unlinked_through, purged) = (None, None, None, None);
        World { rng, disk, frames, recorded, synced, unlinked_through, purged, reached: Reached::default() }
    }

    /// Opens, with crashes on the way; anything but an I/O error that was planned is a failure of the test.
    fn open(&mut self) -> Result<(SegmentWriter, SegmentReader), String> {
        loop {
            let crash = self.rng.below(4) == 0;
            let operations = self.rng.below(6);
            self.disk.faults(|faults| {
                faults.capacity_bytes = u64::MAX;
                faults.power_fails_in = crash.then_some(operations);
            });
            let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
            match SegmentWriter::open(disk, Path::new(DIR), GroupId(7), OPTIONS, self.recorded) {
                // The power may have failed in an operation whose error did not matter.
                Ok(_) if self.disk.list(Path::new("groups")).is_err() => self.disk.power_cut(),
                Ok(opened) => {
                    self.disk.faults(|faults| faults.power_fails_in = None);
                    return Ok(opened);
                }
                Err(SegmentError::Io { .. }) if crash => self.disk.power_cut(),
                Err(error) => return Err(format!("open, recorded {:?}: {error}", self.recorded)),
            }
            self.reached.failed_opens += 1;
        }
    }

    /// One life of the process: open, check, work, and some kind of end.
    fn live(&mut self) -> Result<(), String> {
        let (mut writer, reader) = self.open()?;
        self.synced = self.recorded;
        self.check(&writer, &reader)?;
        let operations = 1 + self.rng.below(40);
        let plan = self.rng.below(8);
        self.disk.faults(|faults| match plan {
            0..=2 => faults.power_fails_in = Some(operations),
            3 => faults.sync_fails_in = Some(operations / 3),
            4 => faults.write_fails_in = Some(operations / 3),
            5 => faults.capacity_bytes = 30_000,
            _ => {}
        });
        for _ in 0..self.rng.below(60) {
            match self.work(&mut writer, &reader) {
                Ok(()) => {}
                Err(SegmentError::Io { .. } | SegmentError::Failed { .. }) if plan <= 5 => {
                    self.reached.failed += 1;
                    break;
                }
                Err(error) => return Err(format!("work: {error}")),
            }
        }
        match self.rng.below(4) {
            0 => {
                if let Ok(synced) = writer.close() {
                    self.synced = synced;
                    self.recorded = synced;
                }
                self.disk.kill();
            }
            1 => self.disk.kill(),
            _ => self.disk.power_cut(),
        }
        self.reached.crashes += 1;
        Ok(())
    }

    fn work(&mut self, writer: &mut SegmentWriter, reader: &SegmentReader) -> Result<(), SegmentError> {
        match self.rng.below(16) {
            0..=6 => {
                let next = writer.last().map_or(0, |last| last.index as usize + 1);
                let end = (next + 1 + self.rng.below(6) as usize).min(self.frames.len());
                writer.append(&self.frames[next..end])
            }
            7..=9 => {
                self.synced = writer.sync()?;
                Ok(())
            }
            10..=11 => {
                self.recorded = self.synced;
                Ok(())
            }
            12 => writer.roll(),
            13 => {
                let Some(recorded) = self.recorded else { return Ok(()) };
                let index = self.rng.below(recorded.index + 1);
                // Before the call: it may happen in part.
                self.unlinked_through = self.unlinked_through.max(Some(index));
                self.reached.unlinked += u64::from(writer.unlink_through(index)? > 0);
                Ok(())
            }
            14 => self.rewrite(writer, reader),
            _ => self.verify(reader),
        }
    }

    fn rewrite(&mut self, writer: &mut SegmentWriter, reader: &SegmentReader) -> Result<(), SegmentError> {
        let closed: Vec<u64> = reader.segments().iter().filter(|info| info.closed).map(|info| info.first_index).collect();
        let Some(first_index) = closed.get(self.rng.below(closed.len() as u64) as usize) else { return Ok(()) };
        let purged = self.rng.below(writer.last().map_or(0, |last| last.index + 1));
        self.purged = self.purged.max(Some(purged));
        let copy = reader.rewrite(*first_index, purged, is_live)?;
        if self.rng.below(4) > 0 {
            writer.replace(copy)?;
            self.reached.rewritten += 1;
        }
        Ok(())
    }

    fn verify(&mut self, reader: &SegmentReader) -> Result<(), SegmentError> {
        for info in reader.segments().iter().filter(|info| info.closed) {
            assert_eq!(reader.verify(info.first_index, |_| ControlFlow::Continue(()))?, info.bytes);
            self.reached.verified += 1;
        }
        Ok(())
    }

    fn check(&self, writer: &SegmentWriter, reader: &SegmentReader) -> Result<(), String> {
        let last = writer.last();
        if last < self.recorded || (last > self.recorded && last.map(|last| last.index) > self.purged) {
            return Err(format!("opened through {last:?}, recorded was {:?}", self.recorded));
        }
        let need_from = self.unlinked_through.map_or(0, |index| index + 1);
        let Some(last) = last else { return Ok(()) };
        let Some(first_index) = reader.first_index() else {
            return if need_from > last.index { Ok(()) } else { Err(format!("nothing from {need_from} on")) };
        };
        if first_index > need_from {
            return Err(format!("starts with {first_index}, not {need_from}"));
        }
        let mut next = first_index;
        while next <= last.index {
            let frames = reader.frames(next, last.index + 1, 2000).map_err(|error| error.to_string())?;
            let end = frames.last().ok_or(format!("no frame at {next}"))?.header.last_index + 1;
            for frame in frames {
                if frame.header.log_id.index != next {
                    return Err(format!("{} where {next} belongs", frame.header.log_id));
                }
                next = frame.header.last_index + 1;
                self.check_frame(frame)?;
            }
            assert_eq!(next, end);
        }
        self.check_items(reader, first_index, last.index)
    }

    fn check_frame(&self, frame: StoredFrame) -> Result<(), String> {
        let header = &frame.header;
        let expected = &self.frames[header.log_id.index as usize];
        if header.body == BodyKind::Remains {
            return if Some(header.last_index) <= self.purged { Ok(()) } else { Err(format!("remains: {header:?}")) };
        }
        let decisions: Vec<Decision> = header.items.iter().map(|item| item.decision).collect();
        let has_items = header.body == BodyKind::Items;
        let kinds: Vec<u8> = header.items.iter().map(|item| item.kind).collect();
        let same = match &expected.entry.body {
            Body::Items(items) => {
                has_items
                    && decisions[..] == expected.decisions[..]
                    && items.iter().map(|item| item.kind).eq(kinds)
                    && items.iter().map(|item| &item.payload).eq(&frame.payloads)
            }
            Body::Membership(bytes) => header.body == BodyKind::Membership && frame.payloads == [bytes.clone()],
            Body::Blank => header.body == BodyKind::Blank,
        };
        if same && header.log_id == expected.entry.log_id { Ok(()) } else { Err(format!("not what was written: {header:?}")) }
    }

    /// Reads everything by offset: all that must live is there, in order, and everything read was written.
    fn check_items(&self, reader: &SegmentReader, first_index: u64, last_index: u64) -> Result<(), String> {
        let mut found: Vec<StoredItem> = Vec::new();
        loop {
            let next = found.last().map_or(0, |item| item.kept.base_offset + u64::from(item.kept.offset_count));
            let items = reader.read(next, 700).map_err(|error| error.to_string())?;
            if items.is_empty() {
                break;
            }
            found.extend(items);
        }
        let mut found = found.into_iter().peekable();
        for frame in &self.frames[first_index as usize..=last_index as usize] {
            let Body::Items(items) = &frame.entry.body else { continue };
            for (item, decision) in items.iter().zip(frame.decisions.iter()) {
                let Decision::Keep(kept) = *decision else { continue };
                let (log_id, payload) = (frame.entry.log_id, item.payload.clone());
                let expected = StoredItem { log_id, kind: item.kind, kept, payload };
                let may_be_gone = !lives(log_id, kept) && Some(log_id.index) <= self.purged;
                if found.next_if_eq(&expected).is_none() && !may_be_gone {
                    return Err(format!("offset {} of {log_id} is missing, next is {:?}", kept.base_offset, found.peek()));
                }
            }
        }
        match found.next() {
            Some(item) => Err(format!("invented: {item:?}")),
            None => Ok(()),
        }
    }
}

fn run(seed: u64, lying_sync: bool) -> Result<Reached, String> {
    let mut world = World::new(seed);
    world.disk.faults(|faults| faults.lying_sync = lying_sync);
    for _ in 0..6 {
        world.live()?;
    }
    let (writer, reader) = world.open()?;
    world.check(&writer, &reader)?;
    Ok(world.reached)
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |value| value.parse().expect("a number"))
}

#[test]
fn crashes_lose_and_invent_nothing() {
    let first = setting("FLOTILLA_SEED", 1);
    let count = setting("FLOTILLA_CRASH_SCHEDULES", 1000);
    let mut all = Reached::default();
    for seed in first..first + count {
        let reached = run(seed, false).unwrap_or_else(|reason| panic!("FLOTILLA_SEED={seed}: {reason}"));
        all.crashes += reached.crashes;
        all.failed += reached.failed;
        all.failed_opens += reached.failed_opens;
        all.unlinked += reached.unlinked;
        all.rewritten += reached.rewritten;
        all.verified += reached.verified;
    }
    // A schedule that provokes nothing proves nothing.
    if count >= 100 {
        for reached in [all.crashes, all.failed, all.failed_opens, all.unlinked, all.rewritten, all.verified] {
            assert!(reached >= count / 10, "too little was provoked: {reached} in {count} schedules");
        }
    }
}

#[test]
fn a_disk_that_lies_about_syncs_is_noticed() {
    let noticed = (1..=100).filter(|seed| run(*seed, true).is_err()).count();
    assert!(noticed > 50, "the check noticed {noticed} of 100 lying disks");
}
