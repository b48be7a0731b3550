//! Damaged and malicious batches, by the hundred thousand: nothing panics, memory stays bounded, and what is accepted
//! is what was sent. `FLOTILLA_MUTATIONS` sets how many (200,000 by default); the run is the same each time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use bytes::Bytes;
use common::{PRODUCER, encode, peak_memory_bytes, reseal, sample};
use flotilla_records::{Batch, BatchSummary, Codec, Limits, Record, validate};

const MUTATIONS_DEFAULT: u64 = 200_000;
const LIMITS: Limits = Limits {
    decompressed_bytes_max: 64 << 10,
    records_max: 1000,
    headers_max: 100,
    key_bytes_max: 1000,
    value_bytes_max: 10_000,
    internal_allowed: false,
};
/// The decompressors' own buffers (two LZ4 blocks of 4 MiB, a zstd window of 8 MiB) and the allocator's slack.
const MEMORY_GROWTH_MAX: usize = 32 << 20;
/// The allocator reserves address space by 64 MiB for each thread.
const RESERVED_GROWTH_MAX: usize = 256 << 20;

/// SplitMix64 (Steele, Lea, Flood 2014): small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

struct Seed {
    bytes: Bytes,
    records: Vec<Record>,
}

/// Batches of each codec, one record and several, small and larger than a block of Snappy.
fn seeds() -> Vec<Seed> {
    let long = Record { value: Some(vec![b'x'; 5_000].into()), ..Record::default() };
    let seed =
        |records: &[Record], codec| Seed { bytes: encode(records, codec, Some(PRODUCER)).unwrap(), records: records.to_vec() };
    let per_codec = |codec| [seed(&sample(1), codec), seed(&sample(6), codec), seed(std::slice::from_ref(&long), codec)];
    Codec::ALL.into_iter().flat_map(per_codec).collect()
}

/// Changes `bytes` in one to four places.
fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(4) {
        // Headers of batch and codec are where most decisions are made.
        let span = if random.below(2) == 0 { 100 } else { bytes.len() };
        let at = random.below(span.min(bytes.len()));
        let end = at + random.below(8).min(bytes.len() - at);
        match random.below(8) {
            0..=2 => bytes[at] ^= 1 << random.below(8),
            3 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
            4 => bytes[at..end].fill(0xff),
            5 => drop(bytes.drain(at..end)),
            6 => {
                let copy = bytes[at..end].to_vec();
                let to = random.below(bytes.len());
                bytes.splice(to..to, copy);
            }
            _ => bytes.truncate(bytes.len() - random.below(16).min(bytes.len() - 1)),
        }
        if bytes.is_empty() {
            return;
        }
    }
}

/// Everything that a reader does with a batch that it did not validate.
fn read_all(bytes: &Bytes) -> Option<Vec<Record>> {
    let batch = Batch::parse(bytes.clone()).ok()?;
    let body = batch.body(LIMITS.decompressed_bytes_max).ok()?;
    assert!(body.bytes().len() <= LIMITS.decompressed_bytes_max);
    let borrowed = body.iter().take_while(Result::is_ok).count();
    let records: Vec<_> = body.records().map_while(Result::ok).collect();
    assert_eq!(borrowed, records.len());
    assert!(records.len() <= batch.header().record_count as usize);
    (records.len() == batch.header().record_count as usize).then_some(records)
}

/// A batch that was accepted reads back as its header says, within the limits.
fn check_accepted(bytes: &Bytes, summary: &BatchSummary) -> Vec<Record> {
    let records = read_all(bytes).expect("an accepted batch can be read");
    let header = summary.header;
    assert!(!header.control && !header.transactional);
    assert_eq!((header.batch_bytes, header.record_count as usize), (bytes.len(), records.len()));
    assert_eq!(header.offset_count() as usize, records.len());
    assert!(records.len() <= LIMITS.records_max as usize);
    assert!(summary.decompressed_bytes <= LIMITS.decompressed_bytes_max);
    assert_eq!(records.iter().map(|record| record.timestamp_ms).max(), Some(header.max_timestamp_ms));
    for (at, record) in records.iter().enumerate() {
        assert_eq!(record.offset_delta as usize, at);
        assert!(record.value.as_ref().is_none_or(|value| value.len() <= LIMITS.value_bytes_max));
        assert!(record.key.as_ref().is_none_or(|key| key.len() <= LIMITS.key_bytes_max));
        assert!(record.headers.len() <= LIMITS.headers_max as usize);
    }
    records
}

#[test]
fn mutated_batches_fail_or_hold_what_was_sent() {
    let mutations = std::env::var("FLOTILLA_MUTATIONS").map_or(MUTATIONS_DEFAULT, |count| count.parse().unwrap());
    let seeds = seeds();
    let mut random = Random(1);
    let (mut damaged_accepted, mut forged_accepted, mut refused) = (0, 0, 0);
    let before = peak_memory_bytes();
    for _ in 0..mutations {
        let seed = &seeds[random.below(seeds.len())];
        let mut bytes = seed.bytes.to_vec();
        mutate(&mut bytes, &mut random);
        // Half arrive with a true checksum, so that the decoders behind it are reached.
        let forged = bytes.len() >= 61 && random.below(2) == 0;
        if forged {
            reseal(&mut bytes);
        }
        let bytes = Bytes::from(bytes);
        match validate(&bytes, &LIMITS) {
            Ok(summary) => {
                let records = check_accepted(&bytes, &summary);
                if !forged {
                    assert_eq!(records, seed.records, "a damaged batch was accepted: {bytes:?}");
                    assert_eq!(bytes[16..], seed.bytes[16..]);
                }
                *if forged { &mut forged_accepted } else { &mut damaged_accepted } += 1;
            }
            Err(error) => {
                refused += 1;
                assert!(!error.to_string().is_empty());
                let _ = read_all(&bytes);
            }
        }
    }
    println!("{refused} refused, accepted: {damaged_accepted} outside the checksum, {forged_accepted} with a new one");
    // The test sees all three, or it tests less than it says.
    assert!(refused > mutations / 2 && damaged_accepted > 0 && forged_accepted > 0);
    if let (Some(before), Some(after)) = (before, peak_memory_bytes()) {
        let (resident, reserved) = (after.0 - before.0, after.1 - before.1);
        assert!(resident < MEMORY_GROWTH_MAX, "memory grew by {resident} bytes");
        assert!(reserved < RESERVED_GROWTH_MAX, "reserved memory grew by {reserved} bytes");
    }
}
