//! The state as a node uses it: whoever finds that it fails or is damaged tells the whole node.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use super::{KeyValue, State, StateError, StateView, WriteBatch, replace};
use crate::failure::Failure;

/// See the module.
pub(crate) struct WatchedState {
    state: Arc<dyn State>,
    failure: Failure,
}

struct WatchedView {
    view: Box<dyn StateView>,
    failure: Failure,
}

impl WatchedState {
    pub(crate) fn new(state: Arc<dyn State>, failure: Failure) -> Self {
        Self { state, failure }
    }

    /// A write that failed is final: RocksDB may have stopped, and what it has is unknown.
    fn wrote<T>(&self, written: Result<T, StateError>) -> Result<T, StateError> {
        if let Err(error @ StateError::Failed { .. }) = &written {
            self.failure.set(error.to_string());
        }
        read(&self.failure, written)
    }
}

/// Notes for the next opening, and tells the node, if what was read is damaged.
fn read<T>(failure: &Failure, read: Result<T, StateError>) -> Result<T, StateError> {
    if let Err(error @ StateError::Damaged { dir, .. }) = &read {
        mark(dir);
        failure.set(error.to_string());
    }
    read
}

/// Without the mark the damage is found again later, by whoever reads there.
fn mark(dir: &Path) {
    let marker = replace::marker(dir);
    if let Err(error) = File::create(&marker).and_then(|file| file.sync_all()) {
        tracing::warn!(file = %marker.display(), %error, "could not note that the state is damaged");
    }
}

impl State for WatchedState {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        read(&self.failure, self.state.get(key))
    }

    fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<KeyValue>, StateError> {
        read(&self.failure, self.state.scan(prefix, from, limit))
    }

    fn write(&self, batch: WriteBatch) -> Result<(), StateError> {
        self.wrote(self.state.write(batch))
    }

    fn flush(&self) -> Result<(), StateError> {
        self.wrote(self.state.flush())
    }

    fn unflushed_bytes(&self) -> u64 {
        self.state.unflushed_bytes()
    }

    fn snapshot(&self) -> Box<dyn StateView> {
        Box::new(WatchedView { view: self.state.snapshot(), failure: self.failure.clone() })
    }
}

impl StateView for WatchedView {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        read(&self.failure, self.view.get(key))
    }

    fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<KeyValue>, StateError> {
        read(&self.failure, self.view.scan(prefix, from, limit))
    }
}
