//! The values of the workload: each names its producer and its number, and carries a checksum, so that a record that is
//! read shows by itself whose it is and whether it is whole.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Who wrote a record, and the how manieth of that producer it is, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Id {
    /// The producer.
    pub producer: u32,
    /// Its place in what that producer wrote.
    pub sequence: u64,
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.producer, self.sequence)
    }
}

/// The value of record `id`, filled up to `bytes` bytes: `producer sequence checksum filler`.
#[must_use]
pub fn encode(id: Id, bytes: usize) -> Vec<u8> {
    let head = format!("{} {} ", id.producer, id.sequence);
    let filler_bytes = bytes.saturating_sub(head.len() + CHECKSUM_BYTES);
    // Every letter once in a row, from a place that depends on the record: exchanged pieces are noticed.
    let filler: Vec<u8> = (0..filler_bytes).map(|at| b'a' + ((id.sequence.wrapping_add(at as u64)) % 26) as u8).collect();
    let mut value = head.into_bytes();
    let checksum = checksum(&value, &filler);
    value.extend_from_slice(format!("{checksum:08x} ").as_bytes());
    value.extend_from_slice(&filler);
    value
}

/// Whose value this is; none if [`encode`] did not make these bytes.
#[must_use]
pub fn decode(value: &[u8]) -> Option<Id> {
    let mut parts = value.splitn(4, |byte| *byte == b' ');
    let mut text = || str::from_utf8(parts.next()?).ok();
    let id = Id { producer: text()?.parse().ok()?, sequence: text()?.parse().ok()? };
    let claimed = text()?;
    let filler = parts.next()?;
    let head = format!("{} {} ", id.producer, id.sequence);
    (claimed == format!("{:08x}", checksum(head.as_bytes(), filler))).then_some(id)
}

/// Eight digits and the space behind them.
const CHECKSUM_BYTES: usize = 9;

fn checksum(head: &[u8], filler: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(head), filler)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn every_changed_byte_makes_a_value_nobodys() {
        for sequence in [0, 9, 10, 12_345] {
            let id = Id { producer: 3, sequence };
            let good = encode(id, 60);
            assert_eq!(good.len(), 60);
            assert_eq!(decode(&good), Some(id));
            for at in 0..good.len() {
                let mut bad = good.clone();
                bad[at] ^= 1;
                assert_eq!(decode(&bad), None, "byte {at}");
                assert_eq!(decode(&good[..at]), None, "cut at {at}");
            }
        }
        assert_eq!(decode(b""), None);
        assert_eq!(decode(&encode(Id { producer: 1, sequence: 2 }, 0)), Some(Id { producer: 1, sequence: 2 }));
    }
}
