//! How much of a node's memory the tails of all its groups may take.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// Shared by all groups of a node. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct TailBudget {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    bytes_max: u64,
    bytes: AtomicU64,
    freed: Notify,
}

impl TailBudget {
    pub(crate) fn new(bytes_max: u64) -> Self {
        Self { inner: Arc::new(Inner { bytes_max, bytes: AtomicU64::new(0), freed: Notify::new() }) }
    }

    /// Bytes in the tails now.
    pub(crate) fn bytes(&self) -> u64 {
        self.inner.bytes.load(Ordering::Relaxed)
    }

    /// Whether it is time to write what is applied into segments, of all groups, however little each has.
    pub(crate) fn is_short(&self) -> bool {
        self.bytes() >= self.inner.bytes_max / 2
    }

    pub(crate) fn take(&self, bytes: usize) {
        self.inner.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn release(&self, bytes: usize) {
        if bytes > 0 {
            self.inner.bytes.fetch_sub(bytes as u64, Ordering::Relaxed);
            self.inner.freed.notify_waiters();
        }
    }

    /// Whether the tails are within the limit.
    pub(crate) fn has_room(&self) -> bool {
        self.bytes() < self.inner.bytes_max
    }

    /// Returns when the tails are within the limit.
    pub(crate) async fn room(&self) {
        loop {
            let freed = self.inner.freed.notified();
            if self.has_room() {
                return;
            }
            freed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_for_room_goes_on_when_something_is_released() {
        let budget = TailBudget::new(10);
        budget.take(10);
        assert!(budget.is_short());
        let waiting = tokio::spawn({
            let budget = budget.clone();
            async move { budget.room().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        budget.release(1);
        assert!(waiting.await.is_ok());
    }
}
