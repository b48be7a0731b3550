//! Sending a snapshot: chunk after chunk, from any place on, not faster than allowed.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::{Cursor, SnapshotHead, SnapshotView};

/// Bytes of rows or payloads in a chunk, about, where nothing else is asked for.
const CHUNK_BYTES: usize = 1 << 20;

/// A snapshot on its way to one target. Holding it keeps the rows and segments that it names.
#[derive(Debug)]
pub struct OutgoingSnapshot {
    view: SnapshotView,
    head: SnapshotHead,
    cursor: Cursor,
    chunk_bytes: usize,
    limit: Option<Arc<RateLimit>>,
}

/// How fast all snapshots that share it may be sent together.
#[derive(Debug)]
pub struct RateLimit {
    bytes_per_second: u64,
    /// When everything admitted so far will have been sent.
    busy_until: Mutex<Option<Instant>>,
}

impl OutgoingSnapshot {
    /// `None` if there is nothing to send.
    pub(crate) fn new(view: SnapshotView) -> Option<Self> {
        let head = view.head()?;
        Some(Self { view, head, cursor: Cursor::start(), chunk_bytes: CHUNK_BYTES, limit: None })
    }

    /// Bounds its speed.
    #[must_use]
    pub fn limited(mut self, limit: Arc<RateLimit>) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Sets the bytes of rows or payloads in a chunk, about.
    #[must_use]
    pub fn chunked(mut self, chunk_bytes: usize) -> Self {
        self.chunk_bytes = chunk_bytes;
        self
    }

    /// What to announce.
    #[must_use]
    pub fn head(&self) -> &SnapshotHead {
        &self.head
    }

    /// Goes on at the place that the receiver names: it has everything before.
    pub fn resume(&mut self, at: Cursor) {
        self.cursor = at;
    }

    /// The next chunk, encoded; `None` at the end. Returns when the rate limit allows to send it.
    ///
    /// # Errors
    /// If the data cannot be read.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if self.cursor == Cursor::End {
            return Ok(None);
        }
        let (view, from, bytes_max) = (self.view.clone(), self.cursor.clone(), self.chunk_bytes);
        let read = move || view.chunk(&from, bytes_max).map(|chunk| (chunk.encode(), chunk.next));
        let (bytes, next) = self.view.driver().try_run(read).await?;
        if let Some(limit) = &self.limit {
            limit.take(bytes.len()).await;
        }
        self.cursor = next;
        Ok(Some(bytes))
    }
}

impl RateLimit {
    /// A limit; 0 is taken for 1 byte a second.
    #[must_use]
    pub fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), busy_until: Mutex::new(None) }
    }

    /// Returns when `bytes` may be sent.
    pub async fn take(&self, bytes: usize) {
        let start = self.admit(bytes, Instant::now());
        tokio::time::sleep_until(start).await;
    }

    /// When the turn of `bytes` comes.
    fn admit(&self, bytes: usize, now: Instant) -> Instant {
        let mut busy_until = self.busy_until.lock().unwrap_or_else(PoisonError::into_inner);
        let start = busy_until.map_or(now, |busy_until| busy_until.max(now));
        *busy_until = Some(start + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64));
        start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_shares_a_limit_waits_for_those_before() {
        let limit = RateLimit::new(1_000);
        let now = Instant::now();
        assert_eq!(limit.admit(500, now), now);
        assert_eq!(limit.admit(2_000, now), now + Duration::from_millis(500));
        assert_eq!(limit.admit(1, now), now + Duration::from_millis(2_500));
        let later = now + Duration::from_secs(60);
        assert_eq!(limit.admit(1, later), later, "what was not used is not saved up");
    }
}
