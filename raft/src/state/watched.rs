//! The state as a node uses it: whoever finds that it fails or is damaged tells the whole node.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use super::{KeyValue, State, StateError, StateView, WriteBatch, replace};
use crate::failure::Failure;
use crate::troubles::{Subject, Troubles};

/// See the module.
pub(crate) struct WatchedState {
    state: Arc<dyn State>,
    told: Told,
}

struct WatchedView {
    view: Box<dyn StateView>,
    told: Told,
}

/// Who is told.
#[derive(Clone)]
struct Told {
    failure: Failure,
    troubles: Troubles,
}

impl WatchedState {
    pub(crate) fn new(state: Arc<dyn State>, failure: Failure, troubles: Troubles) -> Self {
        Self { state, told: Told { failure, troubles } }
    }
}

impl Told {
    /// Notes for the next opening, and tells the node, if what was read is damaged. That it could not be read says nothing of it.
    fn read<T>(&self, read: Result<T, StateError>) -> Result<T, StateError> {
        match &read {
            Ok(_) => self.troubles.clear(Subject::Rows),
            Err(error @ StateError::Failed { .. }) => self.troubles.raise_error(Subject::Rows, error),
            Err(error @ StateError::Damaged { dir, .. }) => {
                mark(dir);
                self.failure.set(error.to_string());
            }
        }
        read
    }

    /// A write that failed is final: RocksDB may have stopped, and what it has is unknown.
    fn wrote<T>(&self, written: Result<T, StateError>) -> Result<T, StateError> {
        match written {
            Err(error @ StateError::Failed { .. }) => {
                self.failure.set(error.to_string());
                Err(error)
            }
            Err(error) => self.read(Err(error)),
            Ok(done) => Ok(done),
        }
    }
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
        self.told.read(self.state.get(key))
    }

    fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<KeyValue>, StateError> {
        self.told.read(self.state.scan(prefix, from, limit))
    }

    fn write(&self, batch: WriteBatch) -> Result<(), StateError> {
        self.told.wrote(self.state.write(batch))
    }

    fn flush(&self) -> Result<(), StateError> {
        self.told.wrote(self.state.flush())
    }

    fn unflushed_bytes(&self) -> u64 {
        self.state.unflushed_bytes()
    }

    fn snapshot(&self) -> Box<dyn StateView> {
        Box::new(WatchedView { view: self.state.snapshot(), told: self.told.clone() })
    }
}

impl StateView for WatchedView {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        self.told.read(self.view.get(key))
    }

    fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<KeyValue>, StateError> {
        self.told.read(self.view.scan(prefix, from, limit))
    }
}
