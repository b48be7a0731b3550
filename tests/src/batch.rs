//! Encoded record batches, good ones and bad ones.

use bytes::Bytes;
use flotilla_records::{BatchBuilder, Codec, ProducerStamp};

/// Where the checksum lies in a batch, and where the bytes that it covers begin (see `flotilla_records`).
const CRC_AT: usize = 17;
const CRC_COVERS_FROM: usize = 21;

/// A batch of records with these values.
///
/// # Panics
/// If they do not make a batch.
pub fn encode<V: AsRef<[u8]>>(values: &[V], codec: Codec, producer: Option<ProducerStamp>) -> Bytes {
    let mut builder = BatchBuilder::new();
    for value in values {
        builder.add(1_700_000_000_000, Some(b"key"), Some(value.as_ref()), [("header", Some(&b"value"[..]))]).unwrap();
    }
    builder.finish(codec, producer).unwrap()
}

/// Makes the checksum fit the bytes again, so that what was changed is found by nothing but its own check.
pub fn reseal(batch: &mut [u8]) {
    if let Some(covered) = batch.get(CRC_COVERS_FROM..) {
        let crc = crc32c(covered);
        batch[CRC_AT..CRC_COVERS_FROM].copy_from_slice(&crc.to_be_bytes());
    }
}

/// CRC-32C (Castagnoli), bit by bit: a second opinion on the one that the product uses.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = !0_u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_one_of_the_format() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        let batch = encode(&["value"], Codec::None, None);
        let mut resealed = batch.to_vec();
        reseal(&mut resealed);
        assert_eq!(resealed, batch);
    }
}
