//! What every provider of [`State`] must do; each runs [`run`].
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use super::{State, WriteBatch};

pub(super) fn put(state: &dyn State, key: &[u8], value: &[u8]) {
    let mut batch = WriteBatch::default();
    batch.put(key, value);
    state.write(batch).unwrap();
}

/// Runs the suite; `open` opens an empty state each time.
pub(super) fn run<S: State>(mut open: impl FnMut() -> S) {
    reads_what_was_written(&open());
    applies_a_batch_in_order(&open());
    scans_a_prefix_from_a_key(&open());
    deletes_a_prefix_and_nothing_else(&open());
    a_view_does_not_move(&open());
    counts_what_is_not_flushed(&open());
}

fn keys(rows: Vec<(Vec<u8>, Vec<u8>)>) -> Vec<Vec<u8>> {
    rows.into_iter().map(|(key, _)| key).collect()
}

fn reads_what_was_written(state: &dyn State) {
    assert_eq!(state.get(b"a").unwrap(), None);
    put(state, b"a", b"1");
    put(state, b"empty", b"");
    assert_eq!(state.get(b"a").unwrap(), Some(b"1".to_vec()));
    assert_eq!(state.get(b"empty").unwrap(), Some(Vec::new()));
    put(state, b"a", b"2");
    assert_eq!(state.get(b"a").unwrap(), Some(b"2".to_vec()));
    state.flush().unwrap();
    assert_eq!(state.get(b"a").unwrap(), Some(b"2".to_vec()));
}

fn applies_a_batch_in_order(state: &dyn State) {
    let mut batch = WriteBatch::default();
    batch.put(*b"x", *b"1");
    batch.delete(*b"x");
    batch.put(*b"y", *b"1");
    batch.put(*b"y", *b"2");
    batch.put(*b"z1", *b"1");
    batch.delete_prefix(*b"z");
    batch.put(*b"z2", *b"2");
    state.write(batch).unwrap();
    assert_eq!(keys(state.scan(b"", b"", 9).unwrap()), [b"y".to_vec(), b"z2".to_vec()]);
    assert_eq!(state.get(b"y").unwrap(), Some(b"2".to_vec()));
}

fn scans_a_prefix_from_a_key(state: &dyn State) {
    for key in [&b"p"[..], b"p1", b"p2", b"p3", b"q", b"o", &[b'p', 0xff, 0xff]] {
        put(state, key, key);
    }
    let scan = |prefix: &[u8], from: &[u8], limit| keys(state.scan(prefix, from, limit).unwrap());
    assert_eq!(scan(b"p", b"", 9), [b"p".to_vec(), b"p1".to_vec(), b"p2".to_vec(), b"p3".to_vec(), vec![b'p', 255, 255]]);
    assert_eq!(scan(b"p", b"p2", 9), [b"p2".to_vec(), b"p3".to_vec(), vec![b'p', 255, 255]]);
    assert_eq!(scan(b"p", b"p11", 1), [b"p2".to_vec()]);
    assert_eq!(scan(b"p", b"q", 9), Vec::<Vec<u8>>::new());
    assert_eq!(scan(b"p", b"r", 9), Vec::<Vec<u8>>::new());
    assert_eq!(scan(&[b'p', 0xff], b"", 9), [vec![b'p', 255, 255]]);
    assert_eq!(scan(&[0xff], b"", 9), Vec::<Vec<u8>>::new());
    assert_eq!(scan(b"", b"", 2), [b"o".to_vec(), b"p".to_vec()]);
    assert_eq!(scan(b"p", b"", 0), Vec::<Vec<u8>>::new());
}

fn deletes_a_prefix_and_nothing_else(state: &dyn State) {
    for key in [&[1, 0][..], &[1, 255], &[1, 255, 255], &[1], &[2], &[0, 255]] {
        put(state, key, b"");
    }
    state.flush().unwrap();
    let mut batch = WriteBatch::default();
    batch.delete_prefix(vec![1]);
    state.write(batch).unwrap();
    assert_eq!(keys(state.scan(b"", b"", 9).unwrap()), [vec![0, 255], vec![2]]);
    state.flush().unwrap();
    assert_eq!(keys(state.scan(b"", b"", 9).unwrap()), [vec![0, 255], vec![2]]);
}

fn a_view_does_not_move(state: &dyn State) {
    put(state, b"a", b"1");
    put(state, b"b", b"1");
    let view = state.snapshot();
    let mut batch = WriteBatch::default();
    batch.put(*b"a", *b"2");
    batch.delete(*b"b");
    batch.put(*b"c", *b"2");
    state.write(batch).unwrap();
    state.flush().unwrap();
    assert_eq!(view.get(b"a").unwrap(), Some(b"1".to_vec()));
    assert_eq!(view.get(b"c").unwrap(), None);
    assert_eq!(keys(view.scan(b"", b"", 9).unwrap()), [b"a".to_vec(), b"b".to_vec()]);
    drop(view);
    assert_eq!(keys(state.snapshot().scan(b"", b"", 9).unwrap()), [b"a".to_vec(), b"c".to_vec()]);
}

fn counts_what_is_not_flushed(state: &dyn State) {
    assert_eq!(state.unflushed_bytes(), 0);
    put(state, b"abc", b"12345");
    assert_eq!(state.unflushed_bytes(), 8);
    state.flush().unwrap();
    assert_eq!(state.unflushed_bytes(), 0);
}
