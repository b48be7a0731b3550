//! A batch at hand: header and bytes together, and the way to its records.

use bytes::Bytes;

use crate::codec::Codec;
use crate::error::BatchError;
use crate::header::{BatchHeader, CRC_COVERS_FROM, HEADER_BYTES, stamped_header};
use crate::record::{RecordRefs, Records};

/// One whole batch: its header, parsed, and all its bytes. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    header: BatchHeader,
    bytes: Bytes,
}

impl Batch {
    /// Takes `bytes`, which must be exactly one batch. Looks at the header alone; see [`Batch::verify_crc`] for damage
    /// and [`validate`](crate::validate) for everything that a client may get wrong.
    ///
    /// # Errors
    /// If the header is refused or announces another length than that of `bytes`.
    pub fn parse(bytes: Bytes) -> Result<Self, BatchError> {
        let header = BatchHeader::parse(&bytes)?;
        if header.batch_bytes != bytes.len() {
            return Err(BatchError::LengthMismatch { announced: header.batch_bytes as i64, actual: bytes.len() });
        }
        Ok(Self { header, bytes })
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// All bytes, header included.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The bytes of the whole batch.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// The bytes behind the header: the records as they are stored, compressed if the header says so.
    #[must_use]
    pub fn stored_body(&self) -> Bytes {
        self.bytes.slice(HEADER_BYTES..)
    }

    /// Header and stored body of this batch for a reader, with base offset and leader epoch set: sent one after the
    /// other they are a valid batch. No record is copied. `base_offset` is at most `i64::MAX`.
    #[must_use]
    pub fn stamped(&self, base_offset: u64, leader_epoch: i32) -> ([u8; HEADER_BYTES], Bytes) {
        let mut header = [0; HEADER_BYTES];
        if let Some(stored) = self.bytes.first_chunk() {
            header = stamped_header(stored, base_offset, leader_epoch);
        }
        (header, self.stored_body())
    }

    /// Checks that the bytes are those that the batch was built with.
    ///
    /// # Errors
    /// [`BatchError::CrcMismatch`] if they are not.
    pub fn verify_crc(&self) -> Result<(), BatchError> {
        let actual = crc32c::crc32c(self.bytes.get(CRC_COVERS_FROM..).unwrap_or_default());
        if actual != self.header.crc {
            return Err(BatchError::CrcMismatch { expected: self.header.crc, actual });
        }
        Ok(())
    }

    /// The records, decompressed if need be; at most `decompressed_bytes_max` bytes of them.
    ///
    /// # Errors
    /// If they are larger or do not decompress.
    pub fn body(&self, decompressed_bytes_max: usize) -> Result<Body, BatchError> {
        let stored = self.stored_body();
        let codec = self.header.codec;
        let bytes = if codec == Codec::None {
            if stored.len() > decompressed_bytes_max {
                return Err(BatchError::DecompressedTooLarge { codec, max: decompressed_bytes_max });
            }
            stored
        } else {
            codec.decompress(&stored, decompressed_bytes_max)?.into()
        };
        Ok(Body { header: self.header, bytes })
    }
}

/// The uncompressed records of a batch, still encoded. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Body {
    header: BatchHeader,
    bytes: Bytes,
}

impl Body {
    /// The header of the batch that the records came in.
    #[must_use]
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The encoded records.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The records one by one, borrowed: allocates nothing.
    #[must_use]
    pub fn iter(&self) -> RecordRefs<'_> {
        RecordRefs::new(&self.header, &self.bytes)
    }

    /// The records one by one, sharing the memory of this body.
    #[must_use]
    pub fn records(&self) -> Records {
        Records::new(&self.header, self.bytes.clone())
    }
}

impl<'a> IntoIterator for &'a Body {
    type Item = Result<crate::RecordRef<'a>, BatchError>;
    type IntoIter = RecordRefs<'a>;

    fn into_iter(self) -> RecordRefs<'a> {
        self.iter()
    }
}
