//! The task that drives the journal's writer where there shall be no thread: in simulations.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::thread::RETRY_AFTER;
use super::writer::{Journal, Step};

/// Writes whatever is submitted until the journal is closed, then seals. Each step that finds work takes `device` long, then
/// happens at once: what was submitted meanwhile goes with it.
pub async fn drive(mut journal: Journal, device: Arc<dyn Fn() -> Duration + Send + Sync>) {
    let start = Instant::now();
    loop {
        if journal.has_work() {
            sleep(device()).await;
        }
        let step = journal.step(start.elapsed());
        if let Some(next) = journal.take_preparation() {
            next.run();
        }
        let patience = match step {
            Step::Wrote => continue,
            Step::Idle { seal_in } => seal_in,
            Step::Waiting => Some(RETRY_AFTER),
            Step::Failed if !journal.is_closing() => None,
            Step::Failed | Step::Closed => return,
        };
        let woken = journal.woken();
        match patience {
            Some(patience) => drop(timeout(patience, woken).await),
            None => woken.await,
        }
    }
}
