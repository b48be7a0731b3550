//! What becomes of files while nobody uses them: flipped bits, missing ends, sectors that cannot be read.
//!
//! Left alone is the last batch of the journal: whether that is damaged or was never written whole cannot be told, unless
//! it was sealed.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use flotilla_raft::disk::Disk as _;

use super::{MeddledDisk, Place};
use crate::random::Random;

/// Bytes within which bits flip.
const FLIP_BYTES: u64 = 512;
const FLIPS: usize = 3;
/// Bytes that are cut off, at most.
const CUT_BYTES_MAX: u64 = 20_000;

/// What is done to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// Bits are not what was written.
    Flip,
    /// Its end is missing.
    Cut,
    /// A sector cannot be read.
    Unreadable,
}

impl MeddledDisk {
    /// Damages some file of a `place` below `dir`; `pick` decides which one, and where. Says what was done, if there is one.
    pub fn damage(&self, dir: &Path, place: Place, damage: Damage, pick: u64) -> Option<String> {
        let mut random = Random::new(pick);
        let files: Vec<(PathBuf, u64)> =
            self.files(dir).into_iter().filter(|(path, len)| place.holds(path) && *len > 0).collect();
        let (path, len) = random.pick(&files)?.clone();
        let at = random.next_u64() % len;
        let range = match damage {
            Damage::Flip | Damage::Unreadable => at..(at + FLIP_BYTES).min(len),
            Damage::Cut => len - (1 + at % CUT_BYTES_MAX).min(len)..len,
        };
        if self.may_be_torn(&path, &range) && damage != Damage::Unreadable {
            return None;
        }
        let done = match damage {
            Damage::Flip => self.disk.flip_bits(&path, range.clone(), FLIPS),
            Damage::Cut => self.cut(&path, range.start),
            Damage::Unreadable => {
                self.rules().spoil(&path, at);
                Ok(())
            }
        };
        done.ok().map(|()| format!("{damage:?} {} {range:?}", path.display()))
    }

    fn cut(&self, path: &Path, len: u64) -> io::Result<()> {
        let file = self.disk.open(path, false)?;
        file.set_len(len)?;
        file.sync()
    }

    fn may_be_torn(&self, path: &Path, range: &Range<u64>) -> bool {
        let rules = self.rules();
        let last = rules.last_journaled.as_ref();
        last.is_some_and(|(last, written)| last == path && range.start < written.end && written.start < range.end)
    }

    /// Everything below a directory, with its length.
    #[must_use]
    pub fn files(&self, dir: &Path) -> Vec<(PathBuf, u64)> {
        let mut all = Vec::new();
        for entry in self.disk.list(dir).unwrap_or_default() {
            match self.disk.open(&entry, false).and_then(|file| file.len()) {
                Ok(len) => all.push((entry, len)),
                Err(_) => all.extend(self.files(&entry)),
            }
        }
        all
    }

    /// The names in a directory.
    #[must_use]
    pub fn names(&self, dir: &Path) -> Vec<String> {
        let entries = self.disk.list(dir).unwrap_or_default();
        entries.iter().filter_map(|entry| Some(entry.file_name()?.to_str()?.to_owned())).collect()
    }
}
