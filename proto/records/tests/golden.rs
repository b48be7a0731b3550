//! One batch spelled out byte by byte from the format's description, in both directions; if this changes, stored logs
//! and other clients are no longer understood.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use bytes::Bytes;
use flotilla_records::{Batch, BatchBuilder, BatchHeader, Codec, HEADER_BYTES, Limits, ProducerStamp, TimestampType, validate};

const GOLDEN: &str = "
    00 00 00 00 00 00 00 00   base offset 0
    00 00 00 5b               batch length 91: 49 bytes of header, then records of 18, 8 and 16 bytes
    ff ff ff ff               partition leader epoch -1
    02                        magic 2
    3c b0 56 d9               crc32c of all that follows (computed bit by bit with the reversed polynomial 0x82f63b78)
    00 00                     attributes: no codec, create time
    00 00 00 02               last offset delta 2
    00 00 01 8b cf e5 68 00   base timestamp 1700000000000
    00 00 01 8b cf e5 68 05   largest timestamp 1700000000005
    00 00 00 00 00 00 00 07   producer id 7
    00 01                     producer epoch 1
    00 00 00 2a               base sequence 42
    00 00 00 03               record count 3

    22                        record 0: 17 bytes follow
    00                          attributes
    00                          timestamp delta 0
    00                          offset delta 0
    02 6b                       key: 1 byte, k
    06 6f 6e 65                 value: 3 bytes, one
    04                          2 headers
    02 61 02 31                   a = 1
    02 61 01                      a = null

    0e                        record 1: 7 bytes follow
    00                          attributes
    0a                          timestamp delta 5
    02                          offset delta 1
    01                          key: null
    02 76                       value: 1 byte, v
    00                          no headers

    1e                        record 2: 15 bytes follow
    00                          attributes
    05                          timestamp delta -3
    04                          offset delta 2
    00                          key: empty
    01                          value: null
    02                          1 header
    08 6e 61 6d 65 06 c3 a4 21    name = 0xc3a421
";

const PRODUCER: ProducerStamp = ProducerStamp { id: 7, epoch: 1, base_sequence: 42 };
const BASE_MS: i64 = 1_700_000_000_000;

fn golden() -> Vec<u8> {
    // The hex pairs at the start of each line; a comment is set off by at least two spaces.
    let columns = GOLDEN.lines().filter_map(|line| line.trim_start().split("  ").next());
    let pairs = columns.flat_map(str::split_whitespace);
    pairs.map(|pair| u8::from_str_radix(pair, 16).expect("hex pair")).collect()
}

fn built() -> Bytes {
    let mut builder = BatchBuilder::new();
    builder.add(BASE_MS, Some(b"k"), Some(b"one"), [("a", Some(&b"1"[..])), ("a", None)]).unwrap();
    builder.add(BASE_MS + 5, None, Some(b"v"), []).unwrap();
    builder.add(BASE_MS - 3, Some(b""), None, [("name", Some(&b"\xc3\xa4!"[..]))]).unwrap();
    builder.finish(Codec::None, Some(PRODUCER)).unwrap()
}

#[test]
fn the_builder_writes_the_golden_bytes() {
    assert_eq!(built().as_ref(), golden());
}

#[test]
fn the_golden_bytes_are_valid_and_read_back() {
    let bytes = Bytes::from(golden());
    let summary = validate(&bytes, &Limits::default()).unwrap();
    assert_eq!(summary.decompressed_bytes, bytes.len() - HEADER_BYTES);
    let header = summary.header;
    assert_eq!((header.base_offset, header.leader_epoch, header.batch_bytes), (0, -1, bytes.len()));
    assert_eq!((header.codec, header.timestamp_type), (Codec::None, TimestampType::CreateTime));
    assert_eq!((header.transactional, header.control), (false, false));
    assert_eq!((header.last_offset_delta, header.offset_count(), header.record_count), (2, 3, 3));
    assert_eq!((header.base_timestamp_ms, header.max_timestamp_ms), (BASE_MS, BASE_MS + 5));
    assert_eq!(header.producer, Some(PRODUCER));

    let body = Batch::parse(bytes).unwrap().body(1 << 20).unwrap();
    let records: Vec<_> = body.records().map(Result::unwrap).collect();
    let timestamps: Vec<_> = records.iter().map(|record| record.timestamp_ms - BASE_MS).collect();
    assert_eq!(timestamps, [0, 5, -3]);
    assert_eq!((records[0].key.as_deref(), records[0].value.as_deref()), (Some(&b"k"[..]), Some(&b"one"[..])));
    assert_eq!((records[1].key.as_deref(), records[1].value.as_deref()), (None, Some(&b"v"[..])));
    assert_eq!((records[2].key.as_deref(), records[2].value.as_deref()), (Some(&b""[..]), None));
    let headers: Vec<_> = records[0].headers.iter().map(|h| (h.key.as_str(), h.value.as_deref())).collect();
    assert_eq!(headers, [("a", Some(&b"1"[..])), ("a", None)]);
    assert_eq!(records[2].headers[0].value.as_deref(), Some(&b"\xc3\xa4!"[..]));
}

#[test]
fn the_attribute_bits_are_where_the_format_says() {
    let mut bytes = golden();
    bytes[22] = 0b0011_1100;
    let header = BatchHeader::parse(&bytes).unwrap();
    assert_eq!(header.codec, Codec::Zstd);
    assert_eq!(header.timestamp_type, TimestampType::LogAppendTime);
    assert!(header.transactional && header.control);
}
