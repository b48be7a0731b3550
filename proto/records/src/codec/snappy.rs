//! Snappy as Kafka uses it: blocks of the raw format in the framing of the Java library snappy-java (xerial), which is
//! not the framing of the Snappy project. Some clients send one raw block without framing; that is read, too.
//!
//! Framing: 8 bytes of magic, version i32 (1), oldest compatible version i32 (1), then blocks, each a length i32 and
//! that many bytes of raw Snappy. Integers are big-endian. Source: `SnappyOutputStream` and `SnappyCodec` of snappy-java.

use std::io;

use bytes::Buf;

use super::{Capped, DecompressError};

const XERIAL_MAGIC: &[u8; 8] = b"\x82SNAPPY\0";
const XERIAL_VERSION: u32 = 1;
/// Plain bytes per block, as snappy-java cuts them.
const BLOCK_BYTES: usize = 32 * 1024;
/// No element of the raw format yields more than 64 bytes, and none takes less than one: what a block can claim.
const EXPANSION_MAX: usize = 64;

pub(super) fn compress(plain: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    out.extend_from_slice(XERIAL_MAGIC);
    out.extend_from_slice(&XERIAL_VERSION.to_be_bytes());
    out.extend_from_slice(&XERIAL_VERSION.to_be_bytes());
    let mut encoder = snap::raw::Encoder::new();
    let mut block = vec![0; snap::raw::max_compress_len(BLOCK_BYTES.min(plain.len()))];
    for chunk in plain.chunks(BLOCK_BYTES) {
        let length = encoder.compress(chunk, &mut block)?;
        out.extend_from_slice(&(length as u32).to_be_bytes());
        out.extend_from_slice(block.get(..length).unwrap_or_default());
    }
    Ok(())
}

pub(super) fn decompress(compressed: &[u8], out: &mut Capped) -> Result<(), DecompressError> {
    let Some(framed) = compressed.strip_prefix(XERIAL_MAGIC) else {
        return block(compressed, out);
    };
    let (mut versions, mut blocks) = framed.split_at_checked(8).ok_or_else(|| malformed("ends inside its header"))?;
    let (_version, compatible) = (versions.get_u32(), versions.get_u32());
    if compatible != XERIAL_VERSION {
        return Err(DecompressError::Malformed(format!("framing version {compatible} is unknown, 1 is known")));
    }
    while !blocks.is_empty() {
        let (length, rest) = blocks.split_first_chunk::<4>().ok_or_else(|| malformed("ends inside a block length"))?;
        let length = u32::from_be_bytes(*length) as usize;
        let (compressed_block, rest) = rest.split_at_checked(length).ok_or_else(|| malformed("ends inside a block"))?;
        block(compressed_block, out)?;
        blocks = rest;
    }
    Ok(())
}

/// Appends one raw block, which says in front how long it is.
fn block(compressed: &[u8], out: &mut Capped) -> Result<(), DecompressError> {
    let length = snap::raw::decompress_len(compressed).map_err(io::Error::from)?;
    if length > out.left() {
        return Err(DecompressError::TooLarge);
    }
    if length > compressed.len().saturating_mul(EXPANSION_MAX) {
        return Err(malformed("claims more than a block of its size can hold"));
    }
    let start = out.plain.len();
    out.plain.resize(start + length, 0);
    let target = out.plain.get_mut(start..).unwrap_or_default();
    snap::raw::Decoder::new().decompress(compressed, target).map_err(io::Error::from)?;
    Ok(())
}

fn malformed(reason: &str) -> DecompressError {
    DecompressError::Malformed(format!("snappy data {reason}"))
}
