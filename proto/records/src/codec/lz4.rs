//! The LZ4 frame format (<https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md>), as Kafka uses it: one frame
//! of independent blocks, without a dictionary.

use std::io::{self, Write};

use bytes::Buf;
use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};

use super::{Capped, DecompressError};

const MAGIC: u32 = 0x184d_2204;
const INDEPENDENT_BLOCKS: u8 = 1 << 5;
const BLOCK_CHECKSUMS: u8 = 1 << 4;
const CONTENT_SIZE: u8 = 1 << 3;
const DICTIONARY_ID: u8 = 1;
/// Set in a block's length if the block is stored uncompressed.
const STORED_BIT: u32 = 1 << 31;

pub(super) fn compress(plain: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let info = FrameInfo::new().block_size(BlockSize::Max64KB).block_mode(BlockMode::Independent);
    let mut encoder = FrameEncoder::with_frame_info(info, out);
    encoder.write_all(plain)?;
    encoder.finish()?;
    Ok(())
}

pub(super) fn decompress(compressed: &[u8], out: &mut Capped) -> Result<(), DecompressError> {
    check_shape(compressed)?;
    let mut decoder = FrameDecoder::new(compressed);
    out.fill_from(&mut decoder)?;
    // It takes an empty block for the end, too.
    if decoder.get_ref().is_empty() { Ok(()) } else { Err(malformed("goes on behind the end of its frame")) }
}

/// Walks the block lengths of the frame to its end mark. The decoder would take a frame that is cut between two blocks
/// for a whole one, and take memory for linked blocks and legacy frames, which Kafka clients never send.
fn check_shape(frame: &[u8]) -> Result<(), DecompressError> {
    let mut rest = frame;
    if rest.try_get_u32_le() != Ok(MAGIC) {
        return Err(malformed("does not start with the magic number of a frame"));
    }
    let (Ok(flags), Ok(_block_size)) = (rest.try_get_u8(), rest.try_get_u8()) else {
        return Err(malformed("ends inside the frame header"));
    };
    if flags & INDEPENDENT_BLOCKS == 0 || flags & DICTIONARY_ID != 0 {
        return Err(malformed("uses linked blocks or a dictionary, write independent blocks without one"));
    }
    let header_checksum = 1;
    skip(&mut rest, header_checksum + if flags & CONTENT_SIZE != 0 { 8 } else { 0 })?;
    let block_checksum = if flags & BLOCK_CHECKSUMS != 0 { 4 } else { 0 };
    loop {
        let length = rest.try_get_u32_le().map_err(|_| malformed("ends before the end mark"))?;
        if length == 0 {
            return Ok(());
        }
        skip(&mut rest, (length & !STORED_BIT) as usize + block_checksum)?;
    }
}

fn skip(rest: &mut &[u8], bytes: usize) -> Result<(), DecompressError> {
    *rest = rest.get(bytes..).ok_or_else(|| malformed("ends inside a block"))?;
    Ok(())
}

fn malformed(reason: &str) -> DecompressError {
    DecompressError::Malformed(format!("lz4 data {reason}"))
}
