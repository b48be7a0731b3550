//! Reading what is left of damaged segments: every frame that is intact, whatever is wrong around it.

use std::io;
use std::path::Path;

use bytes::Bytes;

use super::frame::{BodyKind, FrameHeader, MAGIC, StoredFrame};
use super::segment::{FILE_HEADER_BYTES, parse_segment_path};
use crate::disk::{Disk, DiskFile};

/// Bytes that are read at once: what a disk cannot read of them is lost.
const READ_BYTES: usize = 64 * 1024;

/// Gives `take` every frame in `dir` that is intact, in order of raft index. Items whose payload is not are left out of
/// their frame. Returns the bytes that were of no use. Blocks.
///
/// Where a header is damaged, the next one is looked for byte by byte. It is not believed unless it is intact and stands for
/// entries behind those that were found before, up to `last_index`.
///
/// # Errors
/// If the directory cannot be listed, or `take` says so. What cannot be read of a file is lost, and no error.
pub(crate) fn salvage(
    disk: &dyn Disk,
    dir: &Path,
    last_index: u64,
    mut take: impl FnMut(StoredFrame) -> io::Result<()>,
) -> io::Result<u64> {
    let files = match disk.list(dir) {
        Ok(files) => files,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let mut segments: Vec<_> = files.iter().filter_map(|path| Some((parse_segment_path(path)?, path))).collect();
    segments.sort_unstable();
    let (mut useless, mut next_index) = (0, 0);
    for (_, path) in segments {
        let bytes = Bytes::from(readable(&*disk.open(path, false)?)?);
        let mut at = usize::try_from(FILE_HEADER_BYTES).unwrap_or(0);
        while at < bytes.len() {
            if let Some((header, end)) = header_at(&bytes, at, next_index..=last_index) {
                next_index = header.last_index + 1;
                let (frame, lost) = intact_items(&bytes, at, header);
                useless += lost;
                take(frame)?;
                at = end;
            } else {
                let next = next_magic(&bytes, at + 1);
                useless += (next - at) as u64;
                at = next;
            }
        }
    }
    Ok(useless)
}

/// The file's bytes; zeros where it cannot be read.
fn readable(file: &dyn DiskFile) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(file.len()?).map_err(io::Error::other)?];
    let mut at = 0;
    for piece in bytes.chunks_mut(READ_BYTES) {
        if file.read_exact_at(piece, at).is_err() {
            piece.fill(0);
        }
        at += READ_BYTES as u64;
    }
    Ok(bytes)
}

/// The header of the whole frame at `at`, and where the frame ends.
fn header_at(bytes: &Bytes, at: usize, indexes: std::ops::RangeInclusive<u64>) -> Option<(FrameHeader, usize)> {
    let header = FrameHeader::decode(bytes.get(at..)?).ok()?;
    let end = at.checked_add(usize::try_from(header.bytes()).ok()?)?;
    let expected = indexes.contains(&header.log_id.index) && header.last_index <= *indexes.end();
    (expected && end <= bytes.len()).then_some((header, end))
}

/// The frame with those of its items whose payload is intact, and the bytes of the others.
fn intact_items(bytes: &Bytes, at: usize, header: FrameHeader) -> (StoredFrame, u64) {
    let slice = |range: std::ops::Range<u64>| bytes.slice(range.start as usize..range.end as usize);
    let found: Vec<_> = header.items_at(at as u64).map(|(item, range)| (*item, slice(range))).collect();
    let mut frame = StoredFrame { header: FrameHeader { items: Vec::new(), ..header }, payloads: Vec::new() };
    let mut lost = 0;
    for (item, payload) in found {
        if crc32c::crc32c(&payload) == item.payload_crc {
            frame.header.items.push(item);
            frame.payloads.push(payload);
        } else {
            lost += payload.len() as u64;
            frame.header.body = BodyKind::Remains;
        }
    }
    (frame, lost)
}

fn next_magic(bytes: &[u8], from: usize) -> usize {
    let rest = bytes.get(from..).unwrap_or_default();
    let found = rest.windows(4).position(|window| window == MAGIC.to_le_bytes());
    found.map_or(bytes.len(), |position| from + position)
}
