//! The only unsafe lines of the workspace: what the kernel offers of seccomp, for which no maintained safe wrapper exists
//! (`rustix` has none, and `libseccomp` wants a C library beside it). Each function takes and returns plain values.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use libc::{seccomp_notif, seccomp_notif_resp, sock_filter, sock_fprog};

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// Where `struct seccomp_data` has the number of the call, and the architecture.
const NUMBER_OFFSET: u32 = 0;
const ARCHITECTURE_OFFSET: u32 = 4;
const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const JUMP_IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
/// `SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP` (Linux 6.6): the two sides take turns, so they may share a core.
const SYNC_WAKE_UP: libc::c_ulong = 1;

/// A call that waits for an answer.
#[derive(Debug, Clone, Copy)]
pub struct Notice {
    /// Names it towards the kernel.
    pub id: u64,
    /// The thread that called.
    pub thread: u32,
    /// Which system call.
    pub number: i64,
    /// What with.
    pub args: [u64; 6],
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The kernel does it.
    Continue,
    /// It fails with this `errno`; the kernel does nothing.
    Error(i32),
    /// It returns this; the kernel does nothing.
    Value(i64),
}

/// Has the kernel stop all calls with these numbers, of this thread and all that it starts, and ask over the returned
/// descriptor, for good. It is closed on `exec`.
///
/// # Errors
/// If the kernel is too old, or does not allow it.
pub fn install(numbers: &[i64]) -> io::Result<OwnedFd> {
    let mut filter = program(numbers)?;
    let length = u16::try_from(filter.len()).map_err(io::Error::other)?;
    let program = sock_fprog { len: length, filter: filter.as_mut_ptr() };
    // Whoever was received is interrupted by nothing but death, so that each call is asked about once.
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    // SAFETY: `program` points to `length` instructions, which the kernel copies before it returns.
    let fd = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just opened it for us, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Compares the number with each of `numbers`; the last two instructions are what is returned.
fn program(numbers: &[i64]) -> io::Result<Vec<sock_filter>> {
    let op = |code: u32, jt: u8, jf: u8, k: u32| sock_filter { code: code as u16, jt, jf, k };
    let mut filter = vec![
        op(LOAD, 0, 0, ARCHITECTURE_OFFSET),
        op(JUMP_IF_EQUAL, 1, 0, ARCHITECTURE),
        op(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
        op(LOAD, 0, 0, NUMBER_OFFSET),
    ];
    for (at, number) in numbers.iter().enumerate() {
        let behind = u8::try_from(numbers.len() - at).map_err(io::Error::other)?;
        filter.push(op(JUMP_IF_EQUAL, behind, 0, u32::try_from(*number).map_err(io::Error::other)?));
    }
    filter.push(op(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW));
    filter.push(op(RETURN, 0, 0, libc::SECCOMP_RET_USER_NOTIF));
    Ok(filter)
}

/// Waits for a question. False if nobody is left who could ask.
///
/// # Errors
/// If the descriptor is none.
pub fn wait(listener: BorrowedFd<'_>) -> io::Result<bool> {
    loop {
        let mut polled = libc::pollfd { fd: listener.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: `polled` is one entry, as the length says, and outlives the call.
        let count = unsafe { libc::poll(&raw mut polled, 1, -1) };
        if count < 0 {
            match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => continue,
                error => return Err(error),
            }
        }
        return Ok(polled.revents & libc::POLLIN != 0);
    }
}

/// Takes the next question.
///
/// # Errors
/// If the thread that called is gone.
pub fn receive(listener: BorrowedFd<'_>) -> io::Result<Notice> {
    // SAFETY: it consists of integers, for which zero is a value; the kernel wants zeros here.
    let mut notice: seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel fills in one `seccomp_notif`, and `notice` is one.
    let ended = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut notice) };
    if ended < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Notice { id: notice.id, thread: notice.pid, number: notice.data.nr.into(), args: notice.data.args })
}

/// Says what becomes of a call.
///
/// # Errors
/// If the thread that called is gone.
pub fn answer(listener: BorrowedFd<'_>, id: u64, answer: Answer) -> io::Result<()> {
    let (val, error, flags) = match answer {
        Answer::Continue => (0, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32),
        Answer::Error(errno) => (0, -errno, 0),
        Answer::Value(value) => (value, 0, 0),
    };
    let mut response = seccomp_notif_resp { id, val, error, flags };
    // SAFETY: the kernel reads one `seccomp_notif_resp`, and `response` is one.
    let ended = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut response) };
    if ended < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether the thread whose question this is still waits: if so, what was read of its memory was read of it, and not of
/// another process that got its number.
pub fn still_waits(listener: BorrowedFd<'_>, id: u64) -> bool {
    // SAFETY: the kernel reads one `u64`, and `id` is one.
    unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &raw const id) == 0 }
}

/// Has both sides take turns on a core where the kernel can do that: it makes a call some microseconds faster, no more.
pub fn wake_quickly(listener: BorrowedFd<'_>) {
    // SAFETY: the argument is a number, not a pointer.
    let _ = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS, SYNC_WAKE_UP) };
}
