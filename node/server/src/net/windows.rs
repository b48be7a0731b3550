//! What clients may send before it is read, on each connection: few connections get large windows, many get small ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A few large batches.
const CONNECTION_BYTES_MAX: u64 = 8 << 20;
/// HTTP/2's own default.
const CONNECTION_BYTES_MIN: u64 = 64 << 10;
/// Each connection gets this part of what is left.
const SHARE: u64 = 32;
/// The least that HTTP/2 allows, and as much as is read in one piece: large batches in few frames.
const FRAME_BYTES: std::ops::RangeInclusive<u64> = 16 << 10..=1 << 20;

/// Shares bytes out among connections.
#[derive(Debug)]
pub struct Windows {
    left: AtomicU64,
}

/// The share of one connection; dropping it gives it back.
#[derive(Debug)]
pub struct Window {
    windows: Arc<Windows>,
    bytes: u64,
}

impl Windows {
    /// Connections share `bytes`, and get a minimum each when those are used up.
    pub fn new(bytes: u64) -> Self {
        Self { left: AtomicU64::new(bytes) }
    }

    /// The share of one more connection.
    pub fn grant(self: &Arc<Self>) -> Window {
        let share = |left: u64| (left / SHARE).clamp(CONNECTION_BYTES_MIN, CONNECTION_BYTES_MAX).min(left);
        let taken = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left - share(left)));
        let bytes = share(taken.unwrap_or_default());
        Window { windows: self.clone(), bytes }
    }
}

impl Window {
    /// All streams together.
    pub fn connection_bytes(&self) -> u32 {
        as_u32(self.bytes.max(CONNECTION_BYTES_MIN))
    }

    /// One stream: half, so that one that is not read does not hold up the others.
    pub fn stream_bytes(&self) -> u32 {
        (self.connection_bytes() / 2).max(as_u32(CONNECTION_BYTES_MIN))
    }

    /// The largest frame. One that has not arrived completely takes memory, too.
    pub fn frame_bytes(&self) -> u32 {
        as_u32((self.bytes / 8).clamp(*FRAME_BYTES.start(), *FRAME_BYTES.end()))
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.windows.left.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

fn as_u32(bytes: u64) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_windows_together_stay_within_their_bytes_but_for_the_minimum() {
        let windows = Arc::new(Windows::new(256 << 20));
        let first = windows.grant();
        assert_eq!((first.connection_bytes(), first.stream_bytes(), first.frame_bytes()), (8 << 20, 4 << 20, 1 << 20));
        let all: Vec<Window> = (0..5_000).map(|_| windows.grant()).collect();
        assert_eq!(all.iter().chain([&first]).map(|window| window.bytes).sum::<u64>(), 256 << 20);
        assert_eq!(all.last().map(Window::connection_bytes), Some(64 << 10));
        assert_eq!(all.last().map(Window::frame_bytes), Some(16 << 10));
        drop((all, first));
        assert_eq!(windows.grant().connection_bytes(), 8 << 20);
    }
}
