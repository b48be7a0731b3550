//! What is wrong with this node's storage and groups *now*: one list, from which health, metrics and the log speak.
//!
//! A [`Subject`] (the journal, the segments of a group, …) has at most one [`Trouble`]. Whoever does something for a subject
//! says how it went: [`Troubles::raise`] when it failed, [`Troubles::clear`] when it worked ([`Troubles::note`] does either).
//! Said again, nothing happens. The log hears of a trouble once for each class in which a subject has it, and of its end.
//!
//! What is over when storage is opened again from the disk is over here, too: the list is the registry's, and begins empty.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;
use tokio::time::Instant;

use crate::disk::error::{Class, advice, path_of};
use crate::types::GroupId;

/// What has a trouble. The order is that in which they are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// The disk: too little of it is free.
    Space,
    /// The journal: it cannot get a file to write to.
    Journal,
    /// The rows of all groups.
    Rows,
    /// The node's time of day.
    Clock,
    /// A group: it does not run, or a part of its data is damaged.
    Group(GroupId),
    /// The replicas of a group: they contradict each other.
    Replicas(GroupId),
    /// Writing what a group has applied into its segments.
    Segments(GroupId),
    /// Removing what retention gave up of a group.
    Retention(GroupId),
    /// Deleting a group that was removed from this node.
    Deletion(GroupId),
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// What is in trouble.
    pub subject: Subject,
    /// Of which class.
    pub class: Class,
    /// The file or directory, if it is about one.
    pub file: Option<PathBuf>,
    /// What is wrong, and what to do about it.
    pub message: String,
    /// Since when the subject has been in trouble.
    pub since: Instant,
}

/// The list. Cheap to clone: all clones are the same list.
#[derive(Debug, Clone)]
pub struct Troubles {
    now: watch::Sender<BTreeMap<Subject, Trouble>>,
    counted: Arc<[AtomicU64; Class::ALL.len()]>,
}

/// How many storage errors there were since storage was opened, for metrics: one for each time that a subject got into
/// trouble of this class, and one for each that passed when it was tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TroubleFigures {
    counted: [u64; Class::ALL.len()],
    /// Subjects that are in trouble now.
    pub now: usize,
}

impl Subject {
    /// Whose trouble it is, if it is one group's.
    #[must_use]
    pub fn group(self) -> Option<GroupId> {
        match self {
            Self::Space | Self::Journal | Self::Rows | Self::Clock => None,
            Self::Group(group)
            | Self::Replicas(group)
            | Self::Segments(group)
            | Self::Retention(group)
            | Self::Deletion(group) => Some(group),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Space => f.write_str("the disk's free space"),
            Self::Journal => f.write_str("the journal"),
            Self::Rows => f.write_str("the rows"),
            Self::Clock => f.write_str("the clock"),
            Self::Group(group) => write!(f, "group {group}"),
            Self::Replicas(group) => write!(f, "the replicas of group {group}"),
            Self::Segments(group) => write!(f, "the segments of group {group}"),
            Self::Retention(group) => write!(f, "retention of group {group}"),
            Self::Deletion(group) => write!(f, "the deletion of group {group}"),
        }
    }
}

impl Troubles {
    /// Nothing is wrong yet.
    #[must_use]
    pub fn new() -> Self {
        Self { now: watch::Sender::default(), counted: Arc::default() }
    }

    /// `subject` is in trouble. `message` says what is wrong and what to do.
    pub fn raise(&self, subject: Subject, class: Class, file: Option<&Path>, message: String) {
        self.now.send_if_modified(|now| {
            let before = now.get(&subject);
            let (known, since) = (before.map(|before| before.class), before.map_or_else(Instant::now, |before| before.since));
            let trouble = Trouble { subject, class, file: file.map(Path::to_owned), message, since };
            if known != Some(class) {
                let file = trouble.file.as_ref().map(|file| file.display().to_string());
                tracing::error!(%subject, %class, file, message = trouble.message, "trouble");
                self.count(class);
            }
            let changed = before != Some(&trouble);
            now.insert(subject, trouble);
            changed
        });
    }

    /// As [`Troubles::raise`], with the class, file and advice that the classifier has for `error`.
    pub fn raise_error(&self, subject: Subject, error: &(dyn Error + 'static)) {
        let (said, advice) = (error.to_string(), advice(error));
        let message = if said.contains(advice) { said } else { format!("{said}; {advice}") };
        self.raise(subject, Class::of(error), path_of(error), message);
    }

    /// `subject` is in no trouble (any more).
    pub fn clear(&self, subject: Subject) {
        if !self.now.borrow().contains_key(&subject) {
            return;
        }
        self.now.send_if_modified(|now| {
            let over = now.remove(&subject);
            if let Some(over) = &over {
                tracing::info!(%subject, class = %over.class, lasted = ?over.since.elapsed(), "trouble is over");
            }
            over.is_some()
        });
    }

    /// Whatever it was that a group had, it is over or the group is gone.
    pub fn clear_group(&self, group: GroupId) {
        let subjects: Vec<Subject> = self.now.borrow().keys().copied().filter(|subject| subject.group() == Some(group)).collect();
        subjects.into_iter().for_each(|subject| self.clear(subject));
    }

    /// How something went that was done for `subject`.
    pub fn note<T>(&self, subject: Subject, result: &io::Result<T>) {
        match result {
            Ok(_) => self.clear(subject),
            Err(error) => self.raise_error(subject, error),
        }
    }

    /// Counts an error that passed when it was tried again.
    pub(crate) fn passed(&self, error: &io::Error, attempts: u32) {
        self.count(Class::Passing);
        tracing::warn!(%error, attempts, "a storage error passed when it was tried again");
    }

    /// What is wrong now, in a stable order.
    #[must_use]
    pub fn now(&self) -> Vec<Trouble> {
        self.now.borrow().values().cloned().collect()
    }

    /// The trouble of one subject.
    #[must_use]
    pub fn of(&self, subject: Subject) -> Option<Trouble> {
        self.now.borrow().get(&subject).cloned()
    }

    /// Changes whenever the list does.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<BTreeMap<Subject, Trouble>> {
        self.now.subscribe()
    }

    /// See [`TroubleFigures`].
    #[must_use]
    pub fn figures(&self) -> TroubleFigures {
        let counted = std::array::from_fn(|class| self.counted.get(class).map_or(0, |count| count.load(Ordering::Relaxed)));
        TroubleFigures { counted, now: self.now.borrow().len() }
    }

    fn count(&self, class: Class) {
        if let Some(count) = self.counted.get(class as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl TroubleFigures {
    /// Errors of this class.
    #[must_use]
    pub fn counted(&self, class: Class) -> u64 {
        self.counted.get(class as usize).copied().unwrap_or(0)
    }
}

impl Default for Troubles {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;

    const RETENTION: Subject = Subject::Retention(GroupId(7));

    #[test]
    fn a_subject_has_one_trouble_until_it_is_over() {
        let troubles = Troubles::new();
        let mut watched = troubles.watch();
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        for _ in 0..3 {
            troubles.note(RETENTION, &Err::<(), _>(full()));
        }
        let first = troubles.of(RETENTION).unwrap();
        assert_eq!((first.class, troubles.now().len()), (Class::Full, 1));
        assert!(first.message.contains("free space"), "it says what to do: {}", first.message);
        troubles.raise(RETENTION, Class::Passing, None, "something else".into());
        assert_eq!(troubles.of(RETENTION).unwrap().since, first.since, "it has been in trouble all the time");
        troubles.raise(Subject::Segments(GroupId(7)), Class::Full, None, "no space".into());
        troubles.raise(Subject::Journal, Class::Full, None, "no space".into());
        assert_eq!(troubles.now()[0].subject, Subject::Journal);
        let figures = troubles.figures();
        assert_eq!((figures.counted(Class::Full), figures.counted(Class::Passing), figures.now), (3, 1, 3), "once each");
        assert!(watched.has_changed().unwrap() && watched.borrow_and_update().len() == 3);
        troubles.clear(Subject::Group(GroupId(7)));
        assert!(!watched.has_changed().unwrap(), "it was not in trouble");
        troubles.clear_group(GroupId(7));
        assert_eq!(troubles.now().iter().map(|trouble| trouble.subject).collect::<Vec<_>>(), [Subject::Journal]);
        troubles.note(Subject::Journal, &Ok(()));
        assert!(troubles.now().is_empty() && watched.borrow().is_empty());
    }
}
