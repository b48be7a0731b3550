//! A simulated node: its machine, which outlives its processes, and what a process does from its start to its end. The
//! same steps as those of the server, without the services for clients.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flotilla_broker::{
    Broker, BrokerOptions, Clock, Home, JournalOptions, Member, Newcomer, OpenError, ProduceLimits, SegmentOptions, Surroundings,
};
use flotilla_raft::data_dir::DataDirError;
use flotilla_raft::disk::Disk as _;
use flotilla_raft::disk::sim::Rng;
use flotilla_raft::driver::{Driver, Work};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use turmoil::net::TcpListener;

use super::disk::{Damage, MeddledDisk, Place};
use super::isolation::EPOCH;
use super::network::{SimDialer, incoming};
use super::plan::Shape;
use super::rows::MeddledRows;

/// Where every node listens.
const PORT: u16 = 7070;
/// How soon a process looks again for a data directory that the one before it still holds.
const LOCK_RETRY: Duration = Duration::from_millis(5);

/// A node. Cheap to clone.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

struct Inner {
    id: u64,
    /// Where identity and lock lie: on a real disk, as they are written once.
    dir: PathBuf,
    seeds: Vec<String>,
    shape: Shape,
    disk: MeddledDisk,
    rows: MeddledRows,
    device: Device,
    /// Milliseconds by which its time of day is off.
    clock_off: Arc<AtomicI64>,
    process: Mutex<Process>,
}

/// The process that runs on the node, if one does.
#[derive(Default)]
struct Process {
    broker: Option<Broker>,
    ready: bool,
    /// Cancelled when it ends, in whatever way.
    life: CancellationToken,
    /// Why it ended by itself.
    ended: Option<String>,
}

/// How long the node's disk takes.
#[derive(Clone)]
struct Device {
    rng: Arc<Mutex<Rng>>,
    /// On top of the usual time.
    slowness: Arc<Mutex<Duration>>,
}

impl Node {
    /// A new machine: node `id` of a cluster of this `shape`, everything random about it from `seed`.
    #[must_use]
    pub fn new(id: u64, shape: &Shape, dir: PathBuf, seed: u64) -> Self {
        let (count, mut rng) = (shape.nodes, Rng::new(seed ^ id.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        let (disk, rows) = (MeddledDisk::new(rng.next_u64()), MeddledRows::new(rng.next_u64()));
        let device = Device { rng: Arc::new(Mutex::new(rng)), slowness: Arc::default() };
        let inner = Inner {
            id,
            dir,
            // Each lists them in another order.
            seeds: (0..count).map(|place| address((place + id) % count + 1)).collect(),
            shape: shape.clone(),
            disk,
            rows,
            device,
            clock_off: Arc::default(),
            process: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Its node id.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.inner.id
    }

    /// Its name in the simulated network.
    #[must_use]
    pub fn name(&self) -> String {
        name(self.inner.id)
    }

    /// Its disk.
    #[must_use]
    pub fn disk(&self) -> &MeddledDisk {
        &self.inner.disk
    }

    /// Its rows.
    #[must_use]
    pub fn rows(&self) -> &MeddledRows {
        &self.inner.rows
    }

    /// Where its data lies.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// Damages one of its files; `pick` decides which one.
    pub fn damage(&self, place: Place, damage: Damage, pick: u64) {
        let done = self.inner.disk.damage(&self.inner.dir, place, damage, pick);
        tracing::info!(node = self.id(), done, "damaged");
    }

    /// Makes every piece of work of its disk take so much longer.
    pub fn slow_down(&self, by: Duration) {
        *lock(&self.inner.device.slowness) = by;
    }

    /// Makes its time of day wrong by so many milliseconds.
    pub fn set_clock_off(&self, off_ms: i64) {
        self.inner.clock_off.store(off_ms, Ordering::Relaxed);
    }

    /// The broker of the process that runs, and what is cancelled when that ends.
    #[must_use]
    pub fn broker(&self) -> Option<(Broker, CancellationToken)> {
        let process = lock(&self.inner.process);
        process.broker.clone().map(|broker| (broker, process.life.clone()))
    }

    /// Whether it is a registered member that serves.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        lock(&self.inner.process).ready
    }

    /// Why its process ended by itself, if it did. Says it once.
    #[must_use]
    pub fn take_ended(&self) -> Option<String> {
        lock(&self.inner.process).ended.take()
    }

    /// The process is gone: nobody reaches its broker any more.
    pub fn bury(&self) {
        let process = std::mem::take(&mut *lock(&self.inner.process));
        process.life.cancel();
    }

    /// What the end of the process leaves: what the operating system was told, and of the rows what was flushed.
    pub fn killed(&self) {
        self.inner.disk.kill();
        self.inner.rows.cut();
    }

    /// What a power failure leaves: less.
    pub fn power_cut(&self) {
        self.inner.disk.power_cut();
        self.inner.rows.cut();
    }

    /// Loses everything that it ever stored, but not who it is.
    pub fn forget(&self) {
        for part in ["journal", "groups"] {
            // The first time there is nothing yet.
            let _ = self.inner.disk.remove_dir_all(&self.inner.dir.join(part));
        }
    }

    /// The life of a process, from its start until its storage fails.
    pub async fn live(self) {
        let reason = match self.run().await {
            Ok(reason) => reason,
            Err(error) => error.to_string(),
        };
        tracing::info!(node = self.id(), reason, "the process ends by itself");
        let life = {
            let mut process = lock(&self.inner.process);
            process.broker = None;
            process.ready = false;
            process.ended = Some(reason);
            process.life.clone()
        };
        life.cancel();
    }

    async fn run(&self) -> Result<String, OpenError> {
        let (options, surroundings) = (self.options(), self.surroundings());
        let member = self.member(&options, &surroundings).await?;
        let broker = Broker::open(options, member, surroundings).await?;
        let services = Server::builder().add_service(broker.raft_service()).add_service(broker.peer_service());
        let serving = services.serve_with_incoming(incoming(listen().await?));
        lock(&self.inner.process).broker = Some(broker.clone());
        tokio::select! {
            reason = broker.failure().wait() => Ok(reason),
            _ = serving => Ok("it serves no more".to_owned()),
            failed = self.become_ready(&broker) => Err(failed),
        }
    }

    /// Returns only why it cannot become ready.
    async fn become_ready(&self, broker: &Broker) -> OpenError {
        match broker.wait_ready().await {
            Err(error) => error,
            Ok(()) => {
                lock(&self.inner.process).ready = true;
                tracing::info!(node = self.id(), "ready");
                std::future::pending().await
            }
        }
    }

    async fn member(&self, options: &BrokerOptions, surroundings: &Surroundings) -> Result<Member, OpenError> {
        let home = loop {
            match Home::find(options, surroundings) {
                Err(OpenError::DataDir(DataDirError::Locked { .. })) => tokio::time::sleep(LOCK_RETRY).await,
                found => break found?,
            }
        };
        match home {
            Home::Member(member) => Ok(member),
            Home::Newcomer(newcomer) => join(newcomer).await,
        }
    }

    fn options(&self) -> BrokerOptions {
        let (address, shape) = (address(self.inner.id), &self.inner.shape);
        BrokerOptions {
            node_id: self.inner.id,
            data_dir: self.inner.dir.clone(),
            advertised_address: address.clone(),
            peer_address: address,
            seeds: self.inner.seeds.clone(),
            rack: String::new(),
            // So small that files are recycled and segments closed often.
            journal: JournalOptions {
                file_bytes: shape.journal_file_kib << 10,
                files_max: 4,
                files_hard_max: 16,
                batch_bytes_max: shape.journal_file_kib << 9,
                ..JournalOptions::default()
            },
            segments: SegmentOptions { segment_bytes_max: shape.segment_kib << 10, ..SegmentOptions::default() },
            proposal_bytes_max: 4 << 20,
            tail_bytes_max: shape.tail_kib << 10,
            produce: ProduceLimits { decompressed_bytes_max: 1 << 20, records_per_batch_max: 1_000 },
            retention_interval: Duration::from_secs(1),
        }
    }

    fn surroundings(&self) -> Surroundings {
        let (rows, device, clock_off) = (self.inner.rows.clone(), self.inner.device.clone(), self.inner.clock_off.clone());
        Surroundings {
            disk: Arc::new(self.inner.disk.clone()),
            state: Arc::new(move |_| rows.open()),
            dialer: Arc::new(SimDialer),
            clock: Clock::new(move || {
                let since = turmoil::since_epoch().unwrap_or(EPOCH);
                i64::try_from(since.as_millis()).unwrap_or(i64::MAX).saturating_add(clock_off.load(Ordering::Relaxed))
            }),
            driver: Driver::Tasks(Arc::new(move |work| device.takes(work))),
        }
    }
}

impl Device {
    fn takes(&self, work: Work) -> Duration {
        let usually = match work {
            Work::Journal => Duration::from_micros(500 + lock(&self.rng).below(3_000)),
            Work::Flush => Duration::from_micros(200 + lock(&self.rng).below(1_000)),
            Work::Other => Duration::from_micros(lock(&self.rng).below(500)),
        };
        usually + *lock(&self.slowness)
    }
}

/// The name of a node in the simulated network.
#[must_use]
pub fn name(id: u64) -> String {
    format!("n{id}")
}

fn address(id: u64) -> String {
    format!("{}:{PORT}", name(id))
}

async fn listen() -> Result<TcpListener, OpenError> {
    Ok(TcpListener::bind(("0.0.0.0", PORT)).await?)
}

/// Answers its peers until it belongs to a cluster.
async fn join(newcomer: Newcomer) -> Result<Member, OpenError> {
    let joined = CancellationToken::new();
    let services = Server::builder().add_service(newcomer.peer_service());
    let listener = listen().await?;
    let serving = services.serve_with_incoming_shutdown(incoming(listener), joined.clone().cancelled_owned());
    let serving = tokio::spawn(serving);
    let member = newcomer.join(&CancellationToken::new()).await;
    joined.cancel();
    let _ = serving.await;
    member
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
