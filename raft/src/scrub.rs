//! Background verification: reads closed segments from the disk, slowly, and checks every byte, so that damage is
//! found while a good copy exists elsewhere and not when the data is needed.

use std::ops::ControlFlow;
use std::thread;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::group::{Group, ReadError};
use crate::segments::SegmentError;

impl Group {
    /// Verifies the closed segment that starts at raft index `first_index`, at about `bytes_per_second`; returns the
    /// bytes read, 0 if the segment went away meanwhile. `stop` breaks it off.
    ///
    /// # Errors
    /// [`ReadError::Segment`] names the damage.
    pub async fn verify_segment(
        &self,
        first_index: u64,
        bytes_per_second: u64,
        stop: CancellationToken,
    ) -> Result<u64, ReadError> {
        let log = self.log().clone();
        let verify = move || {
            let started = Instant::now();
            let mut read = 0;
            let verified = log.reader().verify(first_index, |bytes| {
                read += bytes;
                let due = Duration::from_secs_f64(read as f64 / bytes_per_second.max(1) as f64);
                thread::sleep(due.saturating_sub(started.elapsed()));
                if stop.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            log.noting_damage(verified)
        };
        match self.log().lives().driver().run(verify).await.map_err(ReadError::Stopped)? {
            Err(SegmentError::NoSuchSegment { .. }) => Ok(0),
            verified => Ok(verified?),
        }
    }
}
