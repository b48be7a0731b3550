//! What is built is valid and is read back the same, with every codec, whatever the records hold.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use bytes::Bytes;
use common::{PRODUCER, encode, sample};
use flotilla_records::{
    Batch, BatchBuilder, BatchError, BatchHeader, Codec, HEADER_BYTES, Header, Limits, ProducerStamp, Record, set_base_offset,
    validate, with_base_offset,
};
use proptest::prelude::*;

const CAP: usize = 1 << 20;

fn decode(bytes: Bytes) -> Result<Vec<Record>, BatchError> {
    Batch::parse(bytes)?.body(CAP)?.records().collect()
}

fn any_bytes() -> impl Strategy<Value = Option<Bytes>> {
    let repeated = (any::<u8>(), 0_usize..3000).prop_map(|(byte, count)| vec![byte; count]);
    let random = proptest::collection::vec(any::<u8>(), 0..300);
    proptest::option::of(prop_oneof![repeated, random].prop_map(Bytes::from))
}

fn any_header() -> impl Strategy<Value = Header> {
    ("\\PC{0,12}", any_bytes()).prop_map(|(key, value)| Header { key, value })
}

fn any_record() -> impl Strategy<Value = Record> {
    let headers = proptest::collection::vec(any_header(), 0..4);
    (-1_i64..1 << 47, any_bytes(), any_bytes(), headers).prop_map(|(timestamp_ms, key, value, headers)| Record {
        offset_delta: 0,
        timestamp_ms,
        key,
        value,
        headers,
    })
}

fn any_records() -> impl Strategy<Value = Vec<Record>> {
    proptest::collection::vec(any_record(), 1..40).prop_map(|mut records| {
        for (at, record) in records.iter_mut().enumerate() {
            record.offset_delta = at as u32;
        }
        records
    })
}

fn any_codec() -> impl Strategy<Value = Codec> {
    proptest::sample::select(Codec::ALL.to_vec())
}

fn any_producer() -> impl Strategy<Value = Option<ProducerStamp>> {
    let stamp = (0..=i64::MAX, 0..=i16::MAX, 0..=i32::MAX);
    proptest::option::of(stamp.prop_map(|(id, epoch, base_sequence)| ProducerStamp { id, epoch, base_sequence }))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn built_batches_are_valid_and_read_back(records in any_records(), codec in any_codec(), producer in any_producer()) {
        let bytes = encode(&records, codec, producer).unwrap();
        let summary = validate(&bytes, &Limits { decompressed_bytes_max: CAP, ..Limits::default() }).unwrap();
        prop_assert_eq!(summary.header.codec, codec);
        prop_assert_eq!(summary.header.producer, producer);
        prop_assert_eq!(summary.header.record_count as usize, records.len());
        prop_assert_eq!(Some(summary.header.max_timestamp_ms), records.iter().map(|record| record.timestamp_ms).max());
        prop_assert_eq!(&decode(bytes.clone()).unwrap(), &records);

        let body = Batch::parse(bytes).unwrap().body(CAP).unwrap();
        for (borrowed, owned) in body.iter().zip(&records) {
            let borrowed = borrowed.unwrap();
            prop_assert_eq!(borrowed.key, owned.key.as_deref());
            prop_assert_eq!(borrowed.value, owned.value.as_deref());
            prop_assert_eq!((borrowed.timestamp_ms, borrowed.offset_delta), (owned.timestamp_ms, owned.offset_delta));
            let headers = borrowed.headers.iter().map(|header| (header.key, header.value));
            prop_assert!(headers.eq(owned.headers.iter().map(|header| (header.key.as_str(), header.value.as_deref()))));
        }
    }

    #[test]
    fn a_builder_can_tell_how_large_the_batch_becomes(records in any_records()) {
        let mut builder = BatchBuilder::new();
        for record in &records {
            let headers = || record.headers.iter().map(|header| (header.key.as_str(), header.value.as_deref()));
            let (key, value) = (record.key.as_deref(), record.value.as_deref());
            let before = builder.uncompressed_bytes();
            builder.add(record.timestamp_ms, key, value, headers()).unwrap();
            prop_assert!(builder.uncompressed_bytes() - before <= BatchBuilder::record_bytes_max(key, value, headers()));
        }
        let announced = builder.uncompressed_bytes();
        prop_assert_eq!(builder.finish(Codec::None, None).unwrap().len(), announced);
    }

    #[test]
    fn stamping_changes_offset_and_epoch_alone(base_offset in 0..=i64::MAX as u64 - 100, epoch in any::<i32>(), codec in any_codec()) {
        let bytes = encode(&sample(10), codec, Some(PRODUCER)).unwrap();
        let (header, body) = Batch::parse(bytes.clone()).unwrap().stamped(base_offset, epoch);
        prop_assert_eq!(body.as_ptr(), bytes[HEADER_BYTES..].as_ptr(), "the records are not copied");
        let stamped = Bytes::from([&header[..], &body].concat());
        prop_assert_eq!(&with_base_offset(bytes.clone(), base_offset, epoch).unwrap(), &stamped);
        let mut in_place = bytes.to_vec();
        set_base_offset(&mut in_place, base_offset, epoch).unwrap();
        prop_assert_eq!(&in_place, &stamped);

        let found = validate(&stamped, &Limits::default()).unwrap().header;
        prop_assert_eq!((found.base_offset, found.leader_epoch, found.last_offset()), (base_offset, epoch, base_offset + 9));
        let mut as_built = found;
        (as_built.base_offset, as_built.leader_epoch) = (0, -1);
        prop_assert_eq!(as_built, BatchHeader::parse(&bytes).unwrap());
        prop_assert_eq!(decode(stamped).unwrap(), decode(bytes).unwrap());
    }
}

#[test]
fn a_builder_starts_anew_after_each_batch() {
    let mut builder = BatchBuilder::new();
    for codec in Codec::ALL {
        assert_eq!(builder.finish(codec, None), Err(BatchError::NoRecords));
        builder.add(5, None, Some(b"dropped"), []).unwrap();
        builder.clear();
        builder.add(-7, Some(b"k"), Some(codec.name().as_bytes()), []).unwrap();
        assert_eq!((builder.record_count(), builder.is_empty()), (1, false));
        let bytes = builder.finish(codec, None).unwrap();
        let header = validate(&bytes, &Limits::default()).unwrap().header;
        assert_eq!((header.base_timestamp_ms, header.max_timestamp_ms, header.record_count), (-7, -7, 1));
        assert_eq!(decode(bytes).unwrap()[0].value.as_deref(), Some(codec.name().as_bytes()));
    }
}

#[test]
fn a_builder_refuses_what_the_format_cannot_say_and_keeps_the_rest() {
    let mut builder = BatchBuilder::new();
    builder.add(i64::MAX, None, Some(b"kept"), []).unwrap();
    assert!(matches!(builder.add(-2, None, Some(b"too far back"), []), Err(BatchError::BatchFull { .. })));
    let bytes = builder.finish(Codec::None, None).unwrap();
    assert_eq!(decode(bytes).unwrap().len(), 1);

    builder.add(0, None, None, []).unwrap();
    let negative = ProducerStamp { id: 1, epoch: 0, base_sequence: -1 };
    let refused = BatchError::BadProducer { id: 1, epoch: 0, base_sequence: -1 };
    assert_eq!(builder.finish(Codec::None, Some(negative)), Err(refused));
}

#[test]
fn decoded_records_share_the_memory_of_their_batch() {
    let bytes = encode(&sample(3), Codec::None, None).unwrap();
    let range = bytes.as_ptr_range();
    for record in decode(bytes.clone()).unwrap() {
        let value = record.value.unwrap();
        assert!(range.contains(&value.as_ptr()));
    }
}

#[test]
fn a_rewritten_batch_keeps_the_offsets_of_the_records_that_remain() {
    let value = |value: &'static [u8]| Record { value: Some(Bytes::from_static(value)), ..Record::default() };
    let records = [value(b"first"), value(b"in the middle"), value(b"last")];
    let mut bytes = encode(&records, Codec::None, None).unwrap().to_vec();
    // Six single bytes in front of each value, one behind it.
    let second = HEADER_BYTES + 6 + 5 + 1;
    bytes.drain(second..second + 6 + 13 + 1);
    bytes[57..61].copy_from_slice(&2_u32.to_be_bytes());
    common::reseal(&mut bytes);
    let bytes = Bytes::from(bytes);
    let offsets: Vec<_> = decode(bytes.clone()).unwrap().iter().map(|record| record.offset_delta).collect();
    assert_eq!(offsets, [0, 2]);
    let gaps = BatchError::OffsetGaps { count: 2, last_offset_delta: 2 };
    assert_eq!(validate(&bytes, &Limits::default()), Err(gaps), "but a client's batch has no gaps");
}

#[test]
fn sequences_start_again_at_zero() {
    let stamp = |base_sequence| ProducerStamp { id: 0, epoch: 0, base_sequence };
    assert_eq!(stamp(5).sequence_after(3), 8);
    assert_eq!(stamp(i32::MAX).sequence_after(0), i32::MAX);
    assert_eq!(stamp(i32::MAX).sequence_after(1), 0);
    assert_eq!(stamp(i32::MAX - 1).sequence_after(5), 3);
}

#[test]
fn codec_names_are_read_back() {
    for codec in Codec::ALL {
        assert_eq!(codec.to_string().parse(), Ok(codec));
        assert_eq!(Codec::from_code(codec.code()), Ok(codec));
    }
    assert!("brotli".parse::<Codec>().unwrap_err().to_string().contains("zstd"));
}
