//! Retention and rewriting.

use std::ops::ControlFlow;

use super::*;

#[test]
fn retention_unlinks_whole_closed_segments_and_survives_a_restart() {
    let home = Home::new();
    let (mut writer, reader) = home.open(None);
    writer.append(&frames(0..50)).unwrap();
    let segments = reader.segments();
    let bytes = reader.bytes();
    let second = segments[1].last.unwrap();
    assert_eq!(writer.unlink_through(segments[0].last.unwrap().index - 1).unwrap(), 0);
    let freed = writer.unlink_through(second.index).unwrap();
    assert_eq!(freed, segments[0].bytes + segments[1].bytes);
    assert_eq!(reader.bytes(), bytes - freed);
    assert_eq!(reader.first_index(), Some(second.index + 1));
    assert_eq!(reader.first_offset(), Some(4 * (second.index + 1)));
    assert_eq!(read_all(&reader).unwrap(), items_of(&frames(second.index + 1..50)));
    assert!(matches!(reader.entries(second.index, 50, 9), Err(SegmentError::Removed { .. })));
    let synced = writer.close().unwrap();
    assert_eq!(home.files("segment").len(), segments.len() - 2);

    let (mut writer, reader) = home.open(synced);
    assert_eq!(read_all(&reader).unwrap(), items_of(&frames(second.index + 1..50)));
    // The open segment stays, unless it is closed first.
    writer.unlink_through(49).unwrap();
    assert_eq!(reader.segments().len(), 1);
    writer.roll().unwrap();
    writer.unlink_through(49).unwrap();
    assert_eq!((reader.segments().len(), home.files("segment").len(), writer.last()), (0, 0, synced));
    drop(writer);
    let (mut writer, reader) = home.open(synced);
    assert_eq!(writer.last(), synced);
    writer.append(&[frame(50)]).unwrap();
    assert_eq!(read_all(&reader).unwrap(), items_of(&frames(50..51)));
    // The journal had recorded less than was unlinked: everything behind that is written again.
    let recorded = Some(LogId { term: 1, index: 30 });
    writer.close().unwrap();
    let (mut writer, reader) = home.open(recorded);
    assert_eq!((writer.last(), reader.first_index()), (recorded, None));
    writer.append(&frames(31..52)).unwrap();
    assert_eq!(read_all(&reader).unwrap(), items_of(&frames(31..52)));
}

#[test]
fn who_reads_an_unlinked_segment_is_not_disturbed() {
    let home = Home::new();
    let (mut writer, reader) = home.open(None);
    writer.append(&frames(0..50)).unwrap();
    let held = reader.shared.segments.load_full();
    writer.unlink_through(49).unwrap();
    assert!(!std::fs::exists(&held[0].path).unwrap());
    held[0].check_file_header().unwrap();
}

#[test]
fn a_rewrite_drops_what_is_dead_and_moves_nothing() {
    let home = Home::new();
    let (mut writer, reader) = home.open(None);
    writer.append(&frames(0..50)).unwrap();
    let segments = reader.segments();
    let purged = segments[1].last.unwrap().index - 2;
    // Entries 1, 4, 7 ... keep their last item; of the others nothing is left.
    let live = |header: &FrameHeader, item: usize| header.log_id.index % 3 == 1 && item == 2;
    for info in &segments[..2] {
        let copy = reader.rewrite(info.first_index, purged, live).unwrap();
        assert!(copy.bytes() < info.bytes);
        let expected = info.bytes - copy.bytes();
        assert_eq!(writer.replace(copy).unwrap(), expected);
        reader.verify(info.first_index, |_| ControlFlow::Continue(())).unwrap();
    }
    let mut expected = items_of(&frames(0..50));
    expected.retain(|item| item.log_id.index > purged || (item.log_id.index % 3 == 1 && item.kept.base_offset % 4 == 2));
    let check = |reader: &SegmentReader| {
        assert_eq!(read_all(reader).unwrap(), expected);
        assert_eq!(entries_all(reader, purged + 1).unwrap(), entries_of(&frames(purged + 1..50)));
        for index in 0..=purged {
            assert!(matches!(reader.entries(index, 50, 9), Err(SegmentError::Removed { .. })), "{index}");
        }
        assert_eq!(reader.segments()[1].next_offset, segments[1].next_offset);
    };
    check(&reader);
    let synced = writer.close().unwrap();
    check(&home.open(synced).1);
    for index in home.files("index") {
        std::fs::remove_file(index).unwrap();
    }
    assert_eq!(read_all(&home.open(synced).1).unwrap(), expected);
}

#[test]
fn a_rewrite_that_comes_too_late_is_thrown_away() {
    let home = Home::new();
    let (mut writer, reader) = home.open(None);
    writer.append(&frames(0..50)).unwrap();
    let first = reader.rewrite(0, 49, |_, _| false).unwrap();
    let second = reader.rewrite(0, 49, |_, _| true).unwrap();
    assert!(writer.replace(second).unwrap() == 0);
    assert_eq!(writer.replace(first).unwrap(), 0);
    assert_eq!(home.files("tmp").len(), 0);
    assert_eq!(read_all(&reader).unwrap(), items_of(&frames(0..50)));
    let last = reader.segments().last().unwrap().first_index;
    assert!(matches!(reader.rewrite(last, 49, |_, _| true), Err(SegmentError::NoSuchSegment { .. })));
}
