//! The system calls that are watched: those by which storage reaches the file system. Memory maps are not: a page that
//! cannot be read is a signal and no error, and storage maps no files.

use super::kernel::Notice;

/// A system call that is watched.
#[derive(Debug)]
pub struct Call {
    /// As the kernel's documentation has it.
    pub name: &'static str,
    /// Its number on this architecture.
    pub number: i64,
    /// What it does.
    pub class: Class,
    /// Which arguments say which file.
    pub(super) file: File,
}

/// What calls have in common: how they can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Opens a file that exists.
    Open,
    /// Creates a file.
    Create,
    /// Reads bytes.
    Read,
    /// Writes bytes.
    Write,
    /// Makes durable.
    Sync,
    /// Reserves room.
    Allocate,
    /// Sets the length.
    Truncate,
    /// Gives another name.
    Rename,
    /// Takes a name away, or a directory.
    Remove,
    /// Makes a directory.
    Mkdir,
    /// Lists a directory.
    List,
    /// Asks what there is.
    Stat,
}

impl Class {
    /// Whether it changes what is on the disk.
    #[must_use]
    pub fn changes(self) -> bool {
        !matches!(self, Self::Open | Self::Read | Self::List | Self::Stat)
    }
}

/// Which arguments say which file, by their places.
#[derive(Debug, Clone, Copy)]
pub(super) enum File {
    /// An open one.
    Fd(usize),
    /// A path.
    #[cfg(target_arch = "x86_64")]
    Path(usize),
    /// A path that begins at an open directory; empty: that itself.
    At(usize, usize),
}

const fn call(name: &'static str, number: i64, class: Class, file: File) -> Call {
    Call { name, number, class, file }
}

/// What all architectures have.
macro_rules! everywhere {
    ($($older:expr),* $(,)?) => {
        &[
            call("openat", libc::SYS_openat, Class::Open, File::At(0, 1)),
            call("read", libc::SYS_read, Class::Read, File::Fd(0)),
            call("readv", libc::SYS_readv, Class::Read, File::Fd(0)),
            call("pread64", libc::SYS_pread64, Class::Read, File::Fd(0)),
            call("preadv", libc::SYS_preadv, Class::Read, File::Fd(0)),
            call("write", libc::SYS_write, Class::Write, File::Fd(0)),
            call("writev", libc::SYS_writev, Class::Write, File::Fd(0)),
            call("pwrite64", libc::SYS_pwrite64, Class::Write, File::Fd(0)),
            call("pwritev", libc::SYS_pwritev, Class::Write, File::Fd(0)),
            call("copy_file_range", libc::SYS_copy_file_range, Class::Allocate, File::Fd(2)),
            call("fsync", libc::SYS_fsync, Class::Sync, File::Fd(0)),
            call("fdatasync", libc::SYS_fdatasync, Class::Sync, File::Fd(0)),
            call("sync_file_range", libc::SYS_sync_file_range, Class::Sync, File::Fd(0)),
            call("fallocate", libc::SYS_fallocate, Class::Allocate, File::Fd(0)),
            call("ftruncate", libc::SYS_ftruncate, Class::Truncate, File::Fd(0)),
            call("renameat", libc::SYS_renameat, Class::Rename, File::At(2, 3)),
            call("renameat2", libc::SYS_renameat2, Class::Rename, File::At(2, 3)),
            call("linkat", libc::SYS_linkat, Class::Rename, File::At(2, 3)),
            call("unlinkat", libc::SYS_unlinkat, Class::Remove, File::At(0, 1)),
            call("mkdirat", libc::SYS_mkdirat, Class::Mkdir, File::At(0, 1)),
            call("getdents64", libc::SYS_getdents64, Class::List, File::Fd(0)),
            call("newfstatat", libc::SYS_newfstatat, Class::Stat, File::At(0, 1)),
            call("statx", libc::SYS_statx, Class::Stat, File::At(0, 1)),
            call("fstat", libc::SYS_fstat, Class::Stat, File::Fd(0)),
            $($older),*
        ]
    };
}

/// All that are watched.
#[cfg(target_arch = "x86_64")]
pub const CALLS: &[Call] = everywhere!(
    call("open", libc::SYS_open, Class::Open, File::Path(0)),
    call("rename", libc::SYS_rename, Class::Rename, File::Path(1)),
    call("link", libc::SYS_link, Class::Rename, File::Path(1)),
    call("unlink", libc::SYS_unlink, Class::Remove, File::Path(0)),
    call("rmdir", libc::SYS_rmdir, Class::Remove, File::Path(0)),
    call("mkdir", libc::SYS_mkdir, Class::Mkdir, File::Path(0)),
    call("stat", libc::SYS_stat, Class::Stat, File::Path(0)),
    call("lstat", libc::SYS_lstat, Class::Stat, File::Path(0)),
    call("access", libc::SYS_access, Class::Stat, File::Path(0)),
);

/// All that are watched.
#[cfg(not(target_arch = "x86_64"))]
pub const CALLS: &[Call] = everywhere!();

/// What an opening call is called that may create its file.
const CREATING: &str = "openat(O_CREAT)";

impl Call {
    pub(super) fn of(notice: &Notice) -> Option<&'static Self> {
        CALLS.iter().find(|call| call.number == notice.number)
    }

    /// Its name in a census: opening is one thing, creating another.
    pub(super) fn name_in(&self, notice: &Notice) -> &'static str {
        let flags = match self.file {
            _ if self.class != Class::Open => return self.name,
            File::At(_, path) | File::Fd(path) => notice.args.get(path + 1),
            #[cfg(target_arch = "x86_64")]
            File::Path(path) => notice.args.get(path + 1),
        };
        let creates = flags.is_some_and(|flags| *flags & u64::from(libc::O_CREAT.unsigned_abs()) != 0);
        if creates { CREATING } else { self.name }
    }
}

/// What a call of this name, as in a census, does; none if nothing of that name is watched.
#[must_use]
pub fn class_of(name: &str) -> Option<Class> {
    if name == CREATING {
        return Some(Class::Create);
    }
    CALLS.iter().find(|call| call.name == name).map(|call| call.class)
}
