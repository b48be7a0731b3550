//! What the tests of this crate share: sample records, batches with a true checksum over false content, and the
//! memory that the process took at most.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use bytes::Bytes;
use flotilla_records::{BatchBuilder, BatchError, Codec, Header, ProducerStamp, Record};

pub const BASE_MS: i64 = 1_700_000_000_000;
pub const PRODUCER: ProducerStamp = ProducerStamp { id: 7, epoch: 1, base_sequence: 42 };

/// `count` records with and without key, value and headers, whose timestamps go up and down.
pub fn sample(count: u32) -> Vec<Record> {
    let record = |at: u32| {
        let header = |value: Option<&'static [u8]>| Header { key: "trace".to_owned(), value: value.map(Bytes::from_static) };
        Record {
            offset_delta: at,
            timestamp_ms: BASE_MS + i64::from(at * 7919 % 1000),
            key: (!at.is_multiple_of(3)).then(|| format!("key-{}", at % 7).into()),
            value: (at % 10 != 9).then(|| format!("value {at} of a record that repeats itself, repeats itself").into()),
            headers: if at.is_multiple_of(4) { vec![header(Some(b"t")), header(None)] } else { Vec::new() },
        }
    };
    (0..count).map(record).collect()
}

/// A batch of `records`, whose offset deltas are taken to be 0, 1, 2 …
pub fn encode(records: &[Record], codec: Codec, producer: Option<ProducerStamp>) -> Result<Bytes, BatchError> {
    let mut builder = BatchBuilder::new();
    for record in records {
        let headers = record.headers.iter().map(|header| (header.key.as_str(), header.value.as_deref()));
        builder.add(record.timestamp_ms, record.key.as_deref(), record.value.as_deref(), headers)?;
    }
    builder.finish(codec, producer)
}

/// Makes length and checksum of a changed batch true again.
pub fn reseal(batch: &mut [u8]) {
    let length = (batch.len() - 12) as u32;
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

/// A one-record batch whose stored body is replaced by `body`, with a true length and checksum.
pub fn with_body(codec: Codec, body: &[u8]) -> Bytes {
    let mut batch = encode(&sample(1), Codec::None, None).unwrap()[..61].to_vec();
    batch[22] = codec.code();
    batch.extend_from_slice(body);
    reseal(&mut batch);
    batch.into()
}

/// Bytes that this process had at most since it started: (resident, reserved). `None` where the system does not say.
pub fn peak_memory_bytes() -> Option<(usize, usize)> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        let kib: usize = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kib << 10)
    };
    Some((field("VmHWM:")?, field("VmPeak:")?))
}
