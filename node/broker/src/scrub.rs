//! Verifies closed segments in the background, one after the other, so slowly that nobody notices.

use std::collections::BTreeMap;
use std::time::Duration;

use flotilla_raft::disk::error::Class;

use crate::broker::{Broker, Hosted};

/// How fast segments are read.
const BYTES_PER_SECOND: u64 = 16 << 20;
/// Pause between two looks for segments that were not verified yet.
const PAUSE: Duration = Duration::from_secs(60);
/// Every segment is verified again after this many looks, about daily.
const LOOKS_PER_ROUND: u32 = 24 * 60;

impl Broker {
    /// Verifies until the broker stops.
    pub(crate) async fn scrub(self) {
        let mut verified: BTreeMap<u64, u64> = BTreeMap::new();
        for look in 0_u32.. {
            if look % LOOKS_PER_ROUND == 0 {
                verified.clear();
            }
            tokio::select! {
                () = self.inner.stop.cancelled() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
            for (group, hosted) in self.inner.hosted.load_full().iter() {
                let Hosted::Running(partition) = hosted else { continue };
                let next = verified.get(group).copied().unwrap_or(0);
                for segment in partition.group.segments().iter().filter(|s| s.closed && s.first_index >= next) {
                    let stop = self.inner.stop.clone();
                    let result = partition.group.verify_segment(segment.first_index, BYTES_PER_SECOND, stop).await;
                    if self.inner.stop.is_cancelled() {
                        return;
                    }
                    match result {
                        Ok(_) => {}
                        Err(error) if Class::of(&error) == Class::Damage => {
                            let partition = partition.describe();
                            tracing::error!(partition, %error, "verification found damage: what is damaged is not served");
                        }
                        // That says nothing of the data: the next look begins there.
                        Err(error) => {
                            tracing::warn!(partition = partition.describe(), %error, "a segment could not be verified");
                            break;
                        }
                    }
                    verified.insert(*group, segment.first_index + 1);
                }
            }
        }
    }
}
