//! What the tests of the machines share: rows in memory, and batches made of a header alone.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

pub mod cluster;

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use flotilla_machines::Rows;
use flotilla_records::HEADER_BYTES;

/// One change of a row; no value: removed.
pub type Change = (u8, Vec<u8>, Option<Vec<u8>>);

/// Rows as a store would hold them, and the changes since they were last taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Store {
    rows: BTreeMap<(u8, Vec<u8>), Vec<u8>>,
    changes: Vec<Change>,
}

impl Rows for Store {
    fn put(&mut self, table: u8, key: &[u8], value: Vec<u8>) {
        self.changes.push((table, key.to_vec(), Some(value.clone())));
        self.rows.insert((table, key.to_vec()), value);
    }

    fn delete(&mut self, table: u8, key: &[u8]) {
        self.changes.push((table, key.to_vec(), None));
        self.rows.remove(&(table, key.to_vec()));
    }
}

impl Store {
    pub fn rows(&self) -> Vec<(u8, Vec<u8>, Vec<u8>)> {
        self.rows.iter().map(|((table, key), value)| (*table, key.clone(), value.clone())).collect()
    }

    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }
}

/// A batch's place in its producer's writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    pub id: i64,
    pub epoch: i16,
    pub sequence: i32,
}

/// A batch of `records` records as the machine sees it: only the header, as it reads nothing else.
pub fn batch(stamp: Option<Stamp>, records: u32, max_timestamp_ms: i64) -> Bytes {
    let stamp = stamp.unwrap_or(Stamp { id: -1, epoch: -1, sequence: -1 });
    let mut bytes = BytesMut::with_capacity(HEADER_BYTES);
    bytes.put_i64(0);
    bytes.put_u32(HEADER_BYTES as u32 - 12);
    bytes.put_i32(-1);
    bytes.put_i8(2);
    bytes.put_u32(0);
    bytes.put_u16(0);
    bytes.put_u32(records.wrapping_sub(1));
    bytes.put_i64(max_timestamp_ms);
    bytes.put_i64(max_timestamp_ms);
    bytes.put_i64(stamp.id);
    bytes.put_i16(stamp.epoch);
    bytes.put_i32(stamp.sequence);
    bytes.put_u32(records);
    bytes.freeze()
}

/// A source of numbers that is the same in every run (xorshift64*, Vigna 2016).
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}
