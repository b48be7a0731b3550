//! How long to wait before the next attempt: exponential, with jitter, so that clients do not come back all at once.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// Counts failures in a row and turns them into waits.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    pub fn new(first: Duration, max: Duration) -> Self {
        Self { first, max, failures: 0 }
    }

    /// The wait after one more failure: between half and all of `first * 2^failures`, at most `max`.
    pub fn next(&mut self) -> Duration {
        let full = self.first.saturating_mul(1 << self.failures.min(16)).min(self.max);
        self.failures = self.failures.saturating_add(1);
        let half = full / 2;
        half + half.mul_f64(random_fraction())
    }

    /// After a success the next failure waits briefly again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// Evenly between 0 and 1. Not for secrets.
pub(crate) fn random_fraction() -> f64 {
    f64::from(RandomState::new().build_hasher().finish() as u32) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_the_limit_and_start_again() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(400));
        for full_ms in [100, 200, 400, 400] {
            let wait = backoff.next();
            assert!(wait >= Duration::from_millis(full_ms / 2) && wait <= Duration::from_millis(full_ms), "{wait:?}");
        }
        backoff.reset();
        assert!(backoff.next() <= Duration::from_millis(100));
    }
}
