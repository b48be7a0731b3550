//! `log-start`: the raft index at which a group's segments start, so that a missing first file is told apart from
//! one that retention unlinked. Written before a file is unlinked, and before the first one is created.
//!
//! 20 bytes, little-endian: magic 8 · first raft index u64 · crc32c of the rest u32.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};

use bytes::{Buf, BufMut};

use super::error::{Damage, SegmentError, io_error};
use super::segment::read_range;
use crate::disk::Disk;
use crate::types::{GroupId, LogId};

const MAGIC: &[u8; 8] = b"FLTSTART";
const MARK_BYTES: u64 = 20;

/// The path of the mark in `dir`.
pub(super) fn mark_path(dir: &Path) -> PathBuf {
    dir.join("log-start")
}

/// Replaces the mark, durably.
pub(super) fn write_mark(disk: &dyn Disk, dir: &Path, first_index: u64) -> Result<(), SegmentError> {
    let path = mark_path(dir);
    let temporary = path.with_extension("tmp");
    let replace = || -> io::Result<()> {
        let file = disk.open(&temporary, true)?;
        file.set_len(0)?;
        file.write_all_at(&[IoSlice::new(&encode(first_index))], 0)?;
        file.sync()?;
        disk.rename(&temporary, &path)?;
        disk.sync_dir(dir)
    };
    replace().map_err(io_error("replacing", &path))
}

/// Reads the mark of a group whose segments are synced through `synced`.
pub(super) fn read_mark(disk: &dyn Disk, dir: &Path, group: GroupId, synced: LogId) -> Result<u64, SegmentError> {
    let file = mark_path(dir);
    let damaged = |bytes, reason| {
        let indexes = 0..=synced.index;
        SegmentError::Damaged(Box::new(Damage { group, file: file.clone(), bytes, indexes, offsets: None, reason }))
    };
    let unread = |error| Damage::or_io((group, &file), 0..MARK_BYTES, 0..=synced.index, error);
    let handle = match disk.open_uncached(&file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(damaged(0..0, "the file is missing")),
        other => other.map_err(unread)?,
    };
    let len = handle.len().map_err(unread)?;
    if len != MARK_BYTES {
        return Err(damaged(0..len, "the file has a wrong length"));
    }
    let bytes = read_range(handle.as_ref(), 0..len).map_err(unread)?;
    decode(&bytes).ok_or_else(|| damaged(0..len, "the file does not match its checksum"))
}

fn encode(first_index: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(20);
    bytes.put_slice(MAGIC);
    bytes.put_u64_le(first_index);
    let crc = crc32c::crc32c(&bytes);
    bytes.put_u32_le(crc);
    bytes
}

fn decode(bytes: &[u8]) -> Option<u64> {
    let (protected, mut crc) = bytes.split_at_checked(16)?;
    let mut first_index = protected.strip_prefix(MAGIC)?;
    let intact = crc.try_get_u32_le().ok()? == crc32c::crc32c(protected);
    if intact { first_index.try_get_u64_le().ok() } else { None }
}
