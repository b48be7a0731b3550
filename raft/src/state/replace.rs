//! A broken RocksDB is the whole node's, and none of it is needed: rows are what the logs made of themselves. It moves
//! to `damaged/`, beside its directory, and an empty one begins. Groups whose whole log is here apply it again; those that
//! have given up a part of theirs find that rows are missing, and copy from their peers.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::{RocksOptions, RocksState, StateError};

impl RocksState {
    /// Opens the database in `dir`, or creates it. One that is damaged, or was found to be while it was used last, is
    /// replaced by an empty one.
    ///
    /// # Errors
    /// [`StateError::Failed`] if it cannot be used, or cannot be moved.
    pub fn open_or_replace(dir: &Path, options: &RocksOptions) -> Result<Self, StateError> {
        if marker(dir).exists() {
            set_aside(dir, "it was found to be damaged while it was used")?;
        }
        match Self::open(dir, options) {
            Err(StateError::Damaged { reason, .. }) => {
                set_aside(dir, &reason)?;
                Self::open(dir, options)
            }
            opened => opened,
        }
    }
}

/// The file that says that the database in `dir` is damaged.
pub(super) fn marker(dir: &Path) -> PathBuf {
    dir.with_extension("damaged")
}

fn set_aside(dir: &Path, reason: &str) -> Result<(), StateError> {
    let failed = |error: io::Error| StateError::Failed { dir: dir.to_owned(), reason: format!("cannot set it aside: {error}") };
    let moved = move_away(dir).map_err(failed)?;
    tracing::error!(dir = %dir.display(), moved_to = %moved.display(), reason, "the state is damaged: it is set aside, and made anew");
    Ok(())
}

fn move_away(dir: &Path) -> io::Result<PathBuf> {
    let parent = dir.parent().unwrap_or(Path::new("."));
    let damaged = parent.join("damaged");
    fs::create_dir_all(&damaged)?;
    let free = (1_u32..).map(|number| damaged.join(format!("state-{number}"))).find(|path| !path.exists());
    let free = free.ok_or_else(|| io::Error::other("too much was set aside before"))?;
    let sync = || File::open(&damaged)?.sync_all().and_then(|()| File::open(parent)?.sync_all());
    fs::rename(dir, &free)?;
    fs::create_dir_all(dir)?;
    sync()?;
    // Last: a crash before moves away once more what is empty.
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
    fn what_is_found_damaged_later_is_replaced_at_the_next_opening() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("state");
        filled(&dir);
        flip(&dir, |path| path.extension().is_some_and(|extension| extension == "sst"));
        let failure = Failure::new();
        let state = RocksState::open(&dir, &RocksOptions::default());
        if let Ok(state) = state {
            let watched = WatchedState::new(Arc::new(state), failure.clone());
            assert!(matches!(watched.get(b"key"), Err(StateError::Damaged { .. })));
            assert!(failure.get().is_some() && marker(&dir).exists());
        }
        assert_eq!(open(&dir).get(b"key").unwrap(), None);
        assert!(!marker(&dir).exists() && root.path().join("damaged/state-1").exists());
    }
}
