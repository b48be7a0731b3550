//! Decompression bombs: a gigabyte of zeros in a small batch is refused, in little memory, with every codec.
//!
//! One test in a process of its own, because it measures the memory of the process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::io::{self, Read, Write};

use common::{peak_memory_bytes, with_body};
use flotilla_records::{BatchError, Codec, Limits, validate};
use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};

const BOMB_BYTES: u64 = 1 << 30;
const CAP: usize = 1 << 20;
/// Twice the cap as the output grows, the decompressors' own buffers (8 MiB), and slack of the allocator.
const RESIDENT_GROWTH_MAX: usize = 32 << 20;
const RESERVED_GROWTH_MAX: usize = 256 << 20;

fn zeros() -> impl Read {
    io::repeat(0).take(BOMB_BYTES)
}

fn gzip() -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    io::copy(&mut zeros(), &mut encoder).unwrap();
    encoder.finish().unwrap()
}

fn lz4() -> Vec<u8> {
    let info = FrameInfo::new().block_size(BlockSize::Max4MB).block_mode(BlockMode::Independent);
    let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
    io::copy(&mut zeros(), &mut encoder).unwrap();
    encoder.finish().unwrap()
}

fn zstd() -> Vec<u8> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    io::copy(&mut zeros(), &mut encoder).unwrap();
    encoder.finish().unwrap()
}

/// A small frame that asks for a window of 128 MiB, which decoders grant by default.
fn zstd_with_large_window() -> Vec<u8> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(27).unwrap();
    io::copy(&mut io::repeat(0).take(100), &mut encoder).unwrap();
    encoder.flush().unwrap();
    encoder.finish().unwrap()
}

fn snappy_blocks() -> Vec<u8> {
    const BLOCK_BYTES: usize = 32 << 10;
    let block = snap::raw::Encoder::new().compress_vec(&vec![0; BLOCK_BYTES]).unwrap();
    let mut out = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec();
    for _ in 0..BOMB_BYTES / BLOCK_BYTES as u64 {
        out.write_all(&(block.len() as u32).to_be_bytes()).unwrap();
        out.write_all(&block).unwrap();
    }
    out
}

/// A raw block that claims a gigabyte and holds nothing.
fn snappy_claim() -> Vec<u8> {
    let mut block = vec![0x80, 0x80, 0x80, 0x80, 0x04];
    assert_eq!(snap::raw::decompress_len(&block).unwrap() as u64, BOMB_BYTES);
    block.extend_from_slice(&[0; 8]);
    block
}

#[test]
fn a_gigabyte_of_zeros_is_refused_in_little_memory() {
    let bombs = [
        (Codec::Gzip, gzip()),
        (Codec::Lz4, lz4()),
        (Codec::Zstd, zstd()),
        (Codec::Snappy, snappy_blocks()),
        (Codec::Snappy, snappy_claim()),
    ];
    let bombs = bombs.map(|(codec, body)| (codec, with_body(codec, &body)));
    let greedy_window = with_body(Codec::Zstd, &zstd_with_large_window());
    let limits = Limits { decompressed_bytes_max: CAP, ..Limits::default() };

    let before = peak_memory_bytes();
    for (codec, bomb) in &bombs {
        let refused = BatchError::DecompressedTooLarge { codec: *codec, max: CAP };
        assert_eq!(validate(bomb, &limits), Err(refused));
    }
    let refused_as_malformed = |bytes, limits| {
        let refused = validate(bytes, &limits).unwrap_err();
        assert!(matches!(refused, BatchError::BadCompression { .. }), "{refused}");
    };
    refused_as_malformed(&greedy_window, limits);
    let (_, claim) = &bombs[4];
    refused_as_malformed(claim, Limits { decompressed_bytes_max: 4 << 30, ..limits });
    if let (Some(before), Some(after)) = (before, peak_memory_bytes()) {
        let (resident, reserved) = (after.0 - before.0, after.1 - before.1);
        assert!(resident < RESIDENT_GROWTH_MAX, "memory grew by {resident} bytes");
        assert!(reserved < RESERVED_GROWTH_MAX, "reserved memory grew by {reserved} bytes");
    }
}
