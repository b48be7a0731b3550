//! Figures of the broker: topics, partitions, the journal.

use std::fmt;
use std::sync::{Arc, OnceLock};

use flotilla_broker::{Broker, JournalFigures};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::scrape::Scrape;

const NANOS_PER_SECOND: f64 = 1e9;

/// The broker whose figures are shown, once it is open.
#[derive(Clone, Default)]
pub struct Watched(pub Arc<OnceLock<Broker>>);

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("open", &self.0.get().is_some()).finish()
    }
}

impl Collector for Watched {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(broker) = self.0.get() else { return Ok(()) };
        let (stats, mut scrape) = (broker.stats(), Scrape(encoder));
        scrape.gauge("topics", "Topics of the cluster", stats.topics as u64)?;
        scrape.gauge("partitions", "Partitions that this node serves", stats.partitions as u64)?;
        let down = "Partitions that this node should serve but cannot: damaged data";
        scrape.gauge("partitions_down", down, stats.partitions_down as u64)?;
        let failed = broker.failure().get().is_some();
        scrape.gauge("storage_failed", "1 once a write or sync has failed", u64::from(failed))?;
        journal(&mut scrape, &stats.journal)
    }
}

fn journal(scrape: &mut Scrape<'_>, journal: &JournalFigures) -> Result<(), fmt::Error> {
    scrape.counter("journal_batches", "Batches that the journal wrote, each with one sync", journal.batches() as f64)?;
    let submissions = "Appends, votes and marks that the journal's batches carried";
    scrape.counter("journal_submissions", submissions, journal.submissions as f64)?;
    scrape.counter("journal_bytes", "Bytes that the journal wrote, padding included", journal.bytes() as f64)?;
    let busy = "Time that the journal spent writing and syncing";
    scrape.counter("journal_busy_seconds", busy, journal.busy().as_secs_f64())?;
    let batch_bytes = "Bytes of each batch of the journal, padding included";
    scrape.histogram("journal_batch_bytes", batch_bytes, &journal.batch_bytes, 1.0)?;
    let sync_seconds = "Time that write and sync of each batch of the journal took together";
    scrape.histogram("journal_sync_seconds", sync_seconds, &journal.batch_nanos, NANOS_PER_SECOND)
}
