//! Every kind of damage: a lost index heals, everything else is named and never served.

use std::fs;
use std::ops::ControlFlow;

use proptest::prelude::*;

use super::*;

/// A home with three segments (the last one open) and what it holds.
fn home_of_three() -> (Home, LogId, Vec<Frame>) {
    let home = Home::new();
    let (mut writer, reader) = home.open(None);
    let mut written = Vec::new();
    for index in 0.. {
        written.push(frame(index));
        writer.append(&written[written.len() - 1..]).unwrap();
        if reader.segments().len() == 3 && reader.segments()[2].bytes > 500 {
            break;
        }
    }
    let synced = writer.close().unwrap().unwrap();
    (home, synced, written)
}

/// Every byte at the start of a file, where each field of the format occurs once, and some of the rest.
fn places(len: usize) -> impl Iterator<Item = usize> {
    (0..len).filter(|place| *place < 280 || place % 7 == 0)
}

/// Opens and reads everything in every way.
fn use_all(home: &Home, synced: LogId, written: &[Frame]) -> Result<(), SegmentError> {
    let (_, reader) = home.try_open(Some(synced))?;
    for info in reader.segments().iter().filter(|info| info.closed) {
        reader.verify(info.first_index, |_| ControlFlow::Continue(()))?;
    }
    assert_eq!(read_all(&reader)?, items_of(written));
    assert_eq!(entries_all(&reader, 0)?, entries_of(written));
    Ok(())
}

#[test]
fn every_flipped_byte_of_a_segment_is_named() {
    let (home, synced, written) = home_of_three();
    let firsts: Vec<u64> = home.open(Some(synced)).1.segments().iter().map(|info| info.first_index).collect();
    for (number, path) in home.files("segment").iter().enumerate() {
        let indexes = firsts[number]..firsts.get(number + 1).copied().unwrap_or(synced.index + 1);
        let intact = fs::read(path).unwrap();
        for place in places(intact.len()) {
            let mut flipped = intact.clone();
            flipped[place] ^= 0x10;
            fs::write(path, &flipped).unwrap();
            let Err(SegmentError::Damaged(damage)) = use_all(&home, synced, &written) else {
                panic!("byte {place} of {} was served", path.display());
            };
            assert_eq!((&damage.file, damage.group), (path, GROUP));
            assert!(damage.bytes.contains(&(place as u64)), "{place}: {damage}");
            assert!(indexes.contains(damage.indexes.start()) && indexes.contains(damage.indexes.end()), "{place}: {damage}");
            assert_eq!(fs::read(path).unwrap(), flipped, "damaged data must stay as it is");
        }
        fs::write(path, &intact).unwrap();
    }
    use_all(&home, synced, &written).unwrap();
}

#[test]
fn reads_refuse_a_damaged_payload_and_serve_the_rest() {
    let (home, synced, written) = home_of_three();
    let (_, reader) = home.open(Some(synced));
    let path = &home.files("segment")[0];
    let mut bytes = fs::read(path).unwrap();
    bytes[32 + 48 + 3 * 32 + 1] ^= 1; // In the first item of the first frame.
    fs::write(path, bytes).unwrap();
    let Err(SegmentError::Damaged(damage)) = reader.read(0, 1000) else { panic!("a damaged payload was served") };
    assert_eq!((damage.indexes, damage.offsets), (0..=0, Some(0..2)));
    assert_eq!(reader.read(2, 100_000).unwrap()[0], items_of(&written)[1]);
    assert!(matches!(reader.rewrite(0, 9, |_, _| true), Err(SegmentError::Damaged(_))), "damage was laundered");
}

#[test]
fn what_lies_before_the_damage_is_served() {
    let (home, synced, written) = home_of_three();
    let (_, reader) = home.open(Some(synced));
    let path = &home.files("segment")[0];
    let mut bytes = fs::read(path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(path, bytes).unwrap();
    let before = reader.read(0, 1_000_000).unwrap();
    assert_eq!(before[..], items_of(&written)[..before.len()]);
    let last = before.last().unwrap().kept;
    let behind = last.base_offset + u64::from(last.offset_count);
    let Err(SegmentError::Damaged(damage)) = reader.read(behind, 1_000_000) else { panic!("damage was served") };
    assert!(damage.offsets.unwrap().contains(&behind));
}

#[test]
fn every_shortened_segment_is_named_at_open() {
    let (home, synced, written) = home_of_three();
    let has_index = [true, false];
    for (path, has_index) in home.files("segment").iter().flat_map(|path| has_index.map(|has| (path, has))) {
        let intact = fs::read(path).unwrap();
        let index = fs::read(path.with_extension("index")).unwrap();
        for len in (0..intact.len()).step_by(11).chain([intact.len() - 1]) {
            fs::write(path, &intact[..len]).unwrap();
            if !has_index {
                let _ = fs::remove_file(path.with_extension("index"));
            }
            let Err(SegmentError::Damaged(damage)) = home.try_open(Some(synced)) else {
                panic!("{} cut to {len} bytes was accepted", path.display());
            };
            assert_eq!(&damage.file, path);
        }
        fs::write(path, &intact).unwrap();
        fs::write(path.with_extension("index"), &index).unwrap();
        use_all(&home, synced, &written).unwrap();
    }
}

#[test]
fn every_missing_file_is_named_at_open() {
    let (home, synced, written) = home_of_three();
    for path in home.files("segment") {
        let intact = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let Err(SegmentError::Damaged(damage)) = home.try_open(Some(synced)) else {
            panic!("nobody missed {}", path.display());
        };
        assert!(damage.reason.contains("missing"), "{damage}");
        fs::write(&path, intact).unwrap();
    }
    let mark = home.path().join("log-start");
    let intact = fs::read(&mark).unwrap();
    for place in 0..intact.len() {
        let mut flipped = intact.clone();
        flipped[place] ^= 1;
        for bytes in [&flipped, &intact[..place].to_vec()] {
            fs::write(&mark, bytes).unwrap();
            let opened = home.try_open(Some(synced));
            assert!(matches!(opened, Err(SegmentError::Damaged(damage)) if damage.file == mark), "{place}");
        }
    }
    fs::remove_file(&mark).unwrap();
    assert!(matches!(home.try_open(Some(synced)), Err(SegmentError::Damaged(damage)) if damage.file == mark));
    fs::write(&mark, intact).unwrap();
    use_all(&home, synced, &written).unwrap();
}

#[test]
fn every_flipped_shortened_or_missing_index_heals() {
    let (home, synced, written) = home_of_three();
    for path in home.files("index") {
        let intact = fs::read(&path).unwrap();
        for place in places(intact.len()) {
            let mut flipped = intact.clone();
            flipped[place] ^= 0x40;
            for bytes in [&flipped, &intact[..place].to_vec()] {
                fs::write(&path, bytes).unwrap();
                use_all(&home, synced, &written).unwrap();
            }
        }
        fs::remove_file(&path).unwrap();
        use_all(&home, synced, &written).unwrap();
    }
    // It was saved again; damaged while in use, it is not missed either.
    let (_, reader) = home.open(Some(synced));
    assert_eq!(home.files("index").len(), 3);
    for path in home.files("index") {
        fs::write(path, b"nonsense").unwrap();
    }
    assert_eq!(read_all(&reader).unwrap(), items_of(&written));
}

#[test]
fn an_index_of_another_life_of_the_segment_is_not_used() {
    let (home, synced, written) = home_of_three();
    let path = &home.files("index")[2];
    let index = fs::read(path).unwrap();
    let (mut writer, reader) = home.open(Some(synced));
    let start = reader.segments()[2].first_index;
    drop(writer);
    (writer, _) = home.open(Some(LogId { term: 1, index: start }));
    let other: Vec<Frame> = (start + 1..=synced.index).map(|index| frame_of(index, 70)).collect();
    writer.append(&other).unwrap();
    writer.close().unwrap();
    fs::write(path, index).unwrap();
    let (_, reader) = home.open(Some(synced));
    let expected = [&written[..=start as usize], &other].concat();
    assert_eq!(entries_all(&reader, 0).unwrap(), entries_of(&expected));
}

#[test]
fn another_term_than_the_recorded_one_is_named() {
    let (home, synced, _) = home_of_three();
    let opened = home.try_open(Some(LogId { term: 2, ..synced }));
    assert!(matches!(opened, Err(SegmentError::Damaged(damage)) if damage.reason.contains("another term")));
}

/// Something that happens to a file: its number, a place in it, what is written there, and whether it is cut behind.
type Mutation = (prop::sample::Index, prop::sample::Index, Vec<u8>, bool);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn however_files_are_mutated_only_what_was_written_is_served(mutations in prop::collection::vec(any::<Mutation>(), 1..4)) {
        let (home, synced, written) = home_of_three();
        for (file, place, bytes, cut) in mutations {
            let files = [home.files("segment"), home.files("index"), vec![home.path().join("log-start")]].concat();
            let path = file.get(&files);
            let mut content = fs::read(path).unwrap();
            let place = place.index(content.len() + 1);
            let end = if cut { content.len() } else { content.len().min(place + bytes.len()) };
            content.splice(place..end, bytes);
            fs::write(path, content).unwrap();
        }
        // It compares everything that is read.
        let used = use_all(&home, synced, &written);
        prop_assert!(matches!(used, Ok(()) | Err(SegmentError::Damaged(_))), "{:?}", used);
    }
}
