//! Journal throughput against its floor: batches through the journal's thread, and the same bytes overwritten and synced by
//! hand, in the same directory and run.
//!
//! `cargo run --release -p flotilla-raft --example journal_bench -- [directory] [batch bytes] [batches]`

use std::error::Error;
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use flotilla_raft::disk::Disk;
use flotilla_raft::disk::real::RealDisk;
use flotilla_raft::journal::{BatchStats, Journal, JournalObserver, JournalOptions, JournalThread, Record};
use flotilla_raft::types::{Body, Entry, GroupId, Incarnation, Item, LogId, ReplicaId};

/// Submissions on the way at once.
const PIPELINE: usize = 4;

#[derive(Debug, Default)]
struct Durations(Mutex<Vec<Duration>>);

impl JournalObserver for Durations {
    fn batch(&self, stats: &BatchStats) {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(stats.duration);
    }
}

fn report(name: &str, bytes: u64, elapsed: Duration, mut syncs: Vec<Duration>) {
    syncs.sort_unstable();
    let at = |part: usize| syncs.get(syncs.len() * part / 100).map_or(0.0, |sync| sync.as_secs_f64() * 1e3);
    let rate = bytes as f64 / 1e6 / elapsed.as_secs_f64();
    println!("{name:10} {rate:7.0} MB/s   {:6} syncs   {:6.3} ms median   {:6.3} ms p99", syncs.len(), at(50), at(99));
}

fn raw(dir: &Path, batch: &[u8], batches: u64, file_bytes: u64) -> Result<(), Box<dyn Error>> {
    let path = dir.join("raw");
    let file = RealDisk.open(&path, true)?;
    let zeros = vec![0; 1 << 20];
    for at in (0..file_bytes).step_by(zeros.len()) {
        file.write_all_at(&[IoSlice::new(&zeros)], at)?;
    }
    file.sync()?;
    let start = Instant::now();
    let mut syncs = Vec::new();
    let slots = file_bytes / batch.len() as u64;
    for number in 0..batches {
        let begun = Instant::now();
        file.write_all_at(&[IoSlice::new(batch)], number % slots * batch.len() as u64)?;
        file.sync()?;
        syncs.push(begun.elapsed());
    }
    report("overwrite", batches * batch.len() as u64, start.elapsed(), syncs);
    RealDisk.remove(&path)?;
    Ok(())
}

fn journal(dir: &Path, batch: &Bytes, batches: u64, options: JournalOptions) -> Result<(), Box<dyn Error>> {
    let (mut journal, _) = Journal::open(Arc::new(RealDisk), &dir.join("journal"), options)?;
    let durations = Arc::new(Durations::default());
    journal.observe(durations.clone());
    let thread = JournalThread::spawn(journal)?;
    let handle = thread.handle();
    let (group, incarnation) = (GroupId(1), Incarnation(1));
    let (done, answers) = mpsc::channel();
    handle.submit(vec![Record::Create { group, replica: ReplicaId(1), incarnation }], |_| {});
    // Twice around: the first time creates the files, the second one is measured.
    for measured in [false, true] {
        durations.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clear();
        let start = Instant::now();
        let first = u64::from(measured) * batches;
        for index in first..first + batches {
            if index - first >= PIPELINE as u64 {
                answers.recv()??;
            }
            let log_id = LogId { term: 1, index };
            let entry = Entry { log_id, body: Body::Items([Item { kind: 1, payload: batch.clone() }].into()) };
            let done = done.clone();
            let flushed = handle.clone();
            handle.submit(vec![Record::Append { group, entries: vec![entry] }], move |result| {
                flushed.segments_synced(group, incarnation, log_id);
                let _ = done.send(result);
            });
        }
        for _ in 0..(PIPELINE as u64).min(batches) {
            answers.recv()??;
        }
        if measured {
            let syncs = durations.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
            report("journal", batches * batch.len() as u64, start.elapsed(), syncs);
        }
    }
    thread.close();
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let parent = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let batch_bytes = arguments.next().map_or(Ok(256 << 10), |value| value.parse())?;
    let batches = arguments.next().map_or(Ok(2000), |value| value.parse())?;
    let dir = parent.join(format!("journal-bench-{}", std::process::id()));
    RealDisk.create_dir_all(&dir)?;
    let options = JournalOptions { file_bytes: 64 << 20, files_max: 4, files_hard_max: 8, ..JournalOptions::default() };
    let ring_bytes = options.file_bytes * u64::from(options.files_max);
    let batch = Bytes::from(vec![0xA5; batch_bytes]);
    println!("{batches} batches of {batch_bytes} bytes in {}", dir.display());
    for _ in 0..2 {
        raw(&dir, &batch, batches, ring_bytes)?;
        journal(&dir, &batch, batches, options.clone())?;
        RealDisk.remove_dir_all(&dir.join("journal"))?;
    }
    RealDisk.remove_dir_all(&dir)?;
    Ok(())
}
