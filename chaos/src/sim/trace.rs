//! The trace of a simulation: everything that the nodes and the simulation say, with simulated times. The same seed makes the
//! same bytes.

use std::fmt;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing::{Dispatch, Level};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt as _;

/// Collects what is said. Cheap to clone.
#[derive(Clone, Default)]
pub struct Trace {
    text: Arc<Mutex<Vec<u8>>>,
    now_micros: Arc<AtomicU64>,
}

impl Trace {
    /// Everything that is said from now on was said at `elapsed`.
    pub fn set(&self, elapsed: Duration) {
        self.now_micros.store(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// What makes this trace hear a thread.
    #[must_use]
    pub fn dispatch(&self) -> Dispatch {
        let targets = Targets::new().with_default(LevelFilter::OFF).with_target("flotilla", Level::DEBUG);
        let (writer, time) = (self.clone(), self.clone());
        let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_timer(time).with_writer(move || writer.clone());
        Dispatch::new(tracing_subscriber::registry().with(targets).with(lines))
    }

    /// What was said so far.
    #[must_use]
    pub fn text(&self) -> Vec<u8> {
        self.text.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl FormatTime for Trace {
    fn format_time(&self, to: &mut Writer<'_>) -> fmt::Result {
        let micros = self.now_micros.load(Ordering::Relaxed);
        write!(to, "{:>4}.{:03}", micros / 1_000_000, micros / 1_000 % 1_000)
    }
}

impl Write for Trace {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
