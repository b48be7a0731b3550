//! The longest time in which records waited and none was acknowledged: what somebody who writes notices of a failure.

use std::cell::Cell;
use std::convert::Infallible;
use std::time::{Duration, Instant};

use flotilla_client::Producer;

/// How exact it is.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// Looks at a producer's counts.
pub(super) struct Pauses<'a> {
    producer: &'a Producer,
    /// Records handed over so far.
    sent: &'a Cell<u64>,
    pause: Pause,
}

impl<'a> Pauses<'a> {
    pub fn new(producer: &'a Producer, sent: &'a Cell<u64>) -> Self {
        Self { producer, sent, pause: Pause::new(Instant::now()) }
    }

    /// Looks for ever.
    pub async fn watch(&mut self) -> Infallible {
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            let stats = self.producer.stats();
            let resolved = stats.acked_records + stats.failed_records + stats.unknown_records;
            self.pause.look(stats.acked_records, self.sent.get() > resolved, Instant::now());
        }
    }

    /// The longest so far.
    pub fn longest(&self) -> Duration {
        self.pause.longest
    }
}

#[derive(Debug)]
struct Pause {
    acked: u64,
    since: Instant,
    longest: Duration,
}

impl Pause {
    fn new(now: Instant) -> Self {
        Self { acked: 0, since: now, longest: Duration::ZERO }
    }

    fn look(&mut self, acked: u64, waiting: bool, now: Instant) {
        if acked == self.acked && waiting {
            self.longest = self.longest.max(now.saturating_duration_since(self.since));
        } else {
            self.acked = acked;
            self.since = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_time_in_which_somebody_waits_counts() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut pause = Pause::new(start);
        pause.look(0, false, at(500));
        assert_eq!(pause.longest, Duration::ZERO, "nothing was sent yet");
        pause.look(0, true, at(520));
        pause.look(7, true, at(530));
        assert_eq!(pause.longest, Duration::from_millis(20));
        pause.look(7, true, at(600));
        assert_eq!(pause.longest, Duration::from_millis(70), "also while it lasts");
        pause.look(9, false, at(610));
        pause.look(9, false, at(9_000));
        assert_eq!(pause.longest, Duration::from_millis(70), "there was nothing to wait for");
    }
}
