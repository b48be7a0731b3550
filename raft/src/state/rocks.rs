//! The state in RocksDB: one database per node, one column family, no write-ahead log.
//!
//! Without a log, what was not flushed is lost in a crash; with one column family, memtables are flushed in the
//! order in which they were filled, so what remains is always the state after some earlier write.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, DBPinnableSlice, Direction, ErrorKind,
    FlushOptions, IteratorMode, LogLevel, Options, ReadOptions, WriteOptions,
};

use super::{Change, KeyValue, State, StateError, StateView, WriteBatch, prefix_end};

const COLUMN_FAMILY: &str = "state";
/// Pauses between attempts to open or read it: 1.7 s all together.
pub(super) const PAUSES_MS: [u64; 5] = [5, 20, 80, 320, 1_280];

/// How much memory RocksDB may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RocksOptions {
    /// What is written and not yet flushed, in bytes; above it RocksDB flushes by itself.
    pub write_buffer_bytes: usize,
    /// Cached blocks of its files, in bytes.
    pub cache_bytes: usize,
    /// Files kept open.
    pub open_files_max: i32,
}

impl Default for RocksOptions {
    fn default() -> Self {
        RocksOptions { write_buffer_bytes: 64 * 1024 * 1024, cache_bytes: 64 * 1024 * 1024, open_files_max: 256 }
    }
}

/// The node's state in RocksDB.
#[derive(Debug)]
pub struct RocksState {
    store: Arc<Store>,
    /// Bytes written since the start, and how many of them are known to be flushed.
    written_bytes: AtomicU64,
    flushed_bytes: AtomicU64,
}

#[derive(Debug)]
struct Store {
    db: DB,
    dir: PathBuf,
}

impl RocksState {
    /// Opens the database in `dir`; creates it if it is missing.
    ///
    /// # Errors
    /// [`StateError::Damaged`] if RocksDB finds its files corrupt, [`StateError::Failed`] if it cannot use them.
    pub fn open(dir: &Path, options: &RocksOptions) -> Result<RocksState, StateError> {
        let families = [ColumnFamilyDescriptor::new(COLUMN_FAMILY, family_options(options))];
        let mut database = database_options(options);
        // Where RocksDB does not find its first file, it would begin anew over the others.
        database.create_if_missing(!holds_any(dir)?);
        let db = DB::open_cf_descriptors(&database, dir, families);
        let db = db.map_err(|error| open_failure(dir, &error))?;
        let store = Arc::new(Store { db, dir: dir.to_owned() });
        Ok(RocksState { store, written_bytes: AtomicU64::new(0), flushed_bytes: AtomicU64::new(0) })
    }
}

/// Whether a database was begun in `dir`.
fn holds_any(dir: &Path) -> Result<bool, StateError> {
    let failed = |error: io::Error| StateError::Failed { dir: dir.to_owned(), reason: format!("cannot list it: {error}") };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(failed(error)),
    };
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        let name = name.to_string_lossy();
        // What a first start that was cut short leaves behind has no table and no CURRENT.
        if name == "CURRENT" || name.ends_with(".sst") {
            return Ok(true);
        }
    }
    Ok(false)
}

fn database_options(options: &RocksOptions) -> Options {
    let mut database = Options::default();
    database.create_missing_column_families(true);
    database.set_db_write_buffer_size(options.write_buffer_bytes);
    database.set_max_open_files(options.open_files_max);
    database.set_max_background_jobs(2);
    database.set_keep_log_file_num(2);
    database.set_max_log_file_size(4 * 1024 * 1024);
    database.set_log_level(LogLevel::Warn);
    database.set_stats_dump_period_sec(0);
    database
}

fn family_options(options: &RocksOptions) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(options.cache_bytes));
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table.set_bloom_filter(10.0, false);
    let mut family = Options::default();
    family.set_block_based_table_factory(&table);
    family.set_compression_type(DBCompressionType::Lz4);
    family.set_write_buffer_size(options.write_buffer_bytes / 2);
    family.set_max_write_buffer_number(2);
    family
}

fn failure(dir: &Path, error: &rocksdb::Error) -> StateError {
    let (dir, reason) = (dir.to_owned(), error.to_string());
    match error.kind() {
        ErrorKind::Corruption => StateError::Damaged { dir, reason },
        _ => StateError::Failed { dir, reason },
    }
}

/// A database that lacks one of its files, or is not what it should be, is damaged, too.
fn open_failure(dir: &Path, error: &rocksdb::Error) -> StateError {
    let reason = error.to_string();
    let lacks = match error.kind() {
        ErrorKind::IOError => reason.contains("No such file"),
        kind => matches!(kind, ErrorKind::InvalidArgument | ErrorKind::NotFound),
    };
    if lacks { StateError::Damaged { dir: dir.to_owned(), reason } } else { failure(dir, error) }
}

impl Store {
    fn family(&self) -> Result<&ColumnFamily, StateError> {
        self.db.cf_handle(COLUMN_FAMILY).ok_or_else(|| StateError::Damaged {
            dir: self.dir.clone(),
            reason: format!("the column family {COLUMN_FAMILY} is missing"),
        })
    }

    fn failure(&self, error: &rocksdb::Error) -> StateError {
        failure(&self.dir, error)
    }

    fn get(&self, key: &[u8], options: &ReadOptions) -> Result<Option<Vec<u8>>, StateError> {
        let value = self.db.get_pinned_cf_opt(self.family()?, key, options).map_err(|error| self.failure(&error))?;
        Ok(value.as_ref().map(|value: &DBPinnableSlice<'_>| value.to_vec()))
    }

    fn scan(&self, prefix: &[u8], from: &[u8], limit: usize, mut options: ReadOptions) -> Result<Vec<KeyValue>, StateError> {
        if let Some(end) = prefix_end(prefix) {
            if from >= end.as_slice() {
                return Ok(Vec::new());
            }
            options.set_iterate_upper_bound(end);
        }
        let start = IteratorMode::From(from.max(prefix), Direction::Forward);
        let rows = self.db.iterator_cf_opt(self.family()?, options, start).take(limit);
        rows.map(|row| {
            let (key, value) = row.map_err(|error| self.failure(&error))?;
            Ok((key.into_vec(), value.into_vec()))
        })
        .collect()
    }
}

/// Reads until that works, or fails again and again: a first error may pass, and so may what RocksDB took for damage then.
fn patiently<T>(read: impl Fn() -> Result<T, StateError>) -> Result<T, StateError> {
    for pause in PAUSES_MS {
        match read() {
            Ok(done) => return Ok(done),
            Err(error) => tracing::warn!(%error, "reading rows failed; it is tried again"),
        }
        thread::sleep(Duration::from_millis(pause));
    }
    read()
}

impl State for RocksState {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        patiently(|| self.store.get(key, &ReadOptions::default()))
    }

    fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<KeyValue>, StateError> {
        patiently(|| self.store.scan(prefix, from, limit, ReadOptions::default()))
    }

    fn write(&self, batch: WriteBatch) -> Result<(), StateError> {
        let family = self.store.family()?;
        let bytes = batch.bytes();
        let mut writes = rocksdb::WriteBatch::default();
        for change in batch.into_changes() {
            match change {
                Change::Put(key, value) => writes.put_cf(family, key, value),
                Change::Delete(key) => writes.delete_cf(family, key),
                // A prefix without an end consists of 0xff only; no key of ours starts so.
                Change::DeletePrefix(prefix) => {
                    let end = prefix_end(&prefix).unwrap_or_else(|| vec![0xff; 64]);
                    writes.delete_range_cf(family, prefix, end);
                }
            }
        }
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        self.store.db.write_opt(writes, &options).map_err(|error| self.store.failure(&error))?;
        self.written_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    fn flush(&self) -> Result<(), StateError> {
        let written = self.written_bytes.load(Ordering::Relaxed);
        let mut options = FlushOptions::default();
        options.set_wait(true);
        self.store.db.flush_cf_opt(self.store.family()?, &options).map_err(|error| self.store.failure(&error))?;
        self.flushed_bytes.fetch_max(written, Ordering::Relaxed);
        Ok(())
    }

    fn unflushed_bytes(&self) -> u64 {
        let flushed = self.flushed_bytes.load(Ordering::Relaxed);
        self.written_bytes.load(Ordering::Relaxed).saturating_sub(flushed)
    }

    fn snapshot(&self) -> Box<dyn StateView> {
        Box::new(RocksView::pin(Arc::clone(&self.store)))
    }
}

/// A pinned RocksDB snapshot. It borrows the database, so a thread holds both and answers; it ends with the view.
struct RocksView {
    questions: Mutex<Option<Sender<Question>>>,
    thread: Option<JoinHandle<()>>,
    store: Arc<Store>,
}

/// Something to be read from the snapshot, with where to send the answer.
type Question = Box<dyn FnOnce(&Store, &rocksdb::Snapshot<'_>) + Send>;

impl RocksView {
    fn pin(store: Arc<Store>) -> RocksView {
        let (questions, receiver): (Sender<Question>, Receiver<Question>) = channel();
        let (pinned, wait): (SyncSender<()>, _) = sync_channel(1);
        let held = Arc::clone(&store);
        let answer = move || {
            let snapshot = held.db.snapshot();
            let _ = pinned.send(());
            for question in receiver {
                question(&held, &snapshot);
            }
        };
        let thread = thread::Builder::new().name("state-view".to_owned()).spawn(answer).ok();
        // Returns when the snapshot is taken; at once if the thread could not start, and then every read says so.
        let _ = wait.recv();
        RocksView { questions: Mutex::new(Some(questions)), thread, store }
    }

    fn ask<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Store, ReadOptions) -> Result<T, StateError> + Send + 'static,
    ) -> Result<T, StateError> {
        let (answer, wait) = sync_channel(1);
        let question: Question = Box::new(move |store, snapshot| {
            let mut options = ReadOptions::default();
            options.set_snapshot(snapshot);
            let _ = answer.send(read(store, options));
        });
        if let Some(questions) = self.questions.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            let _ = questions.send(question);
        }
        wait.recv().unwrap_or_else(|_| {
            let reason = "no thread could be started for a snapshot".to_owned();
            Err(StateError::Failed { dir: self.store.dir.clone(), reason })
        })
    }
}

impl StateView for RocksView {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        patiently(|| {
            let key = key.to_vec();
            self.ask(move |store, options| store.get(&key, &options))
        })
    }

    fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<KeyValue>, StateError> {
        patiently(|| {
            let (prefix, from) = (prefix.to_vec(), from.to_vec());
            self.ask(move |store, options| store.scan(&prefix, &from, limit, options))
        })
    }
}

impl Drop for RocksView {
    fn drop(&mut self) {
        *self.questions.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if let Some(thread) = self.thread.take() {
            // It only fails if a read panicked; there is nobody left to tell.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use std::collections::BTreeMap;
    use std::ffi::OsString;

    use super::super::contract;
    use super::*;

    fn open(dir: &Path) -> RocksState {
        RocksState::open(dir, &RocksOptions::default()).unwrap()
    }

    /// Names and sizes of the files in `dir`, its lock left out.
    fn listed(dir: &Path) -> BTreeMap<OsString, u64> {
        let files = fs::read_dir(dir).unwrap().map(Result::unwrap).filter(|entry| entry.file_name() != "LOCK");
        // What is gone between listing and looking makes a listing of its own: it is not there any more.
        files.filter_map(|entry| Some((entry.file_name(), entry.metadata().ok()?.len()))).collect()
    }

    /// What a crash now would leave behind. RocksDB goes on in the background while it is copied, so it is copied until the
    /// directory was the same before and afterwards: only then is the copy what was there at one moment.
    fn copy_of(dir: &Path) -> tempfile::TempDir {
        loop {
            let copy = tempfile::tempdir().unwrap();
            let before = listed(dir);
            let copied = before.keys().all(|name| fs::copy(dir.join(name), copy.path().join(name)).is_ok());
            if copied && listed(copy.path()) == before && listed(dir) == before {
                return copy;
            }
        }
    }

    #[test]
    fn keeps_the_contract() {
        let dir = tempfile::tempdir().unwrap();
        let mut opened = 0;
        contract::run(|| {
            opened += 1;
            open(&dir.path().join(opened.to_string()))
        });
    }

    #[test]
    fn a_crash_leaves_what_was_flushed_and_nothing_halved() {
        let dir = tempfile::tempdir().unwrap();
        // A buffer so small that RocksDB flushes by itself in between.
        let options = RocksOptions { write_buffer_bytes: 256 * 1024, ..RocksOptions::default() };
        let state = RocksState::open(dir.path(), &options).unwrap();
        let mut flushed = 0;
        for applied in 1..=400_u32 {
            let mut batch = WriteBatch::default();
            batch.put(*b"applied", applied.to_be_bytes());
            batch.put([&b"row"[..], &applied.to_be_bytes()].concat(), vec![7; 2000]);
            state.write(batch).unwrap();
            if applied == 100 {
                state.flush().unwrap();
                flushed = applied;
            }
            if applied % 50 == 0 {
                let copy = copy_of(dir.path());
                let crashed = open(copy.path());
                let value = crashed.get(b"applied").unwrap();
                let survived = value.map_or(0, |value| u32::from_be_bytes(value.try_into().unwrap()));
                assert!((flushed..=applied).contains(&survived), "{survived} of {applied}, {flushed} flushed");
                assert_eq!(crashed.scan(b"row", b"", 1000).unwrap().len() as u32, survived);
            }
        }
    }

    #[test]
    fn damage_is_named_and_nothing_wrong_is_served() {
        let dir = tempfile::tempdir().unwrap();
        let state = open(dir.path());
        contract::put(&state, b"key", &[1; 1000]);
        state.flush().unwrap();
        drop(state);
        let table = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
        let table = table.filter(|path| path.extension().is_some_and(|extension| extension == "sst")).last().unwrap();
        let mut bytes = fs::read(&table).unwrap();
        bytes[10] ^= 1;
        fs::write(&table, bytes).unwrap();
        let read = RocksState::open(dir.path(), &RocksOptions::default()).and_then(|state| state.get(b"key"));
        assert!(matches!(&read, Err(StateError::Damaged { dir: named, .. }) if named == dir.path()), "{read:?}");
    }
}
