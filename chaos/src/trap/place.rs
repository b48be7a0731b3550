//! Which file a call is about: from the caller's descriptors and its memory.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};

use super::calls::{self, Call};
use super::kernel::Notice;

/// Paths are read in pieces that do not reach over the end of a page, behind which nothing may be.
const PAGE_BYTES: u64 = 4096;
/// What the kernel puts behind the name of a file that is open and has none any more.
const DELETED: &str = " (deleted)";

/// The file's path; none if it has none, or the caller is gone.
pub(super) fn path_of(call: &Call, notice: &Notice) -> Option<PathBuf> {
    let thread = notice.thread;
    let arg = |place: usize| notice.args.get(place).copied();
    match call.file {
        calls::File::Fd(place) => of_descriptor(thread, arg(place)?),
        #[cfg(target_arch = "x86_64")]
        calls::File::Path(place) => of_path(thread, at_here(), arg(place)?),
        calls::File::At(dir, path) => of_path(thread, arg(dir)?, arg(path)?),
    }
}

/// The working directory, where a call takes a descriptor.
fn at_here() -> u64 {
    i64::from(libc::AT_FDCWD).cast_unsigned()
}

fn of_descriptor(thread: u32, fd: u64) -> Option<PathBuf> {
    // The kernel looks at the lower half only.
    let fd = fd as i32;
    let link = match fd {
        libc::AT_FDCWD => format!("/proc/{thread}/cwd"),
        fd => format!("/proc/{thread}/fd/{fd}"),
    };
    let path = std::fs::read_link(link).ok().filter(|path| path.is_absolute())?;
    match path.to_str().and_then(|text| text.strip_suffix(DELETED)) {
        Some(name) => Some(name.into()),
        None => Some(path),
    }
}

fn of_path(thread: u32, dir: u64, address: u64) -> Option<PathBuf> {
    let path = string_at(thread, address)?;
    if path.is_absolute() {
        return Some(path);
    }
    let dir = of_descriptor(thread, dir)?;
    Some(if path.as_os_str().is_empty() { dir } else { dir.join(path) })
}

/// The string that ends with a zero at `address`.
fn string_at(thread: u32, address: u64) -> Option<PathBuf> {
    if address == 0 {
        return Some(PathBuf::new());
    }
    let memory = File::open(format!("/proc/{thread}/mem")).ok()?;
    let mut bytes: Vec<u8> = Vec::new();
    let mut piece = [0; PAGE_BYTES as usize];
    while bytes.len() < libc::PATH_MAX.unsigned_abs() as usize {
        let from = address + bytes.len() as u64;
        let room = usize::try_from(PAGE_BYTES - from % PAGE_BYTES).ok()?;
        let count = memory.read_at(piece.get_mut(..room)?, from).ok().filter(|count| *count > 0)?;
        let read = piece.get(..count)?;
        let end = read.iter().position(|byte| *byte == 0);
        bytes.extend(read.iter().take(end.unwrap_or(count)));
        if end.is_some() {
            return Some(PathBuf::from(OsStr::from_bytes(&bytes)));
        }
    }
    None
}

/// What sort of file `below` the watched directory is: its path, each number in it replaced by `#`. A lone zero stays: what
/// is numbered so is the first of its sort and often special.
pub(super) fn kind(below: &Path) -> String {
    let text = below.components().filter(|part| *part != Component::CurDir).collect::<PathBuf>();
    let text = text.to_string_lossy();
    let mut kind = String::new();
    let mut rest = &*text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, from) = rest.split_at(start);
        let (number, behind) = from.split_at(from.find(|c: char| !c.is_ascii_digit()).unwrap_or(from.len()));
        kind.push_str(before);
        kind.push_str(if number == "0" { "0" } else { "#" });
        rest = behind;
    }
    kind.push_str(rest);
    if kind.is_empty() { ".".to_owned() } else { kind }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_one_sort_differ_by_numbers_only() {
        for (path, expected) in [
            ("journal/00000001.journal", "journal/#.journal"),
            ("groups/17-4294967296/00000000000000000007.segment", "groups/#-#/#.segment"),
            ("groups/0-4294967296", "groups/0-#"),
            ("state/MANIFEST-000005", "state/MANIFEST-#"),
            ("./state//CURRENT", "state/CURRENT"),
            ("", "."),
        ] {
            assert_eq!(kind(Path::new(path)), expected);
        }
    }
}
