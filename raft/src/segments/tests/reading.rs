//! What readers get: by raft index, by offset, by timestamp.

use proptest::prelude::*;

use super::*;

#[test]
fn everything_written_is_read_back_also_before_a_sync() {
    let home = Home::new();
    let (mut writer, reader) = home.open(None);
    for index in 0..100 {
        writer.append(&[frame(index)]).unwrap();
    }
    assert!(reader.segments().len() > 5);
    let written = frames(0..100);
    assert_eq!(read_all(&reader).unwrap(), items_of(&written));
    assert_eq!(entries_all(&reader, 0).unwrap(), entries_of(&written));
    let synced = writer.close().unwrap();
    assert_eq!(synced, Some(LogId { term: 1, index: 99 }));

    let (writer, reader) = home.open(synced);
    assert_eq!(writer.last(), synced);
    assert_eq!(reader.last(), synced);
    assert_eq!(read_all(&reader).unwrap(), items_of(&written));
    assert_eq!(entries_all(&reader, 0).unwrap(), entries_of(&written));
}

#[test]
fn blank_entries_and_memberships_come_back() {
    let home = Home::new();
    let log_id = |index| LogId { term: 2, index };
    let bodies = [Body::Blank, Body::Membership(Bytes::from_static(b"voters")), Body::Items(Arc::new([]))];
    let entries = bodies.into_iter().zip(5..).map(|(body, index)| Entry { log_id: log_id(index), body });
    let frames: Vec<Frame> = entries.map(|entry| Frame { entry, decisions: Arc::new([]), checksums: Arc::default() }).collect();
    let synced = home.write(&frames);
    let (_, reader) = home.open(Some(synced));
    assert_eq!(reader.first_index(), Some(5));
    assert_eq!(reader.first_offset(), None);
    assert_eq!(entries_all(&reader, 5).unwrap(), entries_of(&frames));
    assert_eq!(read_all(&reader).unwrap(), []);
    assert!(matches!(reader.entries(4, 9, 100), Err(SegmentError::Removed { index: 4, .. })));
}

#[test]
fn a_read_starts_with_the_item_that_covers_the_offset_and_keeps_to_its_limit() {
    let home = Home::new();
    let (mut writer, reader) = home.open(None);
    let written: Vec<Frame> = (0..20).map(|index| frame_of(index, if index % 3 == 0 { 50_000 } else { 90 })).collect();
    writer.append(&written).unwrap();
    let all = items_of(&written);
    for offset in 0..80 {
        let rest = &all[offset as usize / 2..];
        for bytes_max in [0, 60, 300, 60_000, 10_000_000] {
            let items = reader.read(offset, bytes_max).unwrap();
            assert!(!items.is_empty() && items[..] == rest[..items.len()], "{offset} {bytes_max}");
            let bytes: usize = items.iter().map(|item| item.payload.len()).sum();
            assert!(bytes <= bytes_max || items.len() == 1);
        }
    }
    assert_eq!(reader.read(80, 100).unwrap(), []);
    for index in 0..20 {
        for (to, bytes_max) in [(index + 1, 0), (index + 1, 10_000_000), (u64::MAX, 0), (u64::MAX, 10_000_000)] {
            let entries = reader.entries(index, to, bytes_max).unwrap();
            let count = entries.len() as u64;
            assert!(count >= 1 && index + count <= to.min(20));
            assert_eq!(entries, entries_of(&written[index as usize..(index + count) as usize]));
        }
    }
    assert_eq!(reader.entries(20, 30, 100).unwrap(), []);
    assert_eq!(reader.entries(5, 5, 100).unwrap(), []);
}

#[test]
fn one_read_fills_its_limit_from_small_frames() {
    let home = Home::new();
    let options = SegmentOptions::default();
    let (mut writer, reader) = SegmentWriter::open(Arc::new(RealDisk), &home.path(), GROUP, options, None).unwrap();
    writer.append(&(0..2000).map(|index| frame_of(index, 1000)).collect::<Vec<_>>()).unwrap();
    let bytes: usize = reader.read(1, 1_000_000).unwrap().iter().map(|item| item.payload.len()).sum();
    assert!(bytes > 900_000, "{bytes}");
    let bytes: usize = reader.entries(1, 2000, 1_000_000).unwrap().iter().map(Entry::payload_bytes).sum();
    assert!(bytes > 900_000, "{bytes}");
}

#[test]
fn closed_segments_keep_few_indexes_in_memory_and_read_them_back() {
    let home = Home::new();
    let written = frames(0..300);
    let synced = home.write(&written);
    let (_, reader) = home.open(Some(synced));
    assert!(reader.segments().len() > 20);
    for _ in 0..2 {
        assert_eq!(read_all(&reader).unwrap(), items_of(&written));
        let segments = reader.shared.segments.load_full();
        let loaded = segments.iter().filter(|segment| segment.is_closed() && !segment.index().points.is_empty());
        assert!(loaded.count() <= 8);
    }
}

#[test]
fn readers_follow_the_writer_from_other_threads() {
    let home = Home::new();
    let (mut writer, reader) = home.open(None);
    let written = items_of(&frames(0..400));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let (reader, written) = (reader.clone(), &written);
            scope.spawn(move || {
                let mut seen = 0;
                while seen < written.len() {
                    let found = reader.read(written[seen].kept.base_offset, 300).unwrap();
                    assert_eq!(found, written[seen..seen + found.len()]);
                    seen += found.len();
                }
            });
        }
        for index in 0..400 {
            writer.append(&[frame(index)]).unwrap();
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(50))]
    #[test]
    fn timestamps_find_the_first_item_that_is_as_late(times in prop::collection::vec(-50_i64..50, 1..80)) {
        let home = Home::new();
        let (mut writer, reader) = home.open(None);
        let mut kept_items = Vec::new();
        for (index, time) in (0..).zip(&times) {
            let Frame { entry, decisions, .. } = frame(index);
            let kept = Kept { base_offset: 3 * index, offset_count: 3, max_timestamp_ms: *time };
            kept_items.push(kept);
            let decisions = decisions.iter().enumerate().map(|(at, _)| if at == 1 { Decision::Keep(kept) } else { Decision::Drop });
            writer.append(&[Frame { entry, decisions: decisions.collect(), checksums: Arc::default() }]).unwrap();
        }
        for wanted in [i64::MIN, -51, -50, -3, 0, 7, 49, 50, i64::MAX] {
            for from in [0, 2, 3, 31, 3 * times.len() as u64] {
                let late = |kept: &&Kept| kept.max_timestamp_ms >= wanted && kept.base_offset + 3 > from;
                let expected = kept_items.iter().find(late).copied();
                prop_assert_eq!(reader.offset_for_timestamp(wanted, from).unwrap(), expected);
            }
        }
    }
}
