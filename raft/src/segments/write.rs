//! Writing frames and indexes: the only place that puts segment bytes on the disk.

use std::io::{self, IoSlice};
use std::ops::Range;

use bytes::Bytes;

use super::frame::StoredFrame;
use super::segment::Segment;
use crate::disk::{Disk, DiskFile};

/// Payloads shorter than this are copied behind their header: cheaper than one more slice for the kernel.
const COPY_BELOW_BYTES: usize = 2048;

/// Writes `frames` one behind the other from byte `position` on, in one call, without copying large payloads.
/// `scratch` is reused for headers and small payloads.
pub(super) fn write_frames(file: &dyn DiskFile, position: u64, frames: &[StoredFrame], scratch: &mut Vec<u8>) -> io::Result<()> {
    enum Piece<'a> {
        Scratch(Range<usize>),
        Payload(&'a Bytes),
    }
    scratch.clear();
    let mut pieces = Vec::new();
    let mut start = 0;
    for frame in frames {
        frame.header.encode(scratch);
        for payload in &frame.payloads {
            if payload.len() < COPY_BELOW_BYTES {
                scratch.extend_from_slice(payload);
            } else {
                pieces.push(Piece::Scratch(start..scratch.len()));
                pieces.push(Piece::Payload(payload));
                start = scratch.len();
            }
        }
    }
    pieces.push(Piece::Scratch(start..scratch.len()));
    let slices = pieces.iter().map(|piece| match piece {
        Piece::Scratch(range) => scratch.get(range.clone()).unwrap_or_default(),
        Piece::Payload(payload) => payload,
    });
    let slices: Vec<IoSlice<'_>> = slices.filter(|slice| !slice.is_empty()).map(IoSlice::new).collect();
    file.write_all_at(&slices, position)
}

/// Saves the index of `segment` beside it. It is not data, so a failure only costs a scan at the next open.
pub(super) fn save_index(disk: &dyn Disk, segment: &Segment, durable: bool) {
    let path = segment.index_path();
    let save = || -> Result<(), Box<dyn std::error::Error>> {
        let crc = segment.last_header_crc(&segment.summary())?;
        let bytes = segment.index().encode(crc);
        let file = disk.open(&path, true)?;
        file.set_len(bytes.len() as u64)?;
        file.write_all_at(&[IoSlice::new(&bytes)], 0)?;
        if durable {
            file.sync()?;
        }
        Ok(())
    };
    if let Err(error) = save() {
        tracing::warn!(path = %path.display(), %error, "could not save a segment index; it will be rebuilt when it is needed");
    }
}
