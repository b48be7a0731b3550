//! What a disk does with one writer: append and sync, and overwrite of written blocks and sync.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::cli::exit::CliError;

/// Sizes of one write.
const SIZES: [usize; 5] = [1 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20];
/// Writes begin at multiples of this, as a journal's do.
const ALIGNMENT: usize = 4096;
/// The file that is overwritten wraps around here.
const OVERWRITTEN_BYTES: usize = 64 << 20;

/// One row.
#[derive(Debug, Serialize)]
pub struct DiskFloor {
    pub what: &'static str,
    pub bytes: usize,
    pub median_ms: f64,
    pub p99_ms: f64,
    pub mb_per_second: f64,
}

/// Measures every size, appending and overwriting.
pub fn measure(dir: &Path, writes: u32) -> Result<Vec<DiskFloor>, CliError> {
    let path = dir.join(format!("flotilla-floors-{}", std::process::id()));
    let measured = measure_file(&path, writes);
    // It may not have been created.
    let _ = std::fs::remove_file(&path);
    measured.map_err(CliError::io(path.display().to_string()))
}

fn measure_file(path: &Path, writes: u32) -> io::Result<Vec<DiskFloor>> {
    let mut floors = Vec::new();
    for bytes in SIZES {
        let file = OpenOptions::new().create(true).truncate(true).write(true).open(path)?;
        floors.push(measure_size("append + fdatasync", &file, bytes, bytes, u64::MAX, writes)?);
    }
    let file = OpenOptions::new().create(true).truncate(true).write(true).open(path)?;
    file.write_all_at(&vec![1; OVERWRITTEN_BYTES], 0)?;
    file.sync_all()?;
    for bytes in SIZES {
        let step = bytes.next_multiple_of(ALIGNMENT);
        floors.push(measure_size("overwrite + fdatasync", &file, bytes, step, OVERWRITTEN_BYTES as u64, writes)?);
    }
    Ok(floors)
}

fn measure_size(what: &'static str, file: &File, bytes: usize, step: usize, wrap: u64, writes: u32) -> io::Result<DiskFloor> {
    let payload: Vec<u8> = (0..bytes).map(|at| (at % 251) as u8).collect();
    let mut took = Vec::with_capacity(writes as usize);
    let mut offset = 0;
    let started = Instant::now();
    for _ in 0..writes {
        let write_started = Instant::now();
        file.write_all_at(&payload, offset)?;
        file.sync_data()?;
        took.push(write_started.elapsed());
        offset += step as u64;
        if offset + step as u64 > wrap {
            offset = 0;
        }
    }
    let seconds = started.elapsed().as_secs_f64().max(1e-9);
    took.sort_unstable();
    let at = |share: f64| took.get(((took.len() as f64 * share) as usize).min(took.len().saturating_sub(1))).copied();
    let ms = |share: f64| at(share).unwrap_or(Duration::ZERO).as_secs_f64() * 1e3;
    let mb_per_second = bytes as f64 * f64::from(writes) / 1e6 / seconds;
    Ok(DiskFloor { what, bytes, median_ms: ms(0.5), p99_ms: ms(0.99), mb_per_second })
}
