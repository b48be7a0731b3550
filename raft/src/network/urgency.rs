//! Whether somebody waits for the answer to a group's heartbeats: else these may wait for others to ride along.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts who waits, for one group. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Urgency {
    waiting: Arc<AtomicUsize>,
}

/// Somebody who waits, until it is dropped.
pub(crate) struct Urgent {
    waiting: Arc<AtomicUsize>,
}

impl Urgency {
    pub(crate) fn begin(&self) -> Urgent {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        Urgent { waiting: self.waiting.clone() }
    }

    pub(crate) fn is_urgent(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }
}

impl Drop for Urgent {
    fn drop(&mut self) {
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}
