//! What benchmarks write: records that differ and do not compress to nothing, as text from an application does not.

/// Payloads of one size, one after the other; the same for the same seed.
pub struct Payloads {
    size: usize,
    /// Random letters, longer than a payload; each payload is a window at another place.
    pool: Vec<u8>,
    /// The payload that was asked for last.
    current: Vec<u8>,
    number: u64,
}

const WINDOWS: usize = 4096;
const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 .";

impl Payloads {
    pub fn new(size: usize, seed: u64) -> Self {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut letter = || {
            // xorshift64
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            LETTERS.get((state >> 32) as usize % LETTERS.len()).copied().unwrap_or(b' ')
        };
        let pool = (0..size + WINDOWS).map(|_| letter()).collect();
        Self { size, pool, current: Vec::with_capacity(size), number: seed << 40 }
    }

    /// The next payload: it begins with a number that no other has, as far as its size allows.
    pub fn next(&mut self) -> &[u8] {
        self.number += 1;
        let start = self.number.wrapping_mul(0x9e37_79b9_7f4a_7c15) as usize % WINDOWS;
        self.current.clear();
        self.current.extend_from_slice(self.pool.get(start..start + self.size).unwrap_or_default());
        for (place, byte) in self.current.iter_mut().zip(self.number.to_be_bytes()) {
            *place = byte;
        }
        &self.current
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn payloads_differ_and_have_their_size() {
        let mut payloads = Payloads::new(100, 3);
        let seen: HashSet<Vec<u8>> = (0..10_000).map(|_| payloads.next().to_vec()).collect();
        assert_eq!(seen.len(), 10_000);
        assert!(seen.iter().all(|payload| payload.len() == 100));
        assert!(Payloads::new(0, 1).next().is_empty());
    }
}
