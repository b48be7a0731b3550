//! The node's data directory: who may use it, whose it is, and where things lie in it.
//!
//! ```text
//! LOCK      held (flock) by the process that uses the directory; holds its process id
//! META      what the directory is: seven lines of text, the last one a checksum of the others
//! journal/  groups/  state/
//! ```

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::disk::error::advice;
use crate::types::NodeId;

/// Layout of the data directory that this version writes. It reads those before it, too: they become this one when they are
/// opened. In layout 2 the journal knows replicas.
pub const LAYOUT_VERSION: u32 = 2;

const TITLE: &str = "flotilla data directory";
/// META is far shorter; more is not read.
const META_BYTES_MAX: u64 = 4096;
const JOURNAL: &str = "journal";
const DIRECTORIES: [&str; 3] = [JOURNAL, "groups", "state"];

/// A cluster's id: 16 random bytes, shown as a UUID.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClusterId(pub [u8; 16]);

/// What a data directory belongs to; fixed when it is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// The node within it.
    pub node_id: NodeId,
    /// The directory itself, as a UUID: tells a node that lost its data from the one that it was.
    pub directory_id: [u8; 16],
    /// When the directory was created, in milliseconds since the Unix epoch.
    pub created_at_ms: i64,
}

/// A data directory in use by this process, until it is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    identity: Identity,
    /// Open for as long as the lock on it is needed.
    _lock: File,
}

/// A directory that belongs to no cluster yet, locked by this process. Dropped, it stays so.
#[derive(Debug)]
pub struct FreshDir {
    path: PathBuf,
    lock: File,
}

/// What was found at a path.
#[derive(Debug)]
pub enum Found {
    /// A data directory with an identity.
    Ours(DataDir),
    /// Nothing of anybody's.
    Fresh(FreshDir),
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// The operating system refused.
    #[error("{operation} {path} failed: {source}; {}", advice(.source))]
    Io {
        /// What was being done.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// There is something else of that name.
    #[error("{path} is a file, not a directory; choose another --data-dir")]
    NotADirectory {
        /// The file.
        path: PathBuf,
    },
    /// Another process uses it.
    #[error("{path} is in use by {holder}; stop that process, or give this one another --data-dir")]
    Locked {
        /// The data directory.
        path: PathBuf,
        /// The process that holds the lock, in words.
        holder: String,
    },
    /// It holds files that are not Flotilla's.
    #[error("{path} is not empty and is no flotilla data directory (it holds {found}); choose an empty or a new directory")]
    NotOurs {
        /// The data directory.
        path: PathBuf,
        /// One of the files in it.
        found: String,
    },
    /// META is not what was written.
    #[error(
        "{file} is damaged: {reason}; restore this one file from a backup, or, if the node has peers, remove it from the cluster \
         (flotilla node remove) and start a new one with an empty directory and another --node-id. Nothing was changed"
    )]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// META is there, the journal is not.
    #[error(
        "{path} is missing, and without it the node does not know what it promised; put it back if it was moved, or, \
         if the node has peers, remove it from the cluster (flotilla node remove) and start a new one with an empty directory and \
         another --node-id. Nothing was changed"
    )]
    JournalGone {
        /// Where the journal should be.
        path: PathBuf,
    },
    /// A newer version of Flotilla wrote it.
    #[error("{path} has layout version {found}, and this version of flotilla reads up to {LAYOUT_VERSION}; install a newer one")]
    NewerLayout {
        /// The data directory.
        path: PathBuf,
        /// Its layout version.
        found: u32,
    },
    /// It belongs to another cluster.
    #[error("{path} belongs to cluster {found}, not to {expected}; check --data-dir and the seed list")]
    ForeignCluster {
        /// The data directory.
        path: PathBuf,
        /// The cluster it belongs to.
        found: ClusterId,
        /// The cluster it should belong to.
        expected: ClusterId,
    },
}

impl DataDir {
    /// Locks the data directory `path` and reads whose it is. If it is missing or empty, creates it with the identity
    /// that `fresh` makes up.
    ///
    /// # Errors
    /// See [`DataDirError`]; nothing is changed then in a directory that existed.
    pub fn open(path: &Path, fresh: impl FnOnce() -> Identity) -> Result<DataDir, DataDirError> {
        match Self::find(path)? {
            Found::Ours(data_dir) => Ok(data_dir),
            Found::Fresh(directory) => directory.claim(fresh()),
        }
    }

    /// Locks the directory `path`, created if it is missing, and reads whose it is, if it is anybody's.
    ///
    /// # Errors
    /// See [`DataDirError`]; nothing is changed then in a directory that existed.
    pub fn find(path: &Path) -> Result<Found, DataDirError> {
        if metadata(path)?.is_some_and(|found| !found.is_dir()) {
            return Err(DataDirError::NotADirectory { path: path.to_owned() });
        }
        fs::create_dir_all(path).map_err(failed("creating the directory", path))?;
        check_ours(path)?;
        let lock = lock(path)?;
        let meta = path.join("META");
        if metadata(&meta)?.is_none() {
            return Ok(Found::Fresh(FreshDir { path: path.to_owned(), lock }));
        }
        let (layout, identity) = read_meta(path)?;
        // Where META is, it was: a node that goes on without what it promised could break it.
        if !metadata(&path.join(JOURNAL))?.is_some_and(|found| found.is_dir()) {
            return Err(DataDirError::JournalGone { path: path.join(JOURNAL) });
        }
        create_directories(path)?;
        if layout < LAYOUT_VERSION {
            // First: an older version would take what is written from now on for damage.
            begin_meta(path, &identity)?;
            finish_meta(path)?;
        }
        Ok(Found::Ours(DataDir { path: path.to_owned(), identity, _lock: lock }))
    }

    /// Whose it is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Refuses the directory of another cluster than `expected`.
    ///
    /// # Errors
    /// [`DataDirError::ForeignCluster`].
    pub fn expect_cluster(&self, expected: ClusterId) -> Result<(), DataDirError> {
        let found = self.identity.cluster_id;
        if found == expected {
            return Ok(());
        }
        Err(DataDirError::ForeignCluster { path: self.path.clone(), found, expected })
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the journal lies.
    #[must_use]
    pub fn journal_dir(&self) -> PathBuf {
        self.path.join(JOURNAL)
    }

    /// Where the groups' segments lie.
    #[must_use]
    pub fn groups_dir(&self) -> PathBuf {
        self.path.join("groups")
    }

    /// Where the state lies.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.path.join("state")
    }
}

impl FreshDir {
    /// Makes it a data directory, durably.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn claim(self, identity: Identity) -> Result<DataDir, DataDirError> {
        begin_meta(&self.path, &identity)?;
        // META comes last: where it is, the journal is, and where only META.tmp is, nothing was begun.
        create_directories(&self.path)?;
        finish_meta(&self.path)?;
        Ok(DataDir { path: self.path, identity, _lock: self.lock })
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, byte) in self.0.iter().enumerate() {
            let dash = if matches!(place, 4 | 6 | 8 | 10) { "-" } else { "" };
            write!(f, "{dash}{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for ClusterId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<ClusterId, &'static str> {
        let digits = text.replace('-', "");
        let number = u128::from_str_radix(&digits, 16).map_err(|_| "an id is not a UUID")?;
        let id = ClusterId(number.to_be_bytes());
        if id.to_string() == text { Ok(id) } else { Err("an id is not a UUID") }
    }
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DataDirError {
    move |source| DataDirError::Io { operation, path: path.to_owned(), source }
}

/// What there is at a path; `None` only if there is nothing.
fn metadata(path: &Path) -> Result<Option<fs::Metadata>, DataDirError> {
    match fs::metadata(path) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("reading", path)(error)),
    }
}

/// Refuses a directory without META that holds anything else than a first start may have left behind.
fn check_ours(path: &Path) -> Result<(), DataDirError> {
    let io_failed = || failed("listing", path);
    let entries = fs::read_dir(path).map_err(io_failed())?;
    let names = entries.map(|entry| entry.map(|entry| entry.file_name())).collect::<io::Result<Vec<_>>>();
    let names = names.map_err(io_failed())?;
    let has = |name: &str| names.iter().any(|found| found == OsStr::new(name));
    if has("META") {
        return Ok(());
    }
    if DIRECTORIES.iter().any(|name| has(name)) && has("LOCK") && !has("META.tmp") {
        return Err(DataDirError::Damaged { file: path.join("META"), reason: "the file is missing".to_owned() });
    }
    // An ext4 file system of its own brings lost+found.
    let begun: &[&str] = if has("META.tmp") { &DIRECTORIES } else { &[] };
    let allowed = |name: &OsStr| ["LOCK", "META.tmp", "lost+found"].iter().chain(begun).any(|allowed| name == *allowed);
    match names.iter().find(|name| !allowed(name)) {
        Some(found) => Err(DataDirError::NotOurs { path: path.to_owned(), found: found.to_string_lossy().into_owned() }),
        None => Ok(()),
    }
}

fn lock(path: &Path) -> Result<File, DataDirError> {
    let file_path = path.join("LOCK");
    let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&file_path);
    let mut file = options.map_err(failed("opening", &file_path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut pid = String::new();
            let read = file.take(32).read_to_string(&mut pid);
            let pid = read.ok().and_then(|_| pid.trim().parse::<u32>().ok());
            let holder = pid.map_or("another process".to_owned(), |pid| format!("process {pid}"));
            return Err(DataDirError::Locked { path: path.to_owned(), holder });
        }
        Err(error) => return Err(failed("locking", &file_path)(error.into())),
    }
    let note = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    note.map_err(failed("writing", &file_path))?;
    Ok(file)
}

fn meta_text(identity: &Identity) -> String {
    let Identity { cluster_id, node_id, directory_id, created_at_ms } = identity;
    let directory = ClusterId(*directory_id);
    let lines = format!(
        "{TITLE}\nlayout {LAYOUT_VERSION}\ncluster {cluster_id}\nnode {node_id}\ndirectory {directory}\ncreated {created_at_ms}\n"
    );
    format!("{lines}crc32c {:08x}\n", crc32c::crc32c(lines.as_bytes()))
}

fn begin_meta(path: &Path, identity: &Identity) -> Result<(), DataDirError> {
    let temporary = path.join("META.tmp");
    write_synced(&temporary, &meta_text(identity)).map_err(failed("writing", &temporary))
}

fn finish_meta(path: &Path) -> Result<(), DataDirError> {
    let meta = path.join("META");
    put_in_place(&path.join("META.tmp"), &meta).map_err(failed("writing", &meta))
}

fn create_directories(path: &Path) -> Result<(), DataDirError> {
    for directory in DIRECTORIES.map(|name| path.join(name)) {
        fs::create_dir_all(&directory).map_err(failed("creating the directory", &directory))?;
    }
    sync_dir(path).map_err(failed("syncing", path))
}

fn write_synced(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn put_in_place(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    let directory = to.canonicalize()?;
    directory.ancestors().skip(1).take(2).try_for_each(sync_dir)
}

fn read_meta(path: &Path) -> Result<(u32, Identity), DataDirError> {
    let file_path = path.join("META");
    let mut bytes = Vec::new();
    let file = File::open(&file_path).map_err(failed("opening", &file_path))?;
    file.take(META_BYTES_MAX).read_to_end(&mut bytes).map_err(failed("reading", &file_path))?;
    let (layout, identity) = match parse_meta(&bytes) {
        Ok(parsed) => parsed,
        Err(reason) => return Err(DataDirError::Damaged { file: file_path, reason: reason.to_owned() }),
    };
    match identity {
        Some(identity) => Ok((layout, identity)),
        None => Err(DataDirError::NewerLayout { path: path.to_owned(), found: layout }),
    }
}

/// Layout version and, if it is ours, the identity. A newer layout keeps title, layout line and checksum.
fn parse_meta(bytes: &[u8]) -> Result<(u32, Option<Identity>), &'static str> {
    let text = str::from_utf8(bytes).map_err(|_| "it is not text")?;
    let at = text.rfind("crc32c ").ok_or("its checksum is missing")?;
    let (lines, checksum) = text.split_at_checked(at).ok_or("its checksum is missing")?;
    if checksum != format!("crc32c {:08x}\n", crc32c::crc32c(lines.as_bytes())) {
        return Err("it does not match its checksum");
    }
    let mut lines = lines.lines();
    let mut field = |name: &str| {
        let line = lines.next().and_then(|line| line.strip_prefix(name));
        line.map(|value| value.trim_start_matches(' ')).ok_or("a line is missing")
    };
    field(TITLE)?;
    let layout = field("layout")?.parse::<u32>().map_err(|_| "its layout version is not a number")?;
    if layout > LAYOUT_VERSION {
        return Ok((layout, None));
    }
    let cluster_id = field("cluster")?.parse()?;
    let node_id = field("node")?.parse().map_err(|_| "its node id is not a number")?;
    let ClusterId(directory_id) = field("directory")?.parse()?;
    let created_at_ms = field("created")?.parse().map_err(|_| "its creation time is not a number")?;
    Ok((layout, Some(Identity { cluster_id, node_id, directory_id, created_at_ms })))
}

fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests;
