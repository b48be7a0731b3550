//! Reading what is left of damaged segments: every frame that is intact, whatever is wrong around it.

use std::io;
use std::ops::{Range, RangeInclusive};
use std::path::Path;

use bytes::Bytes;

use super::frame::{BodyKind, FrameHeader, ItemHeader, MAGIC, StoredFrame};
use super::segment::{FILE_HEADER_BYTES, parse_segment_path};
use crate::disk::error::Class;
use crate::disk::{Disk, DiskFile};
use crate::types::{Body, Entry, Kept};

/// Bytes that are read at once: what a disk cannot read of them is lost.
const READ_BYTES: usize = 64 * 1024;

/// A frame whose header is intact.
#[derive(Debug)]
pub(crate) struct FoundFrame {
    /// Its header, with all items.
    pub(crate) header: FrameHeader,
    /// One for each item; none where it is not intact.
    pub(crate) payloads: Vec<Option<Bytes>>,
}

impl FoundFrame {
    /// Takes what is missing from the same entry, which is elsewhere, too.
    pub(crate) fn complete_from(&mut self, entry: &Entry) {
        let Body::Items(items) = &entry.body else { return };
        if self.header.body != BodyKind::Items || self.header.log_id != entry.log_id || items.len() != self.payloads.len() {
            return;
        }
        for ((payload, header), item) in self.payloads.iter_mut().zip(&self.header.items).zip(items.iter()) {
            if payload.is_none() && header.payload_crc == crc32c::crc32c(&item.payload) {
                *payload = Some(item.payload.clone());
            }
        }
    }

    /// The frame with the items that are intact, and where the others were kept.
    pub(crate) fn into_rest(self) -> (StoredFrame, Vec<Kept>) {
        let Self { mut header, payloads } = self;
        let (mut lost, mut rest) = (Vec::new(), Vec::new());
        for (item, payload) in std::mem::take(&mut header.items).into_iter().zip(payloads) {
            if let Some(payload) = payload {
                header.items.push(item);
                rest.push(payload);
            } else {
                lost.extend(item.kept());
                header.body = BodyKind::Remains;
            }
        }
        (StoredFrame { header, payloads: rest }, lost)
    }
}

/// Gives `take` every frame in `dir` whose header is intact, in order of raft index. Returns the bytes that were of no use.
/// Blocks.
///
/// Where a header is damaged, the next one is looked for byte by byte. It is not believed unless it is intact, stands for
/// entries behind those that were found before, up to `last_index`, and another one or the end of the file follows: what it
/// is found in may be a record.
///
/// # Errors
/// If a file or the directory cannot be read for what passes, or `take` says so. What the device cannot read of a file, again and
/// again, is lost, and no error.
pub(crate) fn salvage(
    disk: &dyn Disk,
    dir: &Path,
    last_index: u64,
    mut take: impl FnMut(FoundFrame) -> io::Result<()>,
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
        let mut in_step = true;
        while at < bytes.len() {
            let found = header_at(&bytes, at, next_index..=last_index);
            let believed = found.filter(|(header, end)| in_step || is_followed(&bytes, *end, header.last_index + 1));
            in_step = believed.is_some();
            if let Some((header, end)) = believed {
                next_index = header.last_index + 1;
                let found = found_frame(&bytes, at, header);
                let lost = found.header.items.iter().zip(&found.payloads).filter(|(_, payload)| payload.is_none());
                useless += lost.map(|(item, _)| u64::from(item.payload_bytes)).sum::<u64>();
                take(found)?;
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

/// The file's bytes; zeros where its device cannot read it.
fn readable(file: &dyn DiskFile) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(file.len()?).map_err(io::Error::other)?];
    let mut at = 0;
    for piece in bytes.chunks_mut(READ_BYTES) {
        match file.read_exact_at(piece, at) {
            Ok(()) => {}
            Err(error) if Class::of(&error) == Class::Damage => piece.fill(0),
            Err(error) => return Err(error),
        }
        at += READ_BYTES as u64;
    }
    Ok(bytes)
}

/// The header of the whole frame at `at`, and where the frame ends.
fn header_at(bytes: &Bytes, at: usize, indexes: RangeInclusive<u64>) -> Option<(FrameHeader, usize)> {
    let header = FrameHeader::decode(bytes.get(at..)?).ok()?;
    let end = at.checked_add(usize::try_from(header.bytes()).ok()?)?;
    let expected = indexes.contains(&header.log_id.index) && header.last_index <= *indexes.end();
    (expected && end <= bytes.len()).then_some((header, end))
}

/// Whether the file ends at `at`, or a frame starts there with raft index `index`.
fn is_followed(bytes: &Bytes, at: usize, index: u64) -> bool {
    let next = bytes.get(at..).and_then(|rest| FrameHeader::decode(rest).ok());
    at == bytes.len() || next.is_some_and(|header| header.log_id.index == index)
}

fn found_frame(bytes: &Bytes, at: usize, header: FrameHeader) -> FoundFrame {
    let intact = |(item, range): (&ItemHeader, Range<u64>)| {
        let payload = bytes.slice(range.start as usize..range.end as usize);
        Some(payload).filter(|payload| crc32c::crc32c(payload) == item.payload_crc)
    };
    let payloads = header.items_at(at as u64).map(intact).collect();
    FoundFrame { header, payloads }
}

fn next_magic(bytes: &[u8], from: usize) -> usize {
    let rest = bytes.get(from..).unwrap_or_default();
    let found = rest.windows(4).position(|window| window == MAGIC.to_le_bytes());
    found.map_or(bytes.len(), |position| from + position)
}
