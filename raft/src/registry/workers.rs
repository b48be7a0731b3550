//! What drives a node's journal and flusher: see [`Driver`].

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;

use crate::driver::{Driver, Work};
use crate::flusher::{Flusher, FlusherHandle, FlusherThread};
use crate::journal::{self, Journal, JournalHandle, JournalThread};

/// See the module. Ends what it drives when it is dropped.
pub(super) enum Workers {
    Threads { journal: JournalThread, flusher: FlusherThread },
    Tasks { journal: (JournalHandle, AbortOnDropHandle<()>), flusher: (FlusherHandle, AbortOnDropHandle<()>) },
}

impl Workers {
    pub(super) fn start(driver: &Driver, journal: Journal, (flusher, handle): (Flusher, FlusherHandle)) -> io::Result<Self> {
        let Driver::Tasks(device) = driver else {
            let journal = JournalThread::spawn(journal)?;
            return Ok(Self::Threads { journal, flusher: flusher.spawn(handle)? });
        };
        let doing = |work: Work| -> Arc<dyn Fn() -> Duration + Send + Sync> {
            let device = device.clone();
            Arc::new(move || device(work))
        };
        let submit = journal.handle();
        let journal = AbortOnDropHandle::new(tokio::spawn(journal::drive(journal, doing(Work::Journal))));
        let flusher = AbortOnDropHandle::new(tokio::spawn(flusher.drive(doing(Work::Flush))));
        Ok(Self::Tasks { journal: (submit, journal), flusher: (handle, flusher) })
    }

    /// Does what was asked for before, seals the journal, and ends. The flusher first: it may still announce what it synced.
    pub(super) async fn close(self) {
        match self {
            Self::Threads { journal, flusher } => {
                let join = move || {
                    drop(flusher);
                    journal.close();
                };
                let _ = tokio::task::spawn_blocking(join).await;
            }
            Self::Tasks { journal, flusher } => {
                flusher.0.stop();
                let _ = flusher.1.await;
                journal.0.close();
                let _ = journal.1.await;
            }
        }
    }
}
