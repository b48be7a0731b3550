//! Who does the work that blocks: threads, or, where everything is to happen in one place and in one order, tasks.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Drives the journal's writer and the flusher, and does single pieces of work that may wait for a disk. Cheap to clone.
#[derive(Clone, Default)]
pub enum Driver {
    /// The journal and the flusher have a thread each; everything else is done by tokio's threads for blocking work.
    #[default]
    Threads,
    /// Everything is done by tasks of the runtime that it is asked on, each piece at once after the time that the device
    /// is said to take: for simulations, whose disks answer without waiting.
    Tasks(Arc<dyn Fn(Work) -> Duration + Send + Sync>),
}

/// What a device is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// A step of the journal's writer: a write and a sync.
    Journal,
    /// A request to the flusher.
    Flush,
    /// Anything else.
    Other,
}

impl Driver {
    /// Does a piece of work that may block, and returns what came of it.
    ///
    /// # Errors
    /// If the work panicked, or the runtime is being shut down.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        match self {
            Self::Threads => tokio::task::spawn_blocking(work).await.map_err(io::Error::other),
            Self::Tasks(device) => {
                tokio::time::sleep(device(Work::Other)).await;
                Ok(work())
            }
        }
    }

    /// As [`Driver::run`], for work that may itself fail.
    ///
    /// # Errors
    /// Also those of the work.
    pub(crate) async fn try_run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        self.run(work).await?
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Threads => "Threads",
            Self::Tasks(_) => "Tasks",
        })
    }
}
