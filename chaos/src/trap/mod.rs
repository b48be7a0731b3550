//! A process whose file system calls pass through this one: it counts them over all threads, and at a chosen one it answers
//! with an error, lets only half of the bytes through, or kills the process.
//!
//! The kernel stops each watched call and asks (seccomp user notification). [`launcher`] puts a process into that state,
//! [`kernel`] speaks with the kernel, [`calls`] knows what is watched, [`place`] which file a call is about, [`order`]
//! decides, [`short`] does half of a read or write in the process's stead. `strace -e inject` counts calls per thread and
//! knows no paths of descriptors, so it cannot make exactly one call of a process of many threads fail.
//!
//! What is not below the watched directory goes on untouched and is not counted.

pub mod calls;
mod kernel;
pub mod launcher;
pub mod order;
mod place;
mod short;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, Signal, pidfd_getfd, pidfd_open, pidfd_send_signal};
use tokio::sync::watch;

use calls::Call;
use kernel::{Answer, Notice};
use order::{Census, Deed, Fired, Orders, Step};

/// A process has installed its filter by then, or it never will.
const ATTACH_TIMEOUT: Duration = Duration::from_secs(10);
const ATTACH_POLL_INTERVAL: Duration = Duration::from_millis(1);
/// What the kernel calls the descriptor over which it asks.
const LISTENER_LINK: &str = "anon_inode:seccomp notify";

/// Watches one process until that ends.
#[derive(Debug)]
pub struct Trap {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    /// The directory that is watched.
    root: PathBuf,
    process: OwnedFd,
    orders: Mutex<Orders>,
    /// How many steps were carried out since the last order.
    fired: watch::Sender<usize>,
}

impl Shared {
    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Trap {
    /// Watches what the process `pid`, which [`launcher`] started, does below `root` (an absolute path without links), and
    /// carries out `steps`, one after the other. The process waits at its first call until it is watched.
    ///
    /// # Errors
    /// If it did not come that far, or this process may not look into it.
    pub fn attach(pid: u32, root: &Path, steps: Vec<Step>) -> io::Result<Self> {
        let id = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
        let process = pidfd_open(id, PidfdFlags::empty())?;
        let number = find_listener(pid)?;
        let listener = pidfd_getfd(&process, number, PidfdGetfdFlags::empty())?;
        kernel::wake_quickly(listener.as_fd());
        let shared = Arc::new(Shared {
            root: root.to_owned(),
            process,
            orders: Mutex::new(Orders::new(steps)),
            fired: watch::Sender::new(0),
        });
        let of_thread = Arc::clone(&shared);
        let thread = Builder::new().name("trap".into()).spawn(move || serve(&of_thread, &listener))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// From now on, counts anew and carries out `steps`, one after the other.
    pub fn arm(&self, steps: Vec<Step>) {
        *self.shared.orders() = Orders::new(steps);
        self.shared.fired.send_replace(0);
    }

    /// What was carried out since it was armed.
    #[must_use]
    pub fn fired(&self) -> Vec<Fired> {
        self.shared.orders().fired().to_vec()
    }

    /// The calls since the last step was carried out, or since it was armed if there was none.
    #[must_use]
    pub fn census(&self) -> Census {
        self.shared.orders().census().clone()
    }

    /// Returns when `count` steps were carried out.
    pub async fn wait_fired(&self, count: usize) {
        // The sender lives as long as this.
        let _ = self.shared.fired.subscribe().wait_for(|fired| *fired >= count).await;
    }
}

impl Drop for Trap {
    /// Whoever is watched cannot go on alone: it ends with this.
    fn drop(&mut self) {
        let _ = pidfd_send_signal(&self.shared.process, Signal::KILL);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The number of the descriptor over which the kernel asks about `pid`, once there is one.
fn find_listener(pid: u32) -> io::Result<i32> {
    let began = Instant::now();
    let fds = PathBuf::from(format!("/proc/{pid}/fd"));
    loop {
        // Who has ended has no program any more; what it said is on its stderr.
        std::fs::read_link(format!("/proc/{pid}/exe"))
            .map_err(|_| io::Error::other("the process ended before it was watched"))?;
        for entry in std::fs::read_dir(&fds)?.flatten() {
            let links_there = std::fs::read_link(entry.path()).is_ok_and(|link| link == Path::new(LISTENER_LINK));
            let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
            if let Some(number) = number.filter(|_| links_there) {
                return Ok(number);
            }
        }
        if began.elapsed() > ATTACH_TIMEOUT {
            let why = "the process has no seccomp listener: it was not started by the launcher, or was refused one";
            return Err(io::Error::new(io::ErrorKind::TimedOut, why));
        }
        std::thread::sleep(ATTACH_POLL_INTERVAL);
    }
}

/// Answers the kernel until the process is gone.
fn serve(shared: &Shared, listener: &OwnedFd) {
    while let Ok(true) = kernel::wait(listener.as_fd()) {
        // The thread that called may be gone meanwhile: then there is nobody to answer.
        let Ok(notice) = kernel::receive(listener.as_fd()) else { continue };
        let answer = answer(shared, listener, &notice);
        let _ = kernel::answer(listener.as_fd(), notice.id, answer);
    }
}

fn answer(shared: &Shared, listener: &OwnedFd, notice: &Notice) -> Answer {
    let Some(call) = Call::of(notice) else { return Answer::Continue };
    let Some(path) = place::path_of(call, notice) else { return Answer::Continue };
    let Ok(below) = path.strip_prefix(&shared.root) else { return Answer::Continue };
    // What was read of the caller's memory and descriptors was its own only if it still waits.
    if !kernel::still_waits(listener.as_fd(), notice.id) {
        return Answer::Continue;
    }
    let (name, kind) = (call.name_in(notice), place::kind(below));
    let deed = shared.orders().decide(name, &kind, below);
    let Some(deed) = deed else { return Answer::Continue };
    let answer = match deed {
        Deed::Error(errno) => Answer::Error(errno),
        Deed::Short => short::perform(call, notice).unwrap_or(Answer::Continue),
        Deed::Kill => {
            // It cannot fail: the process exists, for it waits for this answer.
            let _ = pidfd_send_signal(&shared.process, Signal::KILL);
            Answer::Error(libc::EIO)
        }
    };
    if deed == Deed::Short && answer == Answer::Continue {
        // A call of one byte cannot be halved: it did not happen.
        shared.orders().take_back();
    }
    shared.fired.send_replace(shared.orders().fired().len());
    answer
}
