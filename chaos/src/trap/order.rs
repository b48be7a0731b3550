//! What is to be done at which call, and what was counted: a pure machine that is told of one call after the other.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How often each call met each kind of file.
pub type Census = BTreeMap<(&'static str, String), u64>;

/// What happens at a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Harm {
    /// It fails.
    Error(Errno),
    /// It fails, and so does every later call of that name on that file: a sector that stays unreadable.
    Lasting(Errno),
    /// It reads or writes half of the bytes.
    Short,
    /// The process is killed before it happens.
    Kill,
}

/// The errors that are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Errno {
    /// The device failed.
    Eio,
    /// It is full.
    Enospc,
    /// The quota is used up.
    Edquot,
    /// Too many files are open.
    Emfile,
    /// A signal came first.
    Eintr,
}

impl Errno {
    const ALL: [(Self, &'static str, i32); 5] = [
        (Self::Eio, "EIO", libc::EIO),
        (Self::Enospc, "ENOSPC", libc::ENOSPC),
        (Self::Edquot, "EDQUOT", libc::EDQUOT),
        (Self::Emfile, "EMFILE", libc::EMFILE),
        (Self::Eintr, "EINTR", libc::EINTR),
    ];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(errno, ..)| *errno == self).map_or("", |(_, name, _)| name)
    }

    fn number(self) -> i32 {
        Self::ALL.iter().find(|(errno, ..)| *errno == self).map_or(libc::EIO, |(.., number)| *number)
    }
}

impl fmt::Display for Harm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(errno) => f.write_str(errno.name()),
            Self::Lasting(errno) => write!(f, "{}-for-good", errno.name()),
            Self::Short => f.write_str("short"),
            Self::Kill => f.write_str("kill"),
        }
    }
}

impl FromStr for Harm {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let errno = |name: &str| Errno::ALL.iter().find(|(_, known, _)| *known == name).map(|(errno, ..)| *errno);
        let harm = match text {
            "short" => Some(Self::Short),
            "kill" => Some(Self::Kill),
            text => match text.strip_suffix("-for-good") {
                Some(name) => errno(name).map(Self::Lasting),
                None => errno(text).map(Self::Error),
            },
        };
        harm.ok_or_else(|| format!("{text:?} is no error that can be made"))
    }
}

/// One harm at one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The call, as a census names it.
    pub call: String,
    /// The kind of file, as a census names it.
    pub kind: String,
    /// At which of these calls, from 1, counted from the step before.
    pub nth: u64,
    /// What happens.
    pub harm: Harm,
}

/// A step that was carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fired {
    /// Which.
    pub step: Step,
    /// The file, below the watched directory.
    pub path: PathBuf,
}

/// What the watcher does at a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    Error(i32),
    Short,
    Kill,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Orders {
    steps: VecDeque<Step>,
    census: Census,
    fired: Vec<Fired>,
    lasting: Vec<(&'static str, PathBuf, Errno)>,
}

impl Orders {
    pub fn new(steps: Vec<Step>) -> Self {
        Self { steps: steps.into(), ..Self::default() }
    }

    /// Counts a call; what is to be done, if anything.
    pub fn decide(&mut self, call: &'static str, kind: &str, path: &Path) -> Option<Deed> {
        if let Some((.., errno)) = self.lasting.iter().find(|(name, file, _)| *name == call && file == path) {
            return Some(Deed::Error(errno.number()));
        }
        let count = match self.census.get_mut(&(call, kind.to_owned())) {
            Some(count) => count,
            None => self.census.entry((call, kind.to_owned())).or_default(),
        };
        *count += 1;
        let count = *count;
        let is_due = |step: &Step| step.call == call && step.kind == kind && step.nth <= count;
        if !self.steps.front().is_some_and(is_due) {
            return None;
        }
        let step = self.steps.pop_front()?;
        let deed = match step.harm {
            Harm::Error(errno) => Deed::Error(errno.number()),
            Harm::Lasting(errno) => {
                self.lasting.push((call, path.to_owned(), errno));
                Deed::Error(errno.number())
            }
            Harm::Short => Deed::Short,
            Harm::Kill => Deed::Kill,
        };
        self.fired.push(Fired { step, path: path.to_owned() });
        self.census.clear();
        Some(deed)
    }

    /// What was decided last could not be done: the next call that fits will do.
    pub fn take_back(&mut self) {
        if let Some(Fired { step, .. }) = self.fired.pop() {
            self.steps.push_front(Step { nth: 1, ..step });
        }
    }

    pub fn fired(&self) -> &[Fired] {
        &self.fired
    }

    pub fn census(&self) -> &Census {
        &self.census
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    fn step(call: &str, nth: u64, harm: &str) -> Step {
        Step { call: call.to_owned(), kind: "f#".to_owned(), nth, harm: harm.parse().unwrap() }
    }

    #[test]
    fn each_step_waits_for_the_one_before_and_counts_from_there() {
        let mut orders = Orders::new(vec![step("read", 2, "EIO"), step("fsync", 1, "kill"), step("write", 1, "short")]);
        let mut told = |call| orders.decide(call, "f#", Path::new("f1"));
        assert_eq!(told("fsync"), None, "its turn has not come");
        assert_eq!(told("read"), None);
        assert_eq!(told("read"), Some(Deed::Error(libc::EIO)));
        assert_eq!(told("read"), None, "once");
        assert_eq!(told("fsync"), Some(Deed::Kill));
        assert_eq!(orders.decide("write", "other", Path::new("other")), None);
        assert_eq!(orders.decide("write", "f#", Path::new("f2")), Some(Deed::Short));
        assert_eq!(orders.fired().len(), 3);
        assert_eq!(orders.fired()[2].path, Path::new("f2"));
        orders.take_back();
        assert_eq!(orders.decide("write", "f#", Path::new("f3")), Some(Deed::Short));
        assert!(orders.census().is_empty(), "counted from the last step");
    }

    #[test]
    fn an_unreadable_file_stays_it_and_others_are_not() {
        let mut orders = Orders::new(vec![step("read", 1, "EIO-for-good")]);
        assert_eq!(orders.decide("read", "f#", Path::new("f1")), Some(Deed::Error(libc::EIO)));
        assert_eq!(orders.decide("read", "f#", Path::new("f1")), Some(Deed::Error(libc::EIO)));
        assert_eq!(orders.decide("read", "f#", Path::new("f2")), None);
        assert_eq!(orders.decide("write", "f#", Path::new("f1")), None);
    }

    #[test]
    fn harms_read_as_they_are_written() {
        for text in ["EIO", "ENOSPC", "EDQUOT", "EMFILE", "EINTR", "EIO-for-good", "short", "kill"] {
            assert_eq!(text.parse::<Harm>().unwrap().to_string(), text);
        }
        assert!("EBADF".parse::<Harm>().is_err());
    }
}
