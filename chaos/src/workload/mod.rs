//! Clients that write, read and ask while faults happen, and note everything that they are told.

mod observer;
mod producer;
mod reader;
pub mod topic;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flotilla_client::Error;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::cluster::Cluster;
use crate::fault::Leaders;
use crate::history::{Clock, History};

/// What is written and read.
#[derive(Debug, Clone)]
pub struct WorkloadOptions {
    /// The topic; it exists and is empty.
    pub topic: String,
    /// Its partitions.
    pub partitions: u32,
    /// Producers; each writes to every partition in turn.
    pub producers: u32,
    /// Readers; each follows every partition from its start.
    pub readers: u32,
    /// Records a second, all producers together.
    pub rate: u32,
    /// Size of a record's value.
    pub record_bytes: usize,
    /// How long a producer tries before it gives a record up.
    pub delivery_timeout: Duration,
}

/// What the clients of a run share.
#[derive(Debug)]
struct Shared {
    options: WorkloadOptions,
    clock: Clock,
    notes: Mutex<Notes>,
}

/// What was noted so far.
#[derive(Debug, Default)]
pub struct Notes {
    /// What clients were told.
    pub history: History,
    /// Errors that reached the application, in the order in which they came; only the first ones.
    pub errors: Vec<String>,
    /// All errors that reached the application.
    pub error_count: u64,
    /// The leaders, as the observer last saw them.
    pub leaders: Leaders,
    /// How often a partition had another leader than before.
    pub leader_changes: u64,
}

/// Errors that are kept in words.
const ERRORS_MAX: usize = 20;

impl Notes {
    fn error(&mut self, who: &str, error: &Error) {
        self.error_count += 1;
        if self.errors.len() < ERRORS_MAX {
            self.errors.push(format!("{who}: {error}"));
        }
    }
}

impl Shared {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How far each partition is to be read, once that is known.
type Ends = Option<BTreeMap<u32, u64>>;

/// Clients at work.
#[derive(Debug)]
pub struct Workload {
    shared: Arc<Shared>,
    stop_writing: watch::Sender<bool>,
    ends: watch::Sender<Ends>,
    stop_asking: watch::Sender<bool>,
    producers: Vec<JoinHandle<()>>,
    readers: Vec<JoinHandle<()>>,
    observer: JoinHandle<()>,
}

impl Workload {
    /// Sets all clients to work; each comes through another node.
    #[must_use]
    pub fn start(cluster: &Cluster, options: WorkloadOptions, clock: Clock) -> Self {
        let (stop_writing, stopped_writing) = watch::channel(false);
        let (ends, until) = watch::channel(None);
        let (stop_asking, stopped_asking) = watch::channel(false);
        let shared = Arc::new(Shared { options, clock, notes: Mutex::default() });
        let producers = (0..shared.options.producers).map(|number| {
            let via = cluster.addresses(number as usize);
            tokio::spawn(producer::run(Arc::clone(&shared), number, via, stopped_writing.clone()))
        });
        let producers = producers.collect();
        let readers = (0..shared.options.readers).map(|number| {
            let via = cluster.addresses(number as usize + 1);
            tokio::spawn(reader::run(Arc::clone(&shared), number, via, until.clone()))
        });
        let readers = readers.collect();
        let observer = tokio::spawn(observer::run(Arc::clone(&shared), cluster.addresses(0), stopped_asking));
        Self { shared, stop_writing, ends, stop_asking, producers, readers, observer }
    }

    /// What was noted so far. To be held briefly.
    pub fn notes(&self) -> MutexGuard<'_, Notes> {
        self.shared.notes()
    }

    /// Writes no more, and waits until it is known of every record what became of it.
    pub async fn stop_writing(&mut self) {
        self.stop_writing.send_replace(true);
        join(&mut self.producers, "a producer", &self.shared).await;
    }

    /// Waits until every reader has read up to `ends`, but not longer than `timeout`. Whether all came there.
    pub async fn drain(&mut self, ends: BTreeMap<u32, u64>, timeout: Duration) -> bool {
        self.ends.send_replace(Some(ends));
        let readers = join(&mut self.readers, "a reader", &self.shared);
        tokio::time::timeout(timeout, readers).await.is_ok()
    }

    /// Ends whatever still runs, and hands over what was noted.
    pub async fn finish(mut self) -> Notes {
        self.stop_asking.send_replace(true);
        for reader in &self.readers {
            reader.abort();
        }
        let mut observer = vec![self.observer];
        join(&mut observer, "the observer", &self.shared).await;
        self.readers.clear();
        std::mem::take(&mut *self.shared.notes())
    }
}

/// A client that panicked has noted less than happened: that must not go unsaid.
async fn join(tasks: &mut Vec<JoinHandle<()>>, who: &str, shared: &Shared) {
    while let Some(task) = tasks.last_mut() {
        let ended = task.await;
        tasks.pop();
        if let Err(panicked) = ended {
            shared.notes().error(who, &Error::Protocol(panicked.to_string()));
        }
    }
}
