//! What one read takes out of stored batches.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use flotilla_records::{BatchBuilder, Codec};

use super::*;

const RECORDS: u64 = 1_000;
const RECORD_BYTES: usize = 10_000;
const ALL: usize = 64 << 20;

/// Two batches of records that compress to almost nothing.
fn bombs() -> Fetched {
    let batch = |base_offset| {
        let mut builder = BatchBuilder::new();
        for _ in 0..RECORDS {
            builder.add(1, None, Some(&[0; RECORD_BYTES]), []).unwrap();
        }
        let payload = builder.finish(Codec::Zstd, None).unwrap();
        assert!(payload.len() < RECORD_BYTES * 10);
        FetchedBatch { base_offset, record_count: RECORDS as u32, leader_epoch: 1, payload }
    };
    let ends = Ends { log_start_offset: 0, high_watermark: 2 * RECORDS };
    Fetched { batches: vec![batch(0), batch(RECORDS)], from: 0, next_offset: 2 * RECORDS, ends }
}

#[test]
fn a_read_is_as_large_as_it_is_decoded_and_the_next_goes_on_inside_the_batch() {
    let mut fetched = bombs();
    let room = Room { records: usize::MAX, bytes: 1 << 20 };
    let mut offsets = Vec::new();
    while fetched.from < 2 * RECORDS {
        let (records, next) = fetched.records(None, room, ALL).unwrap();
        let bytes: usize = records.iter().map(|record| record.value.as_ref().unwrap().len()).sum();
        assert!(bytes > 0 && bytes <= room.bytes, "{bytes}");
        assert_eq!(next, records.last().unwrap().offset + 1);
        offsets.extend(records.iter().map(|record| record.offset));
        fetched.from = next;
    }
    assert_eq!(offsets, (0..2 * RECORDS).collect::<Vec<_>>());
}

#[test]
fn one_record_comes_however_large_and_the_limits_on_records_and_offsets_hold() {
    let fetched = bombs();
    let (records, next) = fetched.records(None, Room { records: 7, bytes: 1 }, ALL).unwrap();
    assert_eq!((records.len(), next), (1, 1));
    let (records, next) = fetched.records(None, Room { records: 7, bytes: ALL }, ALL).unwrap();
    assert_eq!((records.len(), next), (7, 7));
    let (records, next) = fetched.records(Some(RECORDS + 3), Room { records: usize::MAX, bytes: ALL }, ALL).unwrap();
    assert_eq!((records.len() as u64, next), (RECORDS + 3, RECORDS + 3));
}

#[test]
fn a_few_records_do_not_keep_the_whole_batch_in_memory() {
    let fetched = bombs();
    let (few, _) = fetched.records(None, Room { records: 2, bytes: ALL }, ALL).unwrap();
    assert!(few.iter().all(|record| record.value.as_ref().unwrap().is_unique()));
    let (all, _) = fetched.records(None, Room { records: usize::MAX, bytes: ALL }, ALL).unwrap();
    assert!(all.iter().all(|record| !record.value.as_ref().unwrap().is_unique()), "whole batches are shared");
}
