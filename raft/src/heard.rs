//! When a group last heard of its leader. Where openraft's own clock is off (see `registry/pulse.rs`), this says whose
//! lead has lapsed although its node can be reached.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// See the module. A group that has just started has just heard.
#[derive(Debug)]
pub(crate) struct Heard {
    started: Instant,
    /// Milliseconds since then.
    last_ms: AtomicU64,
}

impl Heard {
    pub(crate) fn now() -> Self {
        Self { started: Instant::now(), last_ms: AtomicU64::new(0) }
    }

    /// The leader said something, and was believed.
    pub(crate) fn note(&self) {
        self.last_ms.store(self.elapsed_ms(), Ordering::Relaxed);
    }

    /// How long that is ago.
    pub(crate) fn silence(&self) -> Duration {
        Duration::from_millis(self.elapsed_ms().saturating_sub(self.last_ms.load(Ordering::Relaxed)))
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
