//! Batches of another client are valid here and read back right. The files in `tests/kafka-python` were written by
//! kafka-python 3.0.12 (with python-snappy, lz4 and zstandard) from the same records as [`common::sample`].
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::io::Write;

use bytes::Bytes;
use common::{PRODUCER, encode, sample, with_body};
use flotilla_records::{Batch, BatchError, Codec, HEADER_BYTES, Limits, Record, validate};
use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};

const CAP: usize = 1 << 20;

const WRITTEN_BY_KAFKA_PYTHON: [(Codec, &[u8]); 5] = [
    (Codec::None, include_bytes!("kafka-python/none.batch")),
    (Codec::Gzip, include_bytes!("kafka-python/gzip.batch")),
    (Codec::Snappy, include_bytes!("kafka-python/snappy.batch")),
    (Codec::Lz4, include_bytes!("kafka-python/lz4.batch")),
    (Codec::Zstd, include_bytes!("kafka-python/zstd.batch")),
];

fn decode(bytes: Bytes) -> Result<Vec<Record>, BatchError> {
    Batch::parse(bytes)?.body(CAP)?.records().collect()
}

fn plain_body(records: &[Record]) -> Vec<u8> {
    encode(records, Codec::None, None).unwrap()[HEADER_BYTES..].to_vec()
}

#[test]
fn batches_of_kafka_python_are_read() {
    for (codec, bytes) in WRITTEN_BY_KAFKA_PYTHON {
        let bytes = Bytes::from_static(bytes);
        let header = validate(&bytes, &Limits::default()).unwrap().header;
        assert_eq!((header.codec, header.producer), (codec, Some(PRODUCER)));
        assert_eq!(decode(bytes).unwrap(), sample(50), "{codec}");
    }
}

#[test]
fn an_uncompressed_batch_has_the_same_bytes_as_kafka_pythons() {
    let (_, theirs) = WRITTEN_BY_KAFKA_PYTHON[0];
    let ours = encode(&sample(50), Codec::None, Some(PRODUCER)).unwrap();
    // All but the leader epoch (12..16), which means nothing from a client: 0 in theirs, -1 in ours.
    let differences = (0..ours.len().max(theirs.len())).filter(|at| ours.get(*at) != theirs.get(*at));
    assert_eq!(differences.collect::<Vec<_>>(), [12, 13, 14, 15]);
}

#[test]
fn snappy_is_written_in_the_framing_of_the_java_library_and_read_without_it() {
    let ours = encode(&sample(50), Codec::Snappy, None).unwrap();
    assert_eq!(&ours[HEADER_BYTES..][..16], b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01");
    let raw = snap::raw::Encoder::new().compress_vec(&plain_body(&sample(1))).unwrap();
    assert_eq!(decode(with_body(Codec::Snappy, &raw)).unwrap(), sample(1));
}

#[test]
fn a_body_of_several_snappy_blocks_is_read() {
    let large = Record { value: Some(vec![b'x'; 100_000].into()), ..Record::default() };
    let bytes = encode(std::slice::from_ref(&large), Codec::Snappy, None).unwrap();
    assert_eq!(decode(bytes).unwrap(), [large]);
}

#[test]
fn lz4_frames_of_every_block_size_and_checksum_are_read() {
    let body = plain_body(&sample(1));
    for block_size in [BlockSize::Max64KB, BlockSize::Max256KB, BlockSize::Max1MB, BlockSize::Max4MB] {
        for checksums in [false, true] {
            let info = FrameInfo::new()
                .block_size(block_size)
                .block_mode(BlockMode::Independent)
                .block_checksums(checksums)
                .content_checksum(checksums)
                .content_size(checksums.then_some(body.len() as u64));
            let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
            encoder.write_all(&body).unwrap();
            let frame = encoder.finish().unwrap();
            assert_eq!(decode(with_body(Codec::Lz4, &frame)).unwrap(), sample(1), "{block_size:?} {checksums}");
        }
    }
}

#[test]
fn gzip_members_and_zstd_frames_may_follow_each_other() {
    let body = plain_body(&sample(1));
    let (first, second) = body.split_at(body.len() / 2);
    let zstd = [first, second].map(|part| zstd::bulk::compress(part, 1).unwrap()).concat();
    assert_eq!(decode(with_body(Codec::Zstd, &zstd)).unwrap(), sample(1));
    let gzip = [first, second].map(|part| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(part).unwrap();
        encoder.finish().unwrap()
    });
    assert_eq!(decode(with_body(Codec::Gzip, &gzip.concat())).unwrap(), sample(1));
}
