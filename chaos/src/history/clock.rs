//! The one clock of a run: monotonic, and the same for all processes of the workload. Under a simulated runtime it is
//! the simulated time.

use std::time::Duration;

use tokio::time::Instant;

/// Microseconds since the run began.
pub type Micros = u64;

/// Counts from the moment at which it was made.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    began: Instant,
}

impl Clock {
    /// Begins to count.
    #[must_use]
    pub fn start() -> Self {
        Self { began: Instant::now() }
    }

    /// How long the run lasts so far.
    #[must_use]
    pub fn now(&self) -> Micros {
        micros(self.began.elapsed())
    }

    /// The instant at which it will show `at`.
    #[must_use]
    pub fn instant(&self, at: Micros) -> Instant {
        self.began + Duration::from_micros(at)
    }
}

/// A duration as the history counts it.
#[must_use]
pub fn micros(duration: Duration) -> Micros {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
