//! The journal's settings, and why it could not be opened.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::frame::BLOCK_BYTES;
use crate::disk::error::{Class, advice};

/// Settings. The ring is `file_bytes * files_max` large when fully grown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalOptions {
    /// Bytes of one file: a multiple of 4 KiB, at least 64 KiB, at most 2 GiB. One submission must fit into one file.
    pub file_bytes: u64,
    /// Files in the ring, at least 4. They are created when they are needed.
    pub files_max: u32,
    /// Files that re-journaling may extend the ring to. `(files_hard_max - files_max) * file_bytes` must exceed the
    /// unapplied bytes that the node admits.
    pub files_hard_max: u32,
    /// How long the writer is idle before it seals.
    pub seal_after: Duration,
    /// Bytes after which a batch takes no further submission.
    pub batch_bytes_max: u64,
}

const FILE_BYTES_MIN: u64 = 64 << 10;
const FILE_BYTES_MAX: u64 = 2 << 30;
const FILES_MIN: u32 = 4;

impl Default for JournalOptions {
    fn default() -> Self {
        Self {
            file_bytes: 128 << 20,
            files_max: 8,
            files_hard_max: 12,
            seal_after: Duration::from_millis(5),
            batch_bytes_max: 4 << 20,
        }
    }
}

impl JournalOptions {
    pub(super) fn validate(&self) -> Result<(), JournalError> {
        let bytes = self.file_bytes;
        if !(FILE_BYTES_MIN..=FILE_BYTES_MAX).contains(&bytes) || !bytes.is_multiple_of(BLOCK_BYTES) {
            return Err(JournalError::Options(format!(
                "file_bytes is {bytes}; choose a multiple of {BLOCK_BYTES} from {FILE_BYTES_MIN} to {FILE_BYTES_MAX}"
            )));
        }
        if self.files_max < FILES_MIN || self.files_hard_max < self.files_max {
            return Err(JournalError::Options(format!(
                "files_max is {} and files_hard_max is {}; choose at least {FILES_MIN} and no less for the second",
                self.files_max, self.files_hard_max
            )));
        }
        Ok(())
    }
}

/// Why the journal could not be opened. Damage is not among the reasons: see [`Recovered::damage`](super::Recovered::damage).
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// A setting is out of its range.
    #[error("the journal's settings are wrong: {0}")]
    Options(String),
    /// The disk is full: opening needs one free file.
    #[error(
        "the disk is full, and the journal in {dir} needs one more file of {}: free as much, or lower journal_bytes, and start again",
        mebibytes(.file_bytes)
    )]
    DiskFull {
        /// The journal's directory.
        dir: PathBuf,
        /// Size of the file.
        file_bytes: u64,
    },
    /// The disk refused an operation.
    #[error("cannot {action} the journal in {dir}: {source}; {}, and start again: nothing was changed", advice(.source))]
    Disk {
        /// What was tried.
        action: &'static str,
        /// The journal's directory.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl JournalError {
    pub(super) fn disk(action: &'static str, dir: &Path, file_bytes: u64) -> impl FnOnce(io::Error) -> Self + use<> {
        let dir = dir.to_owned();
        move |source| match Class::of(&source) {
            Class::Full => Self::DiskFull { dir, file_bytes },
            _ => Self::Disk { action, dir, source },
        }
    }
}

fn mebibytes(bytes: &u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;

    #[test]
    fn a_full_disk_is_told_how_much_is_needed() {
        let full = JournalError::disk("write", Path::new("data/journal"), 128 << 20)(io::ErrorKind::StorageFull.into());
        let expected = "the disk is full, and the journal in data/journal needs one more file of 128 MiB: free as much, or lower \
                        journal_bytes, and start again";
        assert_eq!(full.to_string(), expected);
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        let valid = JournalOptions::default();
        assert!(valid.validate().is_ok());
        for wrong in [
            JournalOptions { file_bytes: FILE_BYTES_MIN - BLOCK_BYTES, ..valid.clone() },
            JournalOptions { file_bytes: FILE_BYTES_MIN + 1, ..valid.clone() },
            JournalOptions { file_bytes: FILE_BYTES_MAX + BLOCK_BYTES, ..valid.clone() },
            JournalOptions { files_max: 3, ..valid.clone() },
            JournalOptions { files_hard_max: 7, ..valid.clone() },
        ] {
            assert!(matches!(wrong.validate(), Err(JournalError::Options(_))), "{wrong:?}");
        }
    }
}
