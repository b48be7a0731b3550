//! Signals that ask the process to stop, told apart as a person means them.

use std::future::poll_fn;
use std::io;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// A terminal, a shell script and timeout(1) may each pass on the same request: what comes so close together is one.
const SAME_REQUEST: Duration = Duration::from_millis(500);

/// Requests to stop. From its creation on, the signals no longer end the process by themselves.
#[derive(Debug)]
pub struct StopRequests {
    signals: Vec<Signal>,
    last: Option<Instant>,
}

impl StopRequests {
    /// Ctrl-C, and what service managers send.
    ///
    /// # Errors
    /// If signals cannot be watched.
    pub fn all() -> io::Result<Self> {
        Ok(Self { signals: vec![signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?], last: None })
    }

    /// The next request. May be dropped while it waits.
    pub async fn next(&mut self) {
        loop {
            poll_fn(|context| {
                let ready = self.signals.iter_mut().any(|signal| signal.poll_recv(context).is_ready());
                if ready { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
            })
            .await;
            let now = Instant::now();
            let repeated = self.last.is_some_and(|last| is_same_request(last, now));
            if !repeated {
                self.last = Some(now);
                return;
            }
        }
    }
}

fn is_same_request(first: Instant, next: Instant) -> bool {
    next.saturating_duration_since(first) < SAME_REQUEST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_close_together_are_one_request() {
        let first = Instant::now();
        assert!(is_same_request(first, first));
        assert!(is_same_request(first, first + SAME_REQUEST / 2));
        assert!(!is_same_request(first, first + SAME_REQUEST));
    }
}
