//! What the writer promises and refuses.

use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::disk::sim::SimDisk;
use crate::disk::{Disk, DiskFile};

#[test]
fn what_was_not_recorded_is_discarded_and_written_again() {
    let home = Home::new();
    home.write(&frames(0..50));
    for recorded in [49, 33, 32, 7, 0] {
        let recorded = LogId { term: 1, index: recorded };
        let (mut writer, reader) = home.open(Some(recorded));
        assert_eq!((writer.last(), reader.last()), (Some(recorded), Some(recorded)));
        assert_eq!(entries_all(&reader, 0).unwrap(), entries_of(&frames(0..recorded.index + 1)));
        writer.append(&frames(recorded.index + 1..60)).unwrap();
        assert_eq!(entries_all(&reader, 0).unwrap(), entries_of(&frames(0..60)));
        writer.close().unwrap();
    }
    let (writer, reader) = home.open(None);
    assert_eq!((writer.last(), reader.last(), reader.bytes()), (None, None, 0));
    assert!(std::fs::read_dir(home.path()).unwrap().next().is_none());
}

#[test]
fn frames_that_do_not_follow_are_refused_and_nothing_is_written() {
    let home = Home::new();
    let (mut writer, reader) = home.open(None);
    writer.append(&frames(3..5)).unwrap();
    let bytes = reader.bytes();
    let mut older = frame(5);
    older.entry.log_id.term = 0;
    let mut unlike = frame(5);
    unlike.decisions = Arc::new([]);
    let mut overlapping = frame(4);
    overlapping.entry.log_id.index = 5;
    let empty = Decision::Keep(Kept { base_offset: 99, offset_count: 0, max_timestamp_ms: 0 });
    let endless = Decision::Keep(Kept { base_offset: u64::MAX, offset_count: 1, max_timestamp_ms: 0 });
    let with_first = |decision| Frame { decisions: Arc::new([decision, Decision::Drop, Decision::Drop]), ..frame(5) };
    for wrong in [frame(4), frame(6), older, unlike, overlapping, with_first(empty), with_first(endless)] {
        let refused = writer.append(std::slice::from_ref(&wrong));
        assert!(matches!(refused, Err(SegmentError::Rejected { .. })), "{wrong:?}");
    }
    let refused = writer.append(&[frame(5), frame(7)]);
    assert!(matches!(refused, Err(SegmentError::Rejected { index: 7, .. })));
    assert_eq!((reader.bytes(), writer.last()), (bytes, Some(LogId { term: 1, index: 4 })));
    writer.append(&[frame(5)]).unwrap();
}

#[test]
fn after_a_failed_sync_nothing_is_accepted() {
    let disk = SimDisk::new(1);
    let dir = Path::new("groups/7-1");
    disk.create_dir_all(Path::new("groups")).unwrap();
    let (mut writer, _) = SegmentWriter::open(Arc::new(disk.clone()), dir, GROUP, SMALL, None).unwrap();
    writer.append(&frames(0..3)).unwrap();
    assert_eq!(writer.sync().unwrap(), Some(LogId { term: 1, index: 2 }));
    writer.append(&frames(3..5)).unwrap();
    disk.faults(|faults| faults.sync_fails_in = Some(0));
    assert!(matches!(writer.sync(), Err(SegmentError::Io { .. })));
    let answers = [writer.sync().map(drop), writer.append(&[frame(5)]), writer.roll(), writer.unlink_through(9).map(drop)];
    assert!(answers.iter().all(|answer| matches!(answer, Err(SegmentError::Failed { .. }))), "{answers:?}");
}

#[test]
fn opening_reads_few_bytes_however_much_is_stored() {
    let disk = CountingDisk::default();
    let home = Home::new();
    let options = SegmentOptions { segment_bytes_max: 1 << 20, index_save_bytes: 1 << 18, ..SegmentOptions::default() };
    let open = |synced| SegmentWriter::open(Arc::new(disk.clone()), &home.path(), GROUP, options, synced).unwrap();
    let (mut writer, _) = open(None);
    for index in 0..5000 {
        writer.append(&[frame_of(index, 1000)]).unwrap();
        if index % 100 == 0 {
            writer.sync().unwrap();
        }
    }
    let synced = writer.sync().unwrap();
    drop(writer); // Not closed: as after a kill.
    disk.bytes_read.store(0, Ordering::Relaxed);
    let (_, reader) = open(synced);
    let (read, stored) = (disk.bytes_read.load(Ordering::Relaxed), reader.bytes());
    // The open segment may be scanned as far as its saved index lags behind, plus what one sync adds.
    assert!(stored > 7_000_000 && read < options.index_save_bytes + 300_000, "{read} of {stored}");

    // The journal recorded less than the saved index covers: the scan starts at a point of it.
    let lagging = reader.segments().last().unwrap().first_index + 400;
    disk.bytes_read.store(0, Ordering::Relaxed);
    let (writer, reader) = open(Some(LogId { term: 1, index: lagging }));
    let (read, last) = (disk.bytes_read.load(Ordering::Relaxed), reader.segments().last().copied().unwrap());
    assert!(writer.last() == last.last && last.last.unwrap().index == lagging);
    assert!(last.bytes > 500_000 && read < 150_000, "{read} of {}", last.bytes);
    assert_eq!((last.first_offset, last.next_offset), (Some(4 * last.first_index), 4 * lagging + 4));
}

#[test]
fn a_snapshot_is_copied_with_its_gaps() {
    let (source, target) = (Home::new(), Home::new());
    let (mut writer, reader) = source.open(None);
    writer.append(&frames(0..60)).unwrap();
    let all = reader.frames(0, 60, usize::MAX).unwrap();
    assert!(all.len() < 60, "one read stays within a segment");
    let mut live = Vec::new();
    while let Some(frame) = reader.frames(live.len() as u64, 60, usize::MAX).ok().filter(|frames| !frames.is_empty()) {
        live.extend(frame);
    }
    live.retain(|frame| frame.header.log_id.index > 10 && frame.header.log_id.index % 3 != 0);
    let expected: Vec<Frame> = frames(11..60).into_iter().filter(|frame| frame.entry.log_id.index % 3 != 0).collect();

    let (mut writer, reader) = target.open(None);
    let mut corrupt = live[0].clone();
    corrupt.payloads[0] = Bytes::from_static(b"something else");
    assert!(matches!(writer.append_stored(vec![corrupt]), Err(SegmentError::Rejected { .. })));
    for chunk in live.chunks(7) {
        writer.append_stored(chunk.to_vec()).unwrap();
    }
    let snapshot = LogId { term: 4, index: 75 };
    writer.skip_through(snapshot).unwrap();
    writer.skip_through(snapshot).unwrap();
    assert_eq!(writer.close().unwrap(), Some(snapshot));
    assert_eq!(read_all(&reader).unwrap(), items_of(&expected));
    let (mut writer, reader) = target.open(Some(snapshot));
    assert_eq!(read_all(&reader).unwrap(), items_of(&expected));
    assert!(matches!(reader.entries(75, 76, 9), Err(SegmentError::Removed { index: 75, .. })));
    let mut next = frame(76);
    next.entry.log_id.term = 4;
    writer.append(&[next]).unwrap();
}

#[test]
fn a_snapshot_without_frames_is_a_start_too() {
    let home = Home::new();
    let (mut writer, _) = home.open(None);
    let snapshot = LogId { term: 1, index: 9 };
    writer.skip_through(snapshot).unwrap();
    assert_eq!(writer.sync().unwrap(), Some(snapshot));
    let (mut writer, reader) = home.open(Some(snapshot));
    assert_eq!((writer.last(), reader.first_index()), (Some(snapshot), None));
    assert!(matches!(writer.append(&[frame(11)]), Err(SegmentError::Rejected { .. })));
    writer.append(&[frame(10)]).unwrap();
    let synced = writer.close().unwrap();
    assert_eq!(entries_all(&home.open(synced).1, 10).unwrap(), entries_of(&[frame(10)]));
}

/// The real disk, counting what is read.
#[derive(Debug, Clone, Default)]
struct CountingDisk {
    bytes_read: Arc<AtomicU64>,
}

#[derive(Debug)]
struct CountingFile(Arc<dyn DiskFile>, Arc<AtomicU64>);

impl CountingDisk {
    fn counted(&self, file: io::Result<Arc<dyn DiskFile>>) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(CountingFile(file?, Arc::clone(&self.bytes_read))))
    }
}

impl Disk for CountingDisk {
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        self.counted(RealDisk.open(path, create))
    }
    fn open_uncached(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.counted(RealDisk.open_uncached(path))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }
    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove_dir_all(path)
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir_all(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        RealDisk.list(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_dir(path)
    }
}

impl DiskFile for CountingFile {
    fn write_all_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.0.write_all_at(slices, offset)
    }
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.1.fetch_add(buf.len() as u64, Ordering::Relaxed);
        self.0.read_exact_at(buf, offset)
    }
    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn allocate(&self, len: u64) -> io::Result<()> {
        self.0.allocate(len)
    }
}

#[test]
fn what_apply_has_computed_of_a_payload_is_what_is_stored() {
    let computed = Frame { checksums: Arc::new([1, 2, 3]), ..frame(5) };
    let stored = StoredFrame::of(&computed).unwrap();
    assert_eq!(stored.header.items.iter().map(|item| item.payload_crc).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(stored.check().is_err(), "a payload that was altered since then is found out");
    let stored = StoredFrame::of(&frame(5)).unwrap();
    assert!(stored.check().is_ok());
}
