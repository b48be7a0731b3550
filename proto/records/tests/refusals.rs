//! Each thing that can be wrong with a batch has its own error, with the numbers in it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::io::Write;

use bytes::Bytes;
use common::{BASE_MS, encode, reseal, sample, with_body};
use flotilla_records::varint::VarintError;
use flotilla_records::{
    Batch, BatchBuilder, BatchError, BatchHeader, Codec, HEADER_BYTES, Limits, RecordError, TIMESTAMP_MS_MAX, TIMESTAMP_MS_MIN,
    validate,
};
use lz4_flex::frame::{BlockMode, FrameEncoder, FrameInfo};

const RECORDS: u32 = 3;

/// A good batch, changed, with a checksum that is true again.
fn changed(change: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut bytes = encode(&sample(RECORDS), Codec::None, Some(common::PRODUCER)).unwrap().to_vec();
    change(&mut bytes);
    reseal(&mut bytes);
    bytes.into()
}

fn with_bytes(at: usize, bytes: &[u8]) -> Bytes {
    changed(|batch| batch[at..at + bytes.len()].copy_from_slice(bytes))
}

fn refusal(bytes: &Bytes) -> BatchError {
    refusal_under(bytes, Limits::default())
}

fn refusal_under(bytes: &Bytes, limits: Limits) -> BatchError {
    validate(bytes, &limits).expect_err("this batch must be refused")
}

#[test]
fn lengths() {
    let good = changed(|_| ());
    let actual = good.len();
    assert_eq!(refusal(&good.slice(..60)), BatchError::TooShort { needed: 61, actual: 60 });
    assert_eq!(BatchHeader::parse(&[]), Err(BatchError::TooShort { needed: 61, actual: 0 }));
    let cut = good.slice(..actual - 1);
    assert_eq!(refusal(&cut), BatchError::LengthMismatch { announced: actual as i64, actual: actual - 1 });
    let longer = Bytes::from([&good[..], b"x"].concat());
    assert_eq!(refusal(&longer), BatchError::LengthMismatch { announced: actual as i64, actual: actual + 1 });
    for length in [-1_i32, i32::MIN, 48, i32::MAX] {
        let mut bytes = good.to_vec();
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        let announced = i64::from(length) + 12;
        assert_eq!(refusal(&bytes.into()), BatchError::LengthMismatch { announced, actual });
    }
}

#[test]
fn every_flipped_bit_behind_the_checksum_is_noticed() {
    let good = encode(&sample(RECORDS), Codec::None, None).unwrap();
    for at in 17..good.len() {
        for bit in 0..8 {
            let mut bytes = good.to_vec();
            bytes[at] ^= 1 << bit;
            assert!(validate(&bytes.into(), &Limits::default()).is_err(), "byte {at}, bit {bit}");
        }
    }
    let mut bytes = good.to_vec();
    bytes[100] ^= 1;
    assert!(matches!(refusal(&bytes.into()), BatchError::CrcMismatch { .. }));
}

#[test]
fn header_fields() {
    for magic in [0_i8, 1, 3, -1] {
        assert_eq!(refusal(&with_bytes(16, &magic.to_be_bytes())), BatchError::UnsupportedMagic { magic });
    }
    for code in 5..8 {
        assert_eq!(refusal(&with_bytes(22, &[code])), BatchError::UnknownCodec { code });
    }
    for bit in 6..16 {
        let attributes = 1_u16 << bit;
        let bytes = with_bytes(21, &attributes.to_be_bytes());
        assert_eq!(refusal(&bytes), BatchError::ReservedAttributes { attributes });
    }
    assert_eq!(refusal(&with_bytes(22, &[1 << 3])), BatchError::LogAppendTimeNotAllowed);
    assert_eq!(refusal(&with_bytes(22, &[1 << 4])), BatchError::TransactionalNotAllowed);
    assert_eq!(refusal(&with_bytes(22, &[1 << 5])), BatchError::ControlNotAllowed);
    for (base_offset, last_offset_delta) in [(-1_i64, 2_i32), (i64::MIN, 2), (i64::MAX, 2), (0, -1), (0, i32::MIN)] {
        let bytes = changed(|batch| {
            batch[0..8].copy_from_slice(&base_offset.to_be_bytes());
            batch[23..27].copy_from_slice(&last_offset_delta.to_be_bytes());
        });
        assert_eq!(refusal(&bytes), BatchError::OffsetsOutOfRange { base_offset, last_offset_delta });
    }
    for (id, epoch, base_sequence) in [(-2_i64, 0_i16, 0_i32), (0, -1, 0), (0, 0, -1), (i64::MIN, 0, 0)] {
        let fields = [&id.to_be_bytes()[..], &epoch.to_be_bytes(), &base_sequence.to_be_bytes()].concat();
        assert_eq!(refusal(&with_bytes(43, &fields)), BatchError::BadProducer { id, epoch, base_sequence });
    }
    let bytes = with_bytes(35, &BASE_MS.to_be_bytes());
    let actual = BASE_MS + 919;
    assert_eq!(refusal(&bytes), BatchError::MaxTimestampMismatch { announced: BASE_MS, actual });
}

#[test]
fn internal_batches_are_accepted_from_the_server() {
    let bytes = with_bytes(22, &[0b11_1000]);
    let header = validate(&bytes, &Limits { internal_allowed: true, ..Limits::default() }).unwrap().header;
    assert!(header.control && header.transactional);
    assert_eq!(header.max_timestamp_ms, BASE_MS + 919);
}

#[test]
fn counts() {
    for count in [-1_i32, i32::MIN, 4, i32::MAX] {
        let bytes = with_bytes(57, &count.to_be_bytes());
        assert_eq!(refusal(&bytes), BatchError::CountOutOfRange { count, last_offset_delta: 2 });
    }
    assert_eq!(refusal(&with_bytes(57, &0_u32.to_be_bytes())), BatchError::NoRecords);
    let bytes = with_bytes(57, &2_u32.to_be_bytes());
    assert_eq!(refusal(&bytes), BatchError::OffsetGaps { count: 2, last_offset_delta: 2 });

    let with_count = |count: u32| {
        changed(|batch| {
            batch[23..27].copy_from_slice(&(count - 1).to_be_bytes());
            batch[57..61].copy_from_slice(&count.to_be_bytes());
        })
    };
    assert!(matches!(refusal(&with_count(2)), BatchError::TrailingBytes { bytes: 1.., count: 2 }));
    let ended = RecordError::Varint(VarintError::Truncated);
    assert_eq!(refusal(&with_count(4)), BatchError::Record { index: 3, reason: ended });
    let most = i32::MAX as u32;
    assert_eq!(refusal(&with_count(most)), BatchError::TooManyRecords { count: most, max: 1_000_000 });
    let limits = Limits { records_max: 2, ..Limits::default() };
    assert_eq!(refusal_under(&changed(|_| ()), limits), BatchError::TooManyRecords { count: 3, max: 2 });
}

/// The reason for which a batch of one record with these bytes (behind its length) is refused.
fn record_refusal(record: &[u8]) -> RecordError {
    let body = [&[record.len() as u8 * 2], record].concat();
    match refusal(&with_body(Codec::None, &body)) {
        BatchError::Record { index: 0, reason } => reason,
        other => panic!("not about the record: {other}"),
    }
}

#[test]
fn records() {
    let out_of_range = |field, length, left| RecordError::LengthOutOfRange { field, length, left };
    // Attributes, timestamp delta, offset delta, key, value, header count.
    assert!(validate(&with_body(Codec::None, &[12, 0, 0, 0, 1, 1, 0]), &Limits::default()).is_ok());
    assert_eq!(record_refusal(&[]), RecordError::Varint(VarintError::Truncated));
    assert_eq!(record_refusal(&[4, 0, 0, 1, 1, 0]), RecordError::ReservedAttributes { attributes: 4 });
    let delta = |found| RecordError::OffsetDelta { found, expected: 0, last: 0 };
    assert_eq!(record_refusal(&[0, 0, 2, 1, 1, 0]), delta(1));
    assert_eq!(record_refusal(&[0, 0, 1, 1, 1, 0]), delta(-1));
    assert_eq!(record_refusal(&[0, 0, 0, 3, 1, 0]), out_of_range("the key", -2, 2));
    assert_eq!(record_refusal(&[0, 0, 0, 6, 1, 0]), out_of_range("the key", 3, 2));
    assert_eq!(record_refusal(&[0, 0, 0, 1, 4, 0]), out_of_range("the value", 2, 1));
    assert_eq!(record_refusal(&[0, 0, 0, 1, 1, 1]), out_of_range("header count", -1, 0));
    assert_eq!(record_refusal(&[0, 0, 0, 1, 1, 4, 0, 1]), out_of_range("header count", 2, 2));
    assert_eq!(record_refusal(&[0, 0, 0, 1, 1, 2, 1, 1]), out_of_range("a header key", -1, 1));
    assert_eq!(record_refusal(&[0, 0, 0, 1, 1, 2, 0, 2]), out_of_range("a header value", 1, 0));
    assert_eq!(record_refusal(&[0, 0, 0, 1, 1, 2, 2, 0xff, 1]), RecordError::HeaderKeyNotUtf8);
    assert_eq!(record_refusal(&[0, 0, 0, 1, 1, 0, 9]), RecordError::LongerThanContent { bytes: 1 });
    let too_long = RecordError::Varint(VarintError::TooLong { bits: 32 });
    assert_eq!(record_refusal(&[0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 1]), too_long);
    let largest_delta = [0, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0, 1, 1, 0];
    let overflow = RecordError::TimestampOverflow { base_ms: BASE_MS, delta_ms: i64::MAX };
    assert_eq!(record_refusal(&largest_delta), overflow);
}

#[test]
fn offsets_ascend_and_nothing_is_read_behind_an_error() {
    let record = [12, 0, 0, 0, 1, 1, 0];
    let mut bytes = with_body(Codec::None, &record.repeat(3)).to_vec();
    bytes[23..27].copy_from_slice(&2_u32.to_be_bytes());
    bytes[57..61].copy_from_slice(&3_u32.to_be_bytes());
    reseal(&mut bytes);
    let bytes = Bytes::from(bytes);
    let reason = RecordError::OffsetDelta { found: 0, expected: 1, last: 2 };
    let refused = BatchError::Record { index: 1, reason };
    assert_eq!(refusal(&bytes), refused);

    let body = Batch::parse(bytes).unwrap().body(1000).unwrap();
    let mut records = body.records();
    assert!(records.next().unwrap().is_ok());
    assert_eq!(records.next(), Some(Err(refused)));
    assert_eq!(records.next(), None);
    assert_eq!(body.iter().count(), 2);
}

#[test]
fn limits_of_a_record() {
    let mut builder = BatchBuilder::new();
    builder.add(BASE_MS, Some(b"key"), Some(b"value"), [("a", None), ("b", None)]).unwrap();
    let bytes = builder.finish(Codec::Lz4, None).unwrap();
    let exact = Limits { key_bytes_max: 3, value_bytes_max: 5, headers_max: 2, decompressed_bytes_max: 21, ..Limits::default() };
    assert_eq!(validate(&bytes, &exact).unwrap().decompressed_bytes, 21);
    let refused = |limits| match refusal_under(&bytes, limits) {
        BatchError::Record { index: 0, reason } => reason,
        other => panic!("not about the record: {other}"),
    };
    assert_eq!(refused(Limits { key_bytes_max: 2, ..exact }), RecordError::KeyTooLarge { bytes: 3, max: 2 });
    assert_eq!(refused(Limits { value_bytes_max: 4, ..exact }), RecordError::ValueTooLarge { bytes: 5, max: 4 });
    assert_eq!(refused(Limits { headers_max: 1, ..exact }), RecordError::TooManyHeaders { count: 2, max: 1 });
}

#[test]
fn the_decompressed_cap_is_exact_for_every_codec() {
    for codec in Codec::ALL {
        let bytes = encode(&sample(100), codec, None).unwrap();
        let size = validate(&bytes, &Limits::default()).unwrap().decompressed_bytes;
        let with_max = |max| Limits { decompressed_bytes_max: max, ..Limits::default() };
        assert!(validate(&bytes, &with_max(size)).is_ok(), "{codec}");
        let refused = BatchError::DecompressedTooLarge { codec, max: size - 1 };
        assert_eq!(refusal_under(&bytes, with_max(size - 1)), refused);
    }
}

#[test]
fn compressed_bodies_that_are_cut_padded_or_empty_are_refused() {
    for codec in &Codec::ALL[1..] {
        let good = encode(&sample(RECORDS), *codec, None).unwrap();
        let body_bytes = good.len() - HEADER_BYTES;
        for cut in 1..=body_bytes {
            let mut bytes = good[..good.len() - cut].to_vec();
            reseal(&mut bytes);
            let refused = refusal(&bytes.into());
            // Zero blocks of Snappy are an empty body; then the first record is missing.
            let empty = *codec == Codec::Snappy && body_bytes - cut == 16;
            assert_eq!(
                matches!(refused, BatchError::BadCompression { .. }),
                !empty,
                "{codec} without its last {cut} bytes: {refused}"
            );
        }
        let mut padded = good.to_vec();
        padded.extend_from_slice(b"padding");
        reseal(&mut padded);
        assert!(matches!(refusal(&padded.into()), BatchError::BadCompression { .. }), "{codec}");
    }
}

#[test]
fn lz4_frames_that_kafka_cannot_read_are_refused() {
    let info = FrameInfo::new().block_mode(BlockMode::Linked);
    let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(&[0; 100]).unwrap();
    let linked = encoder.finish().unwrap();
    let legacy = [&0x184c_2102_u32.to_le_bytes()[..], &[0; 20]].concat();
    let empty_block_first = [&0x184d_2204_u32.to_le_bytes()[..], &[0x60, 0x40, 0x82, 0, 0, 0, 0x80, 9, 9, 9]].concat();
    for frame in [linked, legacy, empty_block_first] {
        let refused = refusal(&with_body(Codec::Lz4, &frame));
        assert!(matches!(refused, BatchError::BadCompression { codec: Codec::Lz4, .. }), "{refused}");
    }
}

#[test]
fn times_that_are_no_dates() {
    let dated = |timestamp_ms: i64| {
        let mut builder = BatchBuilder::new();
        builder.add(timestamp_ms, None, Some(b"v"), []).unwrap();
        builder.finish(Codec::None, None).unwrap()
    };
    for timestamp_ms in [TIMESTAMP_MS_MIN, -1, 0, TIMESTAMP_MS_MAX] {
        validate(&dated(timestamp_ms), &Limits::default()).unwrap();
    }
    // The second is today in microseconds.
    for timestamp_ms in [TIMESTAMP_MS_MAX + 1, 1_795_910_400_000_000, i64::MAX, TIMESTAMP_MS_MIN - 1, i64::MIN] {
        let reason = RecordError::TimestampOutOfRange { timestamp_ms };
        assert_eq!(refusal(&dated(timestamp_ms)), BatchError::Record { index: 0, reason });
    }
}
