//! Prints how many records a second one core encodes, validates and decodes: 100-byte values in batches of 256 KiB.
//!
//! `cargo run --release -p flotilla-records --example records_bench`

use std::error::Error;
use std::hint::black_box;
use std::time::Instant;

use bytes::Bytes;
use flotilla_records::{Batch, BatchBuilder, Codec, Limits, validate};

const BATCH_BYTES: usize = 256 << 10;
const VALUE_BYTES: usize = 100;
const SECONDS_PER_STEP: f64 = 1.0;

fn main() -> Result<(), Box<dyn Error>> {
    println!("{:<8}{:>14}{:>16}{:>16}{:>16}{:>8}", "codec", "encode/s", "validate/s", "borrow/s", "own/s", "ratio");
    let values = values();
    let limits = Limits::default();
    for codec in Codec::ALL {
        let mut builder = BatchBuilder::with_capacity(BATCH_BYTES + 1024);
        let bytes = batch(&mut builder, codec, &values)?;
        let records = Batch::parse(bytes.clone())?.header().record_count;
        let plain_bytes = validate(&bytes, &limits)?.decompressed_bytes;
        let encode = rate(records, || batch(&mut builder, codec, &values).map(drop))?;
        let validate = rate(records, || {
            black_box(validate(&bytes, &limits)?);
            Ok(())
        })?;
        let borrow = rate(records, || {
            let body = Batch::parse(bytes.clone())?.body(limits.decompressed_bytes_max)?;
            for record in &body {
                black_box(record?);
            }
            Ok(())
        })?;
        let own = rate(records, || {
            let body = Batch::parse(bytes.clone())?.body(limits.decompressed_bytes_max)?;
            for record in body.records() {
                black_box(record?);
            }
            Ok(())
        })?;
        let ratio = plain_bytes as f64 / bytes.len() as f64;
        println!("{codec:<8}{encode:>14.0}{validate:>16.0}{borrow:>16.0}{own:>16.0}{ratio:>8.1}");
    }
    Ok(())
}

/// Values that look like lines of a log: a changing number in front of repeating text.
fn values() -> Vec<[u8; VALUE_BYTES]> {
    let line = |at: usize| {
        let text = format!("{:08x} GET /index.html?session={:05} HTTP/1.1 200 user-agent=", at * 2_654_435_761, at);
        let mut value = [b'x'; VALUE_BYTES];
        value.iter_mut().zip(text.bytes()).for_each(|(to, from)| *to = from);
        value
    };
    (0..10_000).map(line).collect()
}

fn batch(builder: &mut BatchBuilder, codec: Codec, values: &[[u8; VALUE_BYTES]]) -> Result<Bytes, Box<dyn Error>> {
    for (at, value) in values.iter().cycle().enumerate() {
        if builder.uncompressed_bytes() >= BATCH_BYTES {
            break;
        }
        builder.add(1_700_000_000_000 + at as i64, None, Some(value), [])?;
    }
    Ok(builder.finish(codec, None)?)
}

/// Records a second, if each call of `step` does `records`.
fn rate(records: u32, mut step: impl FnMut() -> Result<(), Box<dyn Error>>) -> Result<f64, Box<dyn Error>> {
    let start = Instant::now();
    let mut done = 0.0;
    while start.elapsed().as_secs_f64() < SECONDS_PER_STEP {
        step()?;
        done += f64::from(records);
    }
    Ok(done / start.elapsed().as_secs_f64())
}
