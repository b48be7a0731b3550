//! Figures of the broker: the cluster, partitions, replication, the journal.

use std::fmt;
use std::sync::{Arc, OnceLock};

use flotilla_broker::{Broker, BrokerStats, Class, JournalFigures, PartitionStats};
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
        let restarts = "Groups that were started again from the disk because their core had died";
        scrape.counter("group_restarts", restarts, stats.group_restarts as f64)?;
        let failed = broker.failure().get().is_some();
        scrape.gauge("storage_failed", "1 once a write or sync has failed", u64::from(failed))?;
        let troubles = broker.troubles().figures();
        scrape.gauge("storage_troubles", "What of this node's storage is in trouble now", troubles.now as u64)?;
        let errors = "Storage errors, by what follows: damage (heals from peers), full (waits), final (opens again), passing (tried again)";
        scrape.counters("storage_errors", errors, "class", Class::ALL.map(|class| (class.name(), troubles.counted(class))))?;
        partitions(&mut scrape, &stats.partitions)?;
        replication(&mut scrape, &stats)?;
        journal(&mut scrape, &stats.journal)
    }
}

fn partitions(scrape: &mut Scrape<'_>, partitions: &PartitionStats) -> Result<(), fmt::Error> {
    scrape.gauge("partitions", "Partitions of which this node has a replica", partitions.hosted as u64)?;
    let down = "Partitions that this node should serve but cannot: damaged data";
    scrape.gauge("partitions_down", down, partitions.down as u64)?;
    scrape.gauge("partitions_led", "Partitions that this node leads", partitions.led as u64)?;
    let under = "Partitions led by this node of which a replica is not in sync";
    scrape.gauge("partitions_under_replicated", under, partitions.under_replicated as u64)?;
    let moving = "Partitions led by this node that are on their way to other nodes";
    scrape.gauge("partitions_moving", moving, partitions.moving as u64)?;
    let leaderless = "Partitions with a replica here of which this node knows no leader";
    scrape.gauge("partitions_leaderless", leaderless, partitions.leaderless as u64)?;
    let offline = "Partitions with a replica here of whose replicas this node reaches no majority";
    scrape.gauge("partitions_offline", offline, partitions.offline as u64)
}

fn replication(scrape: &mut Scrape<'_>, stats: &BrokerStats) -> Result<(), fmt::Error> {
    let reached = "Nodes of the cluster that this one reaches, itself included";
    scrape.gauge("nodes_reached", reached, stats.nodes_reached as u64)?;
    scrape.gauge("controller_leader", "1 on the node that leads the controller", u64::from(stats.leads_controller))?;
    scrape.counter("elections_won", "Times that this node began to lead a group", stats.elections_won as f64)?;
    let lag = "Entries that the slowest replica lacks of any partition that this node leads";
    scrape.gauge("replication_lag_entries", lag, stats.partitions.lag_entries_max)?;
    let transfers = &stats.transfers;
    scrape.counter("snapshots_sent", "Snapshots sent to other replicas and installed there", transfers.sent as f64)?;
    let sent_bytes = "Bytes of snapshots sent, also of transfers that were cut";
    scrape.counter("snapshots_sent_bytes", sent_bytes, transfers.sent_bytes as f64)?;
    scrape.counter("snapshots_received", "Snapshots received and installed here", transfers.received as f64)?;
    let received_bytes = "Bytes of snapshots received, also of transfers that were cut";
    scrape.counter("snapshots_received_bytes", received_bytes, transfers.received_bytes as f64)?;
    let interrupted = "Transfers of snapshots from here that were cut; they go on where they were";
    scrape.counter("snapshots_interrupted", interrupted, transfers.interrupted as f64)
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
