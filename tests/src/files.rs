//! Files of a stopped node: found, changed, put back.

use std::fs;
use std::path::{Path, PathBuf};

/// Every file below `folder`, sorted.
///
/// # Panics
/// If the folder cannot be read.
#[must_use]
pub fn below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if entry.file_type().unwrap().is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

/// Copies a data directory, holes and all.
///
/// # Panics
/// If that fails.
pub fn copy(from: &Path, to: &Path) {
    let mut command = std::process::Command::new("cp");
    let status = command.args(["-a", "--sparse=always"]).arg(from).arg(to).status().unwrap();
    assert!(status.success(), "{} could not be copied", from.display());
}

/// Changes one bit of the byte at `offset`.
///
/// # Panics
/// If the file has no such byte.
pub fn flip(path: &Path, offset: u64) {
    use std::os::unix::fs::FileExt;
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
}

/// Cuts the file to `len` bytes.
///
/// # Panics
/// If that fails.
pub fn truncate(path: &Path, len: u64) {
    fs::OpenOptions::new().write(true).open(path).unwrap().set_len(len).unwrap();
}

/// The file's length in bytes.
///
/// # Panics
/// If there is no such file.
#[must_use]
pub fn len(path: &Path) -> u64 {
    fs::metadata(path).unwrap().len()
}
