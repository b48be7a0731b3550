//! What to think of a storage error: the one place that tells damage, a full disk, what is final and what passes apart.
//!
//! | class | what | what follows |
//! |---|---|---|
//! | [`Class::Damage`] | what was *read* and is wrong, or stays unreadable over [`ATTEMPTS`] | this group (or file) heals from its peers |
//! | [`Class::Full`] | no space, or no quota | wait, and go on |
//! | [`Class::Final`] | a failed write or sync, and whatever else leaves open what is on the disk | nothing is acknowledged until storage is opened again from the disk |
//! | [`Class::Passing`] | too few descriptors or too little memory, an interruption, a first unreadable read | tried again, with pauses |
//!
//! **An error is never an absence**: that something is not there is said by a directory or by a file that was read.
//!
//! Both disks name each operation that failed by a [`DiskError`] inside the [`io::Error`], [`PatientDisk`](super::patient) tries
//! again what passes, and [`Class::of`] finds it below whatever was wrapped around it. So call sites ask for the class, and
//! look at no error code.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::segments::SegmentError;
use crate::state::StateError;

/// How often an operation is tried that fails for what may pass, before its error is believed.
pub const ATTEMPTS: u32 = 6;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Read, and wrong; or unreadable, again and again.
    Damage,
    /// No space.
    Full,
    /// What is on the disk is unknown until it is opened again.
    Final,
    /// Likely to be over soon.
    Passing,
}

/// What a disk is asked to do: the operations of [`Disk`](super::Disk) and [`DiskFile`](super::DiskFile).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// Open a file that is there.
    Open,
    /// Open a file, and create it if it is missing.
    Create,
    /// Read from a file.
    Read,
    /// Tell a file's length.
    Length,
    /// List a directory.
    List,
    /// Write to a file.
    Write,
    /// Cut or extend a file.
    SetLength,
    /// Reserve blocks for a file.
    Allocate,
    /// Make a file's content durable.
    Sync,
    /// Make the names in a directory durable.
    SyncDir,
    /// Rename a file or directory.
    Rename,
    /// Remove a file.
    Remove,
    /// Remove a directory and what is in it.
    RemoveDir,
    /// Create a directory and its parents.
    CreateDir,
}

/// An operation that failed. It is inside the [`io::Error`]s of a disk, whose kind is that of `source`.
#[derive(Debug)]
pub struct DiskError {
    /// What was asked for.
    pub operation: Operation,
    /// Of which file or directory.
    pub path: PathBuf,
    /// How often it was tried.
    pub attempts: u32,
    /// The system's answer.
    pub source: io::Error,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Open,
        Self::Create,
        Self::Read,
        Self::Length,
        Self::List,
        Self::Write,
        Self::SetLength,
        Self::Allocate,
        Self::Sync,
        Self::SyncDir,
        Self::Rename,
        Self::Remove,
        Self::RemoveDir,
        Self::CreateDir,
    ];

    /// Changes nothing.
    fn reads(self) -> bool {
        matches!(self, Self::Open | Self::Read | Self::Length | Self::List)
    }

    /// After an error nobody knows what the file or directory holds on the device: trying again may say that all is well.
    fn leaves_content_open(self) -> bool {
        matches!(self, Self::Write | Self::SetLength | Self::Allocate | Self::Sync | Self::SyncDir)
    }

    fn in_words(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Create => "create",
            Self::Read => "read",
            Self::Length => "tell the length of",
            Self::List => "list",
            Self::Write => "write",
            Self::SetLength => "set the length of",
            Self::Allocate => "reserve blocks for",
            Self::Sync => "sync",
            Self::SyncDir => "sync the directory",
            Self::Rename => "rename",
            Self::Remove => "remove",
            Self::RemoveDir => "remove the directory",
            Self::CreateDir => "create the directory",
        }
    }
}

impl DiskError {
    /// The same error as `source`, which says now what failed.
    pub(super) fn wrap(operation: Operation, path: &Path, source: io::Error) -> io::Error {
        io::Error::new(source.kind(), Self { operation, path: path.to_owned(), attempts: 1, source })
    }

    /// The one inside `error`, if there is one.
    pub(super) fn inside_mut(error: &mut io::Error) -> Option<&mut Self> {
        error.get_mut()?.downcast_mut()
    }

    /// Whether the operation may be tried again, and another result be believed.
    pub(super) fn may_pass(&self) -> bool {
        match code(&self.source) {
            Some(Errno::INTR) => true,
            Some(Errno::MFILE | Errno::NFILE) => true,
            Some(Errno::NOMEM | Errno::AGAIN | Errno::IO) => !self.operation.leaves_content_open(),
            _ => false,
        }
    }
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operation, path, attempts, source } = self;
        write!(f, "cannot {} {}: {source}", operation.in_words(), path.display())?;
        if *attempts > 1 { write!(f, " ({attempts} attempts)") } else { Ok(()) }
    }
}

impl Error for DiskError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.source)
    }
}

/// What is to be known of an error, found below whatever was wrapped around it.
#[derive(Debug, Default, Clone, Copy)]
struct Facts<'a> {
    /// Somebody has said already that it is damage.
    is_damage: bool,
    failed: Option<&'a DiskError>,
    code: Option<Errno>,
}

impl<'a> Facts<'a> {
    fn of(error: &'a (dyn Error + 'static)) -> Self {
        let mut facts = Self::default();
        let mut next = Some(error);
        while let Some(error) = next {
            let mut inner = error.source();
            if let Some(error) = error.downcast_ref::<io::Error>() {
                facts.code = facts.code.or(code(error));
                facts.is_damage |= matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof);
                // The source of an io::Error is that of the error inside, not the error inside.
                inner = error.get_ref().map(|inside| inside as &(dyn Error + 'static));
            } else if let Some(failed) = error.downcast_ref::<DiskError>() {
                facts.failed = Some(failed);
            } else if let Some(error) = error.downcast_ref::<SegmentError>() {
                facts.is_damage |= matches!(error, SegmentError::Damaged(_));
            } else if let Some(error) = error.downcast_ref::<StateError>() {
                facts.is_damage |= matches!(error, StateError::Damaged { .. });
                if let StateError::Failed { reason, .. } = error {
                    facts.code = facts.code.or_else(|| code_in_words(reason));
                }
            }
            next = inner;
        }
        facts
    }
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Damage, Self::Full, Self::Final, Self::Passing];

    /// The class of an error that some operation on storage has met.
    #[must_use]
    pub fn of(error: &(dyn Error + 'static)) -> Self {
        let facts = Facts::of(error);
        if facts.is_damage {
            return Self::Damage;
        }
        let operation = facts.failed.map(|failed| failed.operation);
        let synced = matches!(operation, Some(Operation::Sync | Operation::SyncDir));
        match facts.code {
            // What was written before may be gone.
            Some(Errno::NOSPC | Errno::DQUOT) if !synced => Self::Full,
            Some(Errno::INTR | Errno::MFILE | Errno::NFILE) => Self::Passing,
            Some(Errno::IO) if facts.failed.is_some_and(|failed| failed.attempts >= ATTEMPTS && failed.operation.reads()) => {
                Self::Damage
            }
            _ if facts.failed.is_some_and(DiskError::may_pass)
                && facts.failed.is_some_and(|failed| failed.attempts < ATTEMPTS) =>
            {
                Self::Passing
            }
            Some(Errno::NOMEM | Errno::AGAIN) if operation.is_none_or(|operation| !operation.leaves_content_open()) => {
                Self::Passing
            }
            // What cannot be read or removed for another reason (rights, a disk that is not mounted) is as it was.
            _ if operation
                .is_some_and(|operation| operation.reads() || matches!(operation, Operation::Remove | Operation::RemoveDir)) =>
            {
                Self::Passing
            }
            _ => Self::Final,
        }
    }

    /// Whether it is to be tried again later, with nothing else lost meanwhile.
    #[must_use]
    pub fn waits(self) -> bool {
        matches!(self, Self::Full | Self::Passing)
    }

    /// One word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Damage => "damage",
            Self::Full => "full",
            Self::Final => "final",
            Self::Passing => "passing",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What an operator can do about an error.
#[must_use]
pub fn advice(error: &(dyn Error + 'static)) -> &'static str {
    advice_on(Facts::of(error).code)
}

/// The same where only words are left of an error.
pub(crate) fn advice_in_words(text: &str) -> &'static str {
    advice_on(code_in_words(text))
}

fn advice_on(code: Option<Errno>) -> &'static str {
    match code {
        Some(Errno::NOSPC) => "free space on this disk, or give it more",
        Some(Errno::DQUOT) => "free space, or raise the disk quota of the user that flotilla runs as",
        Some(Errno::MFILE) => "raise the limit of open files of this process (ulimit -n; LimitNOFILE= in a systemd unit)",
        Some(Errno::NFILE) => "raise the machine's limit of open files (fs.file-max), or stop what opens so many",
        Some(Errno::NOMEM | Errno::AGAIN) => "free memory on this machine, or raise the limits of this process",
        Some(Errno::ACCESS | Errno::PERM) => "give the user that flotilla runs as the right to read and write it",
        Some(Errno::ROFS) => {
            "its file system is read-only: the kernel's log (dmesg) says why; repair it and mount it for writing"
        }
        Some(Errno::NOENT | Errno::NOTDIR | Errno::NODEV | Errno::NXIO) => "see whether its disk is mounted",
        Some(Errno::IO) => "the device reports errors: see the kernel's log (dmesg), and replace the disk if they stay",
        _ => "see to the disk; the kernel's log (dmesg) may say more",
    }
}

/// The file or directory that an error is about, if it says so.
#[must_use]
pub fn path_of<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Path> {
    Facts::of(error).failed.map(|failed| failed.path.as_path())
}

fn code(error: &io::Error) -> Option<Errno> {
    let from_kind = || match error.kind() {
        io::ErrorKind::StorageFull => Some(Errno::NOSPC),
        io::ErrorKind::QuotaExceeded => Some(Errno::DQUOT),
        io::ErrorKind::Interrupted => Some(Errno::INTR),
        io::ErrorKind::OutOfMemory => Some(Errno::NOMEM),
        _ => None,
    };
    error.raw_os_error().map(Errno::from_raw_os_error).or_else(from_kind)
}

/// RocksDB hands on the system's words, not its codes.
fn code_in_words(text: &str) -> Option<Errno> {
    const WORDS: [(&str, Errno); 11] = [
        ("No space left on device", Errno::NOSPC),
        ("Disk quota exceeded", Errno::DQUOT),
        ("Too many open files in system", Errno::NFILE),
        ("Too many open files", Errno::MFILE),
        ("Interrupted system call", Errno::INTR),
        ("Cannot allocate memory", Errno::NOMEM),
        ("Resource temporarily unavailable", Errno::AGAIN),
        ("Input/output error", Errno::IO),
        ("Permission denied", Errno::ACCESS),
        ("Read-only file system", Errno::ROFS),
        ("No such file or directory", Errno::NOENT),
    ];
    WORDS.iter().find(|(words, _)| text.contains(words)).map(|(_, code)| *code)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;

    fn failed(operation: Operation, code: Errno, attempts: u32) -> io::Error {
        let mut error = DiskError::wrap(operation, Path::new("/d/f"), io::Error::from_raw_os_error(code.raw_os_error()));
        DiskError::inside_mut(&mut error).unwrap().attempts = attempts;
        error
    }

    #[test]
    fn each_error_has_its_class_whatever_is_wrapped_around_it() {
        use Operation::*;
        for (operation, code, attempts, class) in [
            (Read, Errno::IO, 1, Class::Passing),
            (Read, Errno::IO, ATTEMPTS, Class::Damage),
            (Open, Errno::IO, ATTEMPTS, Class::Damage),
            (Open, Errno::MFILE, ATTEMPTS, Class::Passing),
            (Open, Errno::ACCESS, 1, Class::Passing),
            (Read, Errno::NOMEM, ATTEMPTS, Class::Passing),
            (Create, Errno::NOSPC, 1, Class::Full),
            (Write, Errno::DQUOT, 1, Class::Full),
            (Write, Errno::IO, 1, Class::Final),
            (Write, Errno::INTR, ATTEMPTS, Class::Passing),
            (Sync, Errno::IO, 1, Class::Final),
            (Sync, Errno::NOSPC, 1, Class::Final),
            (Sync, Errno::NOMEM, 1, Class::Final),
            (SyncDir, Errno::MFILE, ATTEMPTS, Class::Passing),
            (SyncDir, Errno::IO, 1, Class::Final),
            (Create, Errno::IO, 1, Class::Passing),
            (Create, Errno::IO, ATTEMPTS, Class::Final),
            (Create, Errno::ROFS, 1, Class::Final),
            (Remove, Errno::IO, ATTEMPTS, Class::Passing),
        ] {
            let error = failed(operation, code, attempts);
            assert_eq!(Class::of(&error), class, "{operation:?} {code:?} after {attempts}");
            let segment = SegmentError::Io { operation: "testing", path: "/d/f".into(), source: error };
            let wrapped = io::Error::other(segment);
            assert_eq!(Class::of(&wrapped), class, "wrapped: {operation:?} {code:?} after {attempts}");
            assert_eq!(path_of(&wrapped), Some(Path::new("/d/f")));
        }
        assert_eq!(Class::of(&io::Error::other("the journal stopped")), Class::Final);
        assert_eq!(Class::of(&io::Error::from(io::ErrorKind::UnexpectedEof)), Class::Damage);
    }

    #[test]
    fn what_rocksdb_says_in_words_is_understood() {
        let failed = |reason: &str| StateError::Failed { dir: "/d".into(), reason: reason.into() };
        let full = failed("IO error: No space left on device: While appending to file: /d/000012.sst");
        assert_eq!(Class::of(&full), Class::Full);
        let many = failed("IO error: While open a file for random read: /d/000012.sst: Too many open files");
        assert_eq!(Class::of(&io::Error::other(many)), Class::Passing);
        assert!(advice(&failed("IO error: Too many open files")).contains("ulimit"));
        assert_eq!(Class::of(&failed("IO error: Input/output error")), Class::Final);
        assert_eq!(Class::of(&StateError::Damaged { dir: "/d".into(), reason: "bad block".into() }), Class::Damage);
    }
}
