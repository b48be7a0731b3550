//! Half of a read or a write, done in the stead of the process that called: on its own descriptor, with its own memory.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::calls::{Call, Class};
use super::kernel::{Answer, Notice};

/// Bytes of a pointer or a length in a list of pieces of memory.
const WORD_BYTES: usize = 8;
/// More pieces than this the kernel does not take either (`IOV_MAX`).
const PIECES_MAX: usize = 1024;

/// A piece of the caller's memory: address and length.
type Piece = (u64, usize);

/// Does half of what was asked for. None if half of it is nothing, or it did not work: then the kernel may do all of it.
pub(super) fn perform(call: &Call, notice: &Notice) -> Option<Answer> {
    let [fd, buffer, count, position, ..] = notice.args;
    let memory = File::options().read(true).write(true).open(format!("/proc/{}/mem", notice.thread)).ok()?;
    let of_many = call.name.ends_with('v');
    let pieces = if of_many { pieces(&memory, buffer, count)? } else { vec![(buffer, usize::try_from(count).ok()?)] };
    let half = pieces.iter().map(|(_, bytes)| bytes).sum::<usize>() / 2;
    if half == 0 {
        return None;
    }
    let process = process_of(notice.thread)?;
    let file = File::from(pidfd_getfd(process, fd as i32, PidfdGetfdFlags::empty()).ok()?);
    let at = call.name.starts_with('p').then_some(position);
    let done = match call.class {
        Class::Read => read(&file, at, &memory, &pieces, half),
        Class::Write => write(&file, at, &memory, &pieces, half),
        _ => return None,
    };
    let value =
        done.map_or_else(|error| Answer::Error(error.raw_os_error().unwrap_or(libc::EIO)), |count| Answer::Value(count as i64));
    Some(value)
}

/// The process to which a thread belongs: not always the one that was started, for that may have started others.
fn process_of(thread: u32) -> Option<OwnedFd> {
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    let id = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()?;
    pidfd_open(Pid::from_raw(id)?, PidfdFlags::empty()).ok()
}

fn pieces(memory: &File, address: u64, count: u64) -> Option<Vec<Piece>> {
    let count = usize::try_from(count).ok().filter(|count| *count <= PIECES_MAX)?;
    let mut bytes = vec![0; count * 2 * WORD_BYTES];
    memory.read_exact_at(&mut bytes, address).ok()?;
    let words: Option<Vec<u64>> =
        bytes.chunks_exact(WORD_BYTES).map(|word| word.try_into().ok().map(u64::from_ne_bytes)).collect();
    let pairs = words?;
    pairs.chunks_exact(2).map(|pair| Some((*pair.first()?, usize::try_from(*pair.get(1)?).ok()?))).collect()
}

/// The first `half` bytes of `pieces`.
fn first(pieces: &[Piece], half: usize) -> impl Iterator<Item = Piece> {
    let mut left = half;
    pieces.iter().map_while(move |(address, bytes)| {
        let taken = left.min(*bytes);
        left -= taken;
        (taken > 0 || *bytes == 0).then_some((*address, taken))
    })
}

fn read(mut file: &File, at: Option<u64>, memory: &File, pieces: &[Piece], half: usize) -> io::Result<usize> {
    let mut bytes = vec![0; half];
    let count = match at {
        Some(at) => file.read_at(&mut bytes, at)?,
        None => file.read(&mut bytes)?,
    };
    let mut rest = bytes.get(..count).unwrap_or_default();
    for (address, room) in first(pieces, count) {
        let (piece, behind) = rest.split_at(room.min(rest.len()));
        memory.write_all_at(piece, address)?;
        rest = behind;
    }
    Ok(count)
}

fn write(mut file: &File, at: Option<u64>, memory: &File, pieces: &[Piece], half: usize) -> io::Result<usize> {
    let mut bytes = Vec::with_capacity(half);
    for (address, count) in first(pieces, half) {
        let mut piece = vec![0; count];
        memory.read_exact_at(&mut piece, address)?;
        bytes.extend(piece);
    }
    match at {
        Some(at) => file.write_at(&bytes, at),
        None => file.write(&bytes),
    }
}
