//! Which operation of a disk fails, and how.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use flotilla_raft::disk::sim::Rng;
use serde::{Deserialize, Serialize};

/// The unit that becomes unreadable.
const SECTOR_BYTES: u64 = 4096;

/// The operations of the seam.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Op {
    /// A file is opened, or created
    Open,
    /// Bytes are read
    Read,
    /// Bytes are written
    Write,
    /// A file is synced
    Sync,
    /// A file is made longer or shorter
    SetLen,
    /// A file's length is asked
    Len,
    /// A name changes
    Rename,
    /// A file is removed
    Remove,
    /// A directory is removed
    RemoveDir,
    /// A directory is created
    CreateDir,
    /// A directory is read
    List,
    /// A directory is synced
    SyncDir,
}

impl Op {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Open,
        Self::Read,
        Self::Write,
        Self::Sync,
        Self::SetLen,
        Self::Len,
        Self::Rename,
        Self::Remove,
        Self::RemoveDir,
        Self::CreateDir,
        Self::List,
        Self::SyncDir,
    ];
}

/// Whose files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// All
    Anywhere,
    /// The journal's
    Journal,
    /// Segments of groups
    Segments,
    /// What else groups have: indexes, marks, directories
    Marks,
}

/// What the system answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum DiskError {
    /// Input/output error
    Eio,
    /// No space left on device
    Enospc,
    /// Disk quota exceeded
    Edquot,
    /// Too many open files
    Emfile,
    /// Interrupted system call
    Eintr,
}

/// Which operations of a place meet what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// The operation.
    pub op: Op,
    /// Whose.
    pub place: Place,
    /// The error; none: the process is killed during it.
    pub error: Option<DiskError>,
    /// So many pass before.
    pub after: u32,
    /// So many meet it, one after the other.
    pub times: u32,
}

/// What an operation met.
pub(super) struct Met {
    pub(super) error: io::Error,
    /// Whether a part of it happens.
    pub(super) half_done: bool,
}

/// The state of all rules of a disk.
pub(super) struct Rules {
    rng: Rng,
    rules: BTreeMap<u64, (Rule, u64)>,
    last: u64,
    unreadable: BTreeSet<(PathBuf, u64)>,
    /// The last write to the journal: what it may lose is not known to be there.
    pub(super) last_journaled: Option<(PathBuf, Range<u64>)>,
    pub(super) quota: bool,
    /// Whether somebody was told since the disk is full.
    pub(super) refused: bool,
    pub(super) dying: bool,
}

impl Place {
    /// Whether a file or directory is one of these.
    #[must_use]
    pub fn holds(self, path: &Path) -> bool {
        let journal = path.components().any(|part| part.as_os_str() == "journal");
        let segment = path.extension().is_some_and(|extension| extension == "segment");
        match self {
            Self::Anywhere => true,
            Self::Journal => journal,
            Self::Segments => segment,
            Self::Marks => !journal && !segment,
        }
    }
}

impl DiskError {
    /// As the system says it.
    #[must_use]
    pub fn as_io(self) -> io::Error {
        io::Error::from_raw_os_error(match self {
            Self::Eintr => 4,
            Self::Eio => 5,
            Self::Emfile => 24,
            Self::Enospc => 28,
            Self::Edquot => 122,
        })
    }
}

impl Rules {
    pub(super) fn new(rng: Rng) -> Self {
        let (rules, unreadable) = (BTreeMap::new(), BTreeSet::new());
        Self { rng, rules, last: 0, unreadable, last_journaled: None, quota: false, refused: false, dying: false }
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.rng.below(end as u64)).unwrap_or_default()
    }

    pub(super) fn add(&mut self, rule: Rule) -> u64 {
        self.last += 1;
        self.rules.insert(self.last, (rule, 0));
        self.last
    }

    pub(super) fn lift(&mut self, rule: u64) -> u64 {
        self.rules.remove(&rule).map_or(0, |(_, met)| met)
    }

    pub(super) fn heal(&mut self) {
        self.rules.clear();
        self.unreadable.clear();
        (self.quota, self.refused) = (false, false);
    }

    /// What an operation meets, if any rule is for it.
    pub(super) fn meet(&mut self, op: Op, path: &Path) -> Option<Met> {
        if self.dying {
            return Some(Met { error: io::Error::other("the process is being killed"), half_done: false });
        }
        let for_it = |(rule, _): &&mut (Rule, u64)| rule.op == op && rule.place.holds(path) && rule.times > 0;
        let mut due = None;
        for (rule, met) in self.rules.values_mut().filter(for_it) {
            if rule.after == 0 {
                due = Some((rule, met));
                break;
            }
            rule.after -= 1;
        }
        let (rule, met) = due?;
        *met += 1;
        rule.times = rule.times.saturating_sub(u32::from(rule.times != u32::MAX));
        tracing::info!(?op, path = %path.display(), error = ?rule.error, "the disk fails");
        let half_done = self.rng.chance_ppm(500_000);
        Some(match rule.error {
            // Where there is no room, nothing is written.
            Some(error) => Met { error: error.as_io(), half_done: error == DiskError::Eio && half_done && op_is_partial(op) },
            None => {
                self.dying = true;
                Met { error: io::Error::other("the process is being killed"), half_done }
            }
        })
    }

    pub(super) fn spoil(&mut self, path: &Path, at: u64) {
        self.unreadable.insert((path.to_owned(), at / SECTOR_BYTES));
    }

    pub(super) fn spoil_tail(&mut self) {
        if let Some((path, range)) = self.last_journaled.clone() {
            tracing::info!(path = %path.display(), ?range, "cannot be read");
            self.spoil(&path, range.start);
        }
    }

    pub(super) fn heal_sectors(&mut self) {
        self.unreadable.clear();
    }

    pub(super) fn readable(&self, path: &Path, range: Range<u64>) -> io::Result<()> {
        if self.unreadable.is_empty() {
            return Ok(());
        }
        let sectors = range.start / SECTOR_BYTES..range.end.div_ceil(SECTOR_BYTES);
        let bad = self.unreadable.range((path.to_owned(), sectors.start)..(path.to_owned(), sectors.end)).next();
        bad.map_or(Ok(()), |_| Err(DiskError::Eio.as_io()))
    }

    /// A sector that is written can be read again.
    pub(super) fn written(&mut self, path: &Path, range: Range<u64>) {
        if Place::Journal.holds(path) {
            self.last_journaled = Some((path.to_owned(), range.clone()));
        }
        if !self.unreadable.is_empty() {
            let sectors = range.start / SECTOR_BYTES..range.end.div_ceil(SECTOR_BYTES);
            self.unreadable.retain(|(bad, sector)| bad != path || !sectors.contains(sector));
        }
    }

    pub(super) fn renamed(&mut self, from: &Path, to: &Path) {
        let moved = |path: &Path| match path.strip_prefix(from) {
            Ok(rest) if rest.as_os_str().is_empty() => to.to_owned(),
            Ok(rest) => to.join(rest),
            Err(_) => path.to_owned(),
        };
        self.unreadable = std::mem::take(&mut self.unreadable).into_iter().map(|(path, at)| (moved(&path), at)).collect();
    }

    pub(super) fn removed(&mut self, path: &Path) {
        self.unreadable.retain(|(bad, _)| bad != path);
    }
}

/// Whether the part of an operation that fails may have happened.
fn op_is_partial(op: Op) -> bool {
    matches!(op, Op::Write | Op::Sync)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(rule: Rule) -> Rules {
        let mut rules = Rules::new(Rng::new(1));
        rules.add(rule);
        rules
    }

    #[test]
    fn a_rule_meets_what_it_names_and_only_as_often_as_it_says() {
        let rule = Rule { op: Op::Read, place: Place::Segments, error: Some(DiskError::Eio), after: 1, times: 2 };
        let mut rules = rules(rule);
        let (segment, journal) = (Path::new("/n1/groups/1-1/7.segment"), Path::new("/n1/journal/1"));
        assert!(rules.meet(Op::Read, journal).is_none());
        assert!(rules.meet(Op::Write, segment).is_none());
        let met: Vec<bool> = (0..4).map(|_| rules.meet(Op::Read, segment).is_some()).collect();
        assert_eq!(met, [false, true, true, false]);
        assert_eq!(rules.lift(1), 2);
    }

    #[test]
    fn who_dies_in_an_operation_does_nothing_any_more() {
        let mut rules = rules(Rule { op: Op::Remove, place: Place::Anywhere, error: None, after: 0, times: 1 });
        assert!(rules.meet(Op::Remove, Path::new("a")).is_some());
        assert!(rules.dying && rules.meet(Op::Read, Path::new("a")).is_some());
    }

    #[test]
    fn a_sector_that_cannot_be_read_can_be_once_it_was_written() {
        let mut rules = Rules::new(Rng::new(1));
        let path = Path::new("a");
        rules.spoil(path, 5_000);
        assert!(rules.readable(path, 0..4_096).is_ok());
        assert!(rules.readable(path, 4_000..4_200).is_err());
        rules.renamed(path, Path::new("b"));
        assert!(rules.readable(path, 4_000..4_200).is_ok());
        rules.written(Path::new("b"), 4_096..8_192);
        assert!(rules.readable(Path::new("b"), 4_000..4_200).is_ok());
    }
}
