//! A broken RocksDB is the whole node's, and none of it is needed: rows are what the logs made of themselves. It moves
//! to `damaged/`, beside its directory, and an empty one begins. Groups whose whole log is here apply it again; those that
//! have given up a part of theirs find that rows are missing, and copy from their peers.

//!
//! So it is proven first. RocksDB calls many things corrupt or invalid that are not: a file that could not be opened for want of
//! descriptors, or read for once. What it says is believed when it says so again after every one of its files could be read.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::rocks::PAUSES_MS;
use super::{RocksOptions, RocksState, State, StateError};

/// Rows read at once to see whether all are whole.
const ROWS_AT_ONCE: usize = 10_000;

impl RocksState {
    /// Opens the database in `dir`, or creates it. One that is damaged is replaced by an empty one.
    ///
    /// # Errors
    /// [`StateError::Failed`] if it cannot be used, or cannot be moved: then nothing was changed.
    pub fn open_or_replace(dir: &Path, options: &RocksOptions) -> Result<Self, StateError> {
        let opened = open_proven(dir, options).and_then(|state| check_marked(dir, state));
        match opened {
            Err(StateError::Damaged { reason, .. }) => {
                set_aside(dir, &reason)?;
                Self::open(dir, options)
            }
            opened => opened,
        }
    }
}

/// Opens it. That it is damaged is said twice, with all of its files read in between.
fn open_proven(dir: &Path, options: &RocksOptions) -> Result<RocksState, StateError> {
    let mut said = None;
    for pause in PAUSES_MS.map(Some).into_iter().chain([None]) {
        let error = match RocksState::open(dir, options) {
            Ok(state) => return Ok(state),
            Err(error) => error,
        };
        let is_damaged = matches!(error, StateError::Damaged { .. });
        let unread = if is_damaged { read_all(dir).err() } else { None };
        if is_damaged && unread.is_none() && matches!(said, Some(StateError::Damaged { .. })) {
            return Err(error);
        }
        let error = unread.map_or(error, |unread| failed(dir, "cannot read all of it", &unread));
        tracing::warn!(%error, "the state could not be opened");
        said = Some(error);
        thread::sleep(Duration::from_millis(pause.unwrap_or(0)));
    }
    let unsure = || StateError::Failed { dir: dir.to_owned(), reason: "it could not be opened".to_owned() };
    // Whether it is damaged is not known for sure.
    Err(match said.unwrap_or_else(unsure) {
        StateError::Damaged { dir, reason } => StateError::Failed { dir, reason },
        failed @ StateError::Failed { .. } => failed,
    })
}

/// One that was found damaged while it was used: all of it is read. What is whole now was never damaged.
fn check_marked(dir: &Path, state: RocksState) -> Result<RocksState, StateError> {
    let marker = marker(dir);
    if !fs::exists(&marker).map_err(|error| failed(dir, "cannot look for a mark of damage", &error))? {
        return Ok(state);
    }
    let mut from = Vec::new();
    loop {
        let rows = state.scan(&[], &from, ROWS_AT_ONCE)?;
        let Some((last, _)) = rows.last().filter(|_| rows.len() == ROWS_AT_ONCE) else { break };
        from.clone_from(last);
        from.push(0);
    }
    fs::remove_file(&marker).map_err(|error| failed(dir, "cannot remove the mark of damage", &error))?;
    tracing::warn!(dir = %dir.display(), "the state was said to be damaged, and all of it is whole: it is used");
    Ok(state)
}

/// Reads all files of a directory.
fn read_all(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let read = File::open(&path).and_then(|mut file| io::copy(&mut file, &mut io::sink()));
        read.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    }
    Ok(())
}

fn failed(dir: &Path, what: &str, error: &io::Error) -> StateError {
    StateError::Failed { dir: dir.to_owned(), reason: format!("{what}: {error}") }
}

/// The file that says that the database in `dir` is damaged.
pub(super) fn marker(dir: &Path) -> PathBuf {
    dir.with_extension("damaged")
}

fn set_aside(dir: &Path, reason: &str) -> Result<(), StateError> {
    let moved = move_away(dir).map_err(|error| failed(dir, "cannot set it aside", &error))?;
    tracing::error!(dir = %dir.display(), moved_to = %moved.display(), reason, "the state is damaged: it is set aside, and made anew");
    Ok(())
}

fn move_away(dir: &Path) -> io::Result<PathBuf> {
    let parent = dir.parent().unwrap_or(Path::new("."));
    let damaged = parent.join("damaged");
    fs::create_dir_all(&damaged)?;
    let mut number = 1_u32;
    while fs::exists(damaged.join(format!("state-{number}")))? {
        number += 1;
    }
    let free = damaged.join(format!("state-{number}"));
    let sync = || File::open(&damaged)?.sync_all().and_then(|()| File::open(parent)?.sync_all());
    fs::rename(dir, &free)?;
    fs::create_dir_all(dir)?;
    sync()?;
    // Last: after a crash before this, what is empty is found to be whole.
    match fs::remove_file(marker(dir)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        removed => removed?,
    }
    sync()?;
    Ok(free)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use std::sync::Arc;

    use super::super::{State, WatchedState, contract};
    use super::*;
    use crate::failure::Failure;
    use crate::troubles::Troubles;

    fn open(dir: &Path) -> RocksState {
        RocksState::open_or_replace(dir, &RocksOptions::default()).unwrap()
    }

    fn filled(dir: &Path) {
        let state = open(dir);
        contract::put(&state, b"key", &[1; 1000]);
        state.flush().unwrap();
    }

    fn flip(dir: &Path, picks: impl Fn(&Path) -> bool) {
        let file = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).find(|path| picks(path)).unwrap();
        let mut bytes = fs::read(&file).unwrap();
        bytes[10] ^= 1;
        fs::write(file, bytes).unwrap();
    }

    #[test]
    fn what_cannot_be_opened_is_replaced_and_kept() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("state");
        for number in 1..=2 {
            filled(&dir);
            flip(&dir, |path| path.file_name().unwrap().to_string_lossy().starts_with("MANIFEST"));
            assert_eq!(open(&dir).get(b"key").unwrap(), None);
            assert!(root.path().join(format!("damaged/state-{number}/CURRENT")).exists());
        }
        contract::put(&open(&dir), b"key", b"new");
    }

    #[test]
    fn what_cannot_be_read_is_not_damaged() {
        let root = tempfile::tempdir().unwrap();
        let (dir, current, away) = (root.path().join("state"), root.path().join("state/CURRENT"), root.path().join("away"));
        filled(&dir);
        fs::rename(&current, &away).unwrap();
        // RocksDB takes a name that cannot be followed for a file that is missing.
        std::os::unix::fs::symlink("CURRENT", &current).unwrap();
        let refused = RocksState::open_or_replace(&dir, &RocksOptions::default()).unwrap_err();
        assert!(matches!(refused, StateError::Failed { .. }) && refused.to_string().contains("CURRENT"), "{refused}");
        assert!(!root.path().join("damaged").exists(), "nothing was changed");
        fs::rename(&away, &current).unwrap();
        assert!(open(&dir).get(b"key").unwrap().is_some());
        fs::remove_file(&current).unwrap();
        assert_eq!(open(&dir).get(b"key").unwrap(), None, "what is missing is damage");
        assert!(root.path().join("damaged/state-1").exists());
    }

    #[test]
    fn what_was_said_to_be_damaged_and_is_whole_is_used() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("state");
        filled(&dir);
        File::create(marker(&dir)).unwrap();
        assert!(open(&dir).get(b"key").unwrap().is_some());
        assert!(!marker(&dir).exists() && !root.path().join("damaged").exists());
    }

    #[test]
    fn what_is_found_damaged_later_is_replaced_at_the_next_opening() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("state");
        filled(&dir);
        flip(&dir, |path| path.extension().is_some_and(|extension| extension == "sst"));
        let failure = Failure::new();
        let state = RocksState::open(&dir, &RocksOptions::default());
        if let Ok(state) = state {
            let watched = WatchedState::new(Arc::new(state), failure.clone(), Troubles::new());
            assert!(matches!(watched.get(b"key"), Err(StateError::Damaged { .. })));
            assert!(failure.get().is_some() && marker(&dir).exists());
        }
        assert_eq!(open(&dir).get(b"key").unwrap(), None);
        assert!(!marker(&dir).exists() && root.path().join("damaged/state-1").exists());
    }
}
