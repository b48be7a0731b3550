//! Reads the frames of one journal file, and tells what is a frame from what is not.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::frame::{BLOCK_BYTES, Header};
use crate::disk::{Disk, DiskFile};
use std::path::{Path, PathBuf};

/// Bytes read at once while looking for headers.
const SEARCH_BYTES: u64 = 1 << 20;

/// A frame whose checksums are right.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) header: Header,
    pub(super) body: Bytes,
}

/// What lies at a position of a file.
#[derive(Debug)]
pub(super) enum Found {
    Frame(Frame),
    /// No frame of this file, though there may be others behind it. The header is there if only the body is bad.
    Bad {
        range: Range<u64>,
        header: Option<Header>,
    },
}

/// What lies at a block boundary.
enum At {
    Frame(Frame),
    BadBody(Header),
    NoHeader,
}

/// A journal file, opened past the page cache.
#[derive(Debug)]
pub(super) struct Scan {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    len: u64,
}

impl Scan {
    pub(super) fn open(disk: &Arc<dyn Disk>, path: &Path) -> io::Result<Self> {
        let file = disk.open_uncached(path)?;
        let len = file.len()?;
        Ok(Self { disk: disk.clone(), path: path.to_owned(), file, len })
    }

    /// The same file, with nothing of it in the page cache.
    fn anew(&self) -> io::Result<Self> {
        Self::open(&self.disk, &self.path)
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Reads a range; `None` if the file ends before. What cannot be read is an error, and never taken for bytes that are bad:
    /// it may be whole, and acknowledged.
    fn read(&self, at: u64, bytes: u64) -> io::Result<Option<Vec<u8>>> {
        if bytes > self.len.saturating_sub(at) {
            return Ok(None);
        }
        let mut buf = vec![0; usize::try_from(bytes).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut buf, at)?;
        Ok(Some(buf))
    }

    fn header_at(&self, at: u64, block: &[u8]) -> io::Result<Option<Header>> {
        let Some(length) = Header::length_in(block) else { return Ok(None) };
        let header = match block.get(..usize::try_from(length).unwrap_or(usize::MAX)) {
            Some(bytes) => Header::decode(bytes),
            None => match self.read(at, length)? {
                Some(bytes) => Header::decode(&bytes),
                None => return Ok(None),
            },
        };
        // No file is larger than 4 GiB; a frame that ends behind this file's end is a cut one.
        Ok(header.ok().filter(|header| header.body_bytes <= u64::from(u32::MAX)))
    }

    /// What lies at `at`. That it is no frame is believed when it is read twice.
    fn at(&self, at: u64) -> io::Result<At> {
        match self.look(at)? {
            frame @ At::Frame(_) => Ok(frame),
            _ => self.anew()?.look(at),
        }
    }

    fn look(&self, at: u64) -> io::Result<At> {
        let Some(block) = self.read(at, BLOCK_BYTES)? else { return Ok(At::NoHeader) };
        let Some(header) = self.header_at(at, &block)? else { return Ok(At::NoHeader) };
        match self.read(at + header.bytes(), header.body_bytes)? {
            Some(body) if crc32c::crc32c(&body) == header.body_crc => Ok(At::Frame(Frame { header, body: Bytes::from(body) })),
            _ => Ok(At::BadBody(header)),
        }
    }

    /// The first frame, or its header alone if the body is bad.
    pub(super) fn first(&self) -> io::Result<(Option<Header>, Option<Frame>)> {
        Ok(match self.at(0)? {
            At::Frame(frame) => (Some(frame.header.clone()), Some(frame)),
            At::BadBody(header) => (Some(header), None),
            At::NoHeader => (None, None),
        })
    }

    /// The position of the next header at or behind `from` that `wanted` accepts, block by block.
    fn find(&self, from: u64, wanted: impl Fn(&Header) -> bool) -> io::Result<Option<(u64, Header)>> {
        let mut start = from;
        while start < self.len {
            let bytes = SEARCH_BYTES.min(self.len - start);
            let chunk = self.read(start, bytes)?.unwrap_or_default();
            for (block, at) in chunk.chunks(BLOCK_BYTES as usize).zip((start..).step_by(BLOCK_BYTES as usize)) {
                if let Some(header) = self.header_at(at, block)?.filter(&wanted) {
                    return Ok(Some((at, header)));
                }
            }
            start += bytes;
        }
        Ok(None)
    }

    /// The highest file sequence in any header: which life this file is in, where its first frame does not tell.
    pub(super) fn newest_life(&self) -> io::Result<Option<Header>> {
        let mut newest: Option<Header> = None;
        let mut from = 0;
        while let Some((at, header)) = self.find(from, |_| true)? {
            from = at + BLOCK_BYTES;
            if newest.as_ref().is_none_or(|newest| newest.file < header.file) {
                newest = Some(header);
            }
        }
        Ok(newest)
    }

    /// Walks the frames of life `file` in order until `visit` returns false; returns where the last one ends.
    pub(super) fn walk(&self, file: u64, mut visit: impl FnMut(Found) -> bool) -> io::Result<u64> {
        let mut at = 0;
        while at < self.len {
            let (found, end) = match self.at(at)? {
                At::Frame(frame) if frame.header.file == file => {
                    let end = at + frame.header.frame_bytes();
                    (Found::Frame(frame), end)
                }
                At::BadBody(header) if header.file == file => {
                    let end = at + header.frame_bytes();
                    (Found::Bad { range: at..end.min(self.len), header: Some(header) }, end)
                }
                _ => match self.find(at + BLOCK_BYTES, |header| header.file == file)? {
                    Some((next, _)) => (Found::Bad { range: at..next, header: None }, next),
                    None => return Ok(at),
                },
            };
            at = end;
            if !visit(found) {
                break;
            }
        }
        Ok(at)
    }
}
