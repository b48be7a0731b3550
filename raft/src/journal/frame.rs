//! The batch on disk: a header, a body, zeros up to the next 4 KiB boundary.
//!
//! | at | bytes | header field |
//! |---|---|---|
//! | 0 | 8 | magic `FLOTJNL1` |
//! | 8 | 4 | crc32c of the header from byte 12 to its end |
//! | 12 | 4 | header length: 64 + 16 per group |
//! | 16 | 1 + 3 | kind (3 checkpoint, 2 batch; 1 a checkpoint of layout 1), zeros |
//! | 20 | 4 | number of groups inside |
//! | 24 | 8 | boot epoch |
//! | 32 | 8 | batch number |
//! | 40 | 8 | file sequence: which life of which slot this belongs to |
//! | 48 | 8 | body length |
//! | 56 | 4 | crc32c of the body |
//! | 60 | 4 | length of the file, in blocks: a shorter file was cut |
//! | 64 | 16 each | group, incarnation |
//!
//! The body of a batch is records to its end. The body of a checkpoint is the table (`checkpoint.rs`), then records.

use bytes::Bytes;

use super::codec::{Malformed, Pieces, Reader};
use crate::types::{GroupId, Incarnation};

/// The unit of writing. No two batches share one, so that a torn write harms nothing that was synced.
pub(super) const BLOCK_BYTES: u64 = 4096;
/// Header bytes without its groups.
pub(super) const HEADER_BYTES: usize = 64;
/// Header bytes per group.
pub(super) const HEADER_GROUP_BYTES: usize = 16;
const MAGIC: &[u8; 8] = b"FLOTJNL1";

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// As [`Kind::Checkpoint`], with a table that knows no replicas: not written any more.
    OldCheckpoint = 1,
    /// The first batch of a file, which starts with the table of all groups.
    Checkpoint = 3,
    /// Any other batch. One without awaited records is a seal: its being there proves the batch before it.
    Batch = 2,
}

/// A frame's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) boot_epoch: u64,
    pub(super) number: u64,
    pub(super) file: u64,
    pub(super) body_bytes: u64,
    pub(super) body_crc: u32,
    pub(super) file_blocks: u32,
    pub(super) groups: Vec<(GroupId, Incarnation)>,
}

/// Rounds up to whole blocks.
pub(super) fn blocks(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK_BYTES) * BLOCK_BYTES
}

impl Header {
    pub(super) fn bytes(&self) -> u64 {
        (HEADER_BYTES + self.groups.len() * HEADER_GROUP_BYTES) as u64
    }

    /// Bytes that the file has.
    pub(super) fn file_bytes(&self) -> u64 {
        u64::from(self.file_blocks) * BLOCK_BYTES
    }

    /// Bytes that the frame takes on disk.
    pub(super) fn frame_bytes(&self) -> u64 {
        blocks(self.bytes() + self.body_bytes)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut checked = Pieces::default();
        checked.put_u32(self.bytes() as u32);
        checked.put_u32(self.kind as u32);
        checked.put_len(self.groups.len());
        checked.put_u64(self.boot_epoch);
        checked.put_u64(self.number);
        checked.put_u64(self.file);
        checked.put_u64(self.body_bytes);
        checked.put_u32(self.body_crc);
        checked.put_u32(self.file_blocks);
        for (group, incarnation) in &self.groups {
            checked.put_u64(group.0);
            checked.put_u64(incarnation.0);
        }
        let crc = checked.crc32c();
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&crc.to_le_bytes());
        checked.slices().for_each(|slice| bytes.extend_from_slice(slice));
        bytes
    }

    /// The header's length, if `block` (at least 16 bytes) starts like one.
    pub(super) fn length_in(block: &[u8]) -> Option<u64> {
        let rest = block.strip_prefix(MAGIC)?;
        let length = u32::from_le_bytes(rest.get(4..8)?.try_into().ok()?);
        (length as usize >= HEADER_BYTES).then_some(u64::from(length))
    }

    /// Reads a header of the length that [`Header::length_in`] told.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let (crc, checked) =
            bytes.get(8..).and_then(<[u8]>::split_first_chunk::<4>).ok_or(Malformed("the header is too short"))?;
        if u32::from_le_bytes(*crc) != crc32c::crc32c(checked) {
            return Err(Malformed("the header's checksum is wrong"));
        }
        let mut from = Reader::new(Bytes::copy_from_slice(checked));
        let _length = from.u32()?;
        let kind = match from.u32()? {
            1 => Kind::OldCheckpoint,
            2 => Kind::Batch,
            3 => Kind::Checkpoint,
            _ => return Err(Malformed("the header names a kind of batch that this version does not know")),
        };
        let group_count = from.u32()? as usize;
        let (boot_epoch, number, file, body_bytes) = (from.u64()?, from.u64()?, from.u64()?, from.u64()?);
        let (body_crc, file_blocks) = (from.u32()?, from.u32()?);
        let mut groups = Vec::new();
        while !from.is_empty() {
            groups.push((GroupId(from.u64()?), Incarnation(from.u64()?)));
        }
        if groups.len() != group_count {
            return Err(Malformed("the header's group count and length disagree"));
        }
        Ok(Self { kind, boot_epoch, number, file, body_bytes, body_crc, file_blocks, groups })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;

    #[test]
    fn any_changed_bit_of_a_header_is_noticed() {
        let header = Header {
            kind: Kind::Batch,
            boot_epoch: 3,
            number: 77,
            file: 5,
            body_bytes: 4000,
            body_crc: 0xdead_beef,
            file_blocks: 16,
            groups: vec![(GroupId(1), Incarnation(2)), (GroupId(9), Incarnation(1))],
        };
        let bytes = header.encode();
        assert_eq!(bytes.len() as u64, header.bytes());
        assert_eq!(Header::length_in(&bytes), Some(header.bytes()));
        assert_eq!(Header::decode(&bytes).unwrap(), header);
        assert_eq!(header.frame_bytes(), 4096);
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let noticed =
                Header::length_in(&changed).is_none_or(|len| len != header.bytes()) || Header::decode(&changed).is_err();
            assert!(noticed, "bit {bit}");
        }
    }
}
