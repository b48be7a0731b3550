//! The state as an ordered map in memory: durable only at a flush, so that a simulation can cut the power.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Change, KeyValue, State, StateError, StateView, WriteBatch, prefix_end};

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// An ordered map that forgets, on demand, what was not flushed. Clones share the map.
#[derive(Debug, Clone, Default)]
pub struct OrderedState {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Shared with views; copied when it is written to while one is held.
    current: Arc<Rows>,
    durable: Arc<Rows>,
    /// What was written since.
    unflushed: Vec<WriteBatch>,
    unflushed_bytes: u64,
}

impl OrderedState {
    /// Returns to what was last flushed, as after a power failure.
    pub fn power_cut(&self) {
        self.power_cut_to(|_| 0);
    }

    /// Returns to what was there after some write since the last flush, which the contract allows, too: `choose` is told
    /// how many there were, and says how many of them stay.
    pub fn power_cut_to(&self, choose: impl FnOnce(usize) -> usize) {
        let mut inner = self.lock();
        let writes = std::mem::take(&mut inner.unflushed);
        let stay = choose(writes.len());
        let mut rows = Rows::clone(&inner.durable);
        writes.into_iter().take(stay).for_each(|batch| apply(&mut rows, batch));
        inner.durable = Arc::new(rows);
        inner.current = Arc::clone(&inner.durable);
        inner.unflushed_bytes = 0;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rows(&self) -> Arc<Rows> {
        Arc::clone(&self.lock().current)
    }
}

impl State for OrderedState {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        self.rows().get(key)
    }

    fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<KeyValue>, StateError> {
        StateView::scan(&self.rows(), prefix, from, limit)
    }

    fn write(&self, batch: WriteBatch) -> Result<(), StateError> {
        let mut inner = self.lock();
        inner.unflushed_bytes += batch.bytes();
        inner.unflushed.push(batch.clone());
        apply(Arc::make_mut(&mut inner.current), batch);
        Ok(())
    }

    fn flush(&self) -> Result<(), StateError> {
        let mut inner = self.lock();
        inner.durable = Arc::clone(&inner.current);
        inner.unflushed.clear();
        inner.unflushed_bytes = 0;
        Ok(())
    }

    fn unflushed_bytes(&self) -> u64 {
        self.lock().unflushed_bytes
    }

    fn snapshot(&self) -> Box<dyn StateView> {
        Box::new(self.rows())
    }
}

impl StateView for Arc<Rows> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        Ok(self.as_ref().get(key).cloned())
    }

    fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<KeyValue>, StateError> {
        let start = Bound::Included(from.max(prefix));
        let end = prefix_end(prefix);
        let end = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        if end_before_start(end, from) {
            return Ok(Vec::new());
        }
        let rows = self.range::<[u8], _>((start, end)).take(limit);
        Ok(rows.map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}

fn apply(rows: &mut Rows, batch: WriteBatch) {
    for change in batch.into_changes() {
        match change {
            Change::Put(key, value) => drop(rows.insert(key, value)),
            Change::Delete(key) => drop(rows.remove(&key)),
            Change::DeletePrefix(prefix) => rows.retain(|key, _| !key.starts_with(&prefix)),
        }
    }
}

/// A range that a map would refuse.
fn end_before_start(end: Bound<&[u8]>, from: &[u8]) -> bool {
    matches!(end, Bound::Excluded(end) if end <= from)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::super::contract;
    use super::*;

    #[test]
    fn keeps_the_contract() {
        contract::run(OrderedState::default);
    }

    #[test]
    fn a_power_cut_returns_to_the_last_flush() {
        let state = OrderedState::default();
        contract::put(&state, b"a", b"1");
        state.flush().unwrap();
        contract::put(&state, b"a", b"2");
        contract::put(&state, b"b", b"2");
        state.power_cut();
        assert_eq!(State::scan(&state, b"", b"", 9).unwrap(), [(b"a".to_vec(), b"1".to_vec())]);
        assert_eq!(state.unflushed_bytes(), 0);
    }
    #[test]
    fn a_power_cut_may_keep_the_first_of_what_was_not_flushed() {
        let state = OrderedState::default();
        for (key, value) in [(b"a", b"1"), (b"a", b"2"), (b"b", b"2")] {
            contract::put(&state, key, value);
        }
        state.power_cut_to(|writes| {
            assert_eq!(writes, 3);
            2
        });
        assert_eq!(State::scan(&state, b"", b"", 9).unwrap(), [(b"a".to_vec(), b"2".to_vec())]);
        state.power_cut();
        assert_eq!(State::scan(&state, b"", b"", 9).unwrap(), [(b"a".to_vec(), b"2".to_vec())], "what it kept is durable");
    }
}
