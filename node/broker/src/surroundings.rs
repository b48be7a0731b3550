//! What a node stands on: disk, state, network, time and threads. All of it comes from outside, so that the same code runs
//! for real and in a simulation.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use flotilla_raft::disk::Disk;
use flotilla_raft::disk::real::RealDisk;
use flotilla_raft::driver::Driver;
use flotilla_raft::network::{Dialer, TcpDialer};
use flotilla_raft::state::{RocksOptions, RocksState, State, StateError};

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Surroundings {
    /// Journal and segments.
    pub disk: Arc<dyn Disk>,
    /// Opens the state that lies in a directory.
    pub state: OpenState,
    /// Reaches other nodes.
    pub dialer: Arc<dyn Dialer>,
    /// Tells the time.
    pub clock: Clock,
    /// Does the work that blocks.
    pub driver: Driver,
}

/// See [`Surroundings::state`].
pub type OpenState = Arc<dyn Fn(&Path) -> Result<Arc<dyn State>, StateError> + Send + Sync>;

/// The time of day, for timestamps and retention alone: whatever waits uses tokio's clock. Cheap to clone.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> i64 + Send + Sync>);

impl Surroundings {
    /// The operating system's.
    #[must_use]
    pub fn real() -> Self {
        let state = |dir: &Path| -> Result<Arc<dyn State>, StateError> {
            Ok(Arc::new(RocksState::open_or_replace(dir, &RocksOptions::default())?))
        };
        Self {
            disk: Arc::new(RealDisk),
            state: Arc::new(state),
            dialer: Arc::new(TcpDialer),
            clock: Clock::system(),
            driver: Driver::Threads,
        }
    }
}

impl Clock {
    /// What `now_ms` says: milliseconds since the Unix epoch.
    #[must_use]
    pub fn new(now_ms: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(now_ms))
    }

    /// The operating system's.
    #[must_use]
    pub fn system() -> Self {
        Self::new(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        })
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        (self.0)()
    }
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings").field("driver", &self.driver).finish_non_exhaustive()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}
