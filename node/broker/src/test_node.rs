//! What the tests of this crate start nodes with.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Duration;

use flotilla_raft::journal::JournalOptions;
use flotilla_raft::segments::SegmentOptions;
use tokio_util::sync::CancellationToken;

use crate::broker::Broker;
use crate::founding::Home;
use crate::open::BrokerOptions;
use crate::produce::ProduceLimits;
use crate::surroundings::Surroundings;

/// A small node without seeds, which does nothing about retention by itself.
pub(crate) fn options(node_id: u64, data_dir: &Path, address: &str) -> BrokerOptions {
    BrokerOptions {
        node_id,
        data_dir: data_dir.to_owned(),
        advertised_address: address.to_owned(),
        peer_address: address.to_owned(),
        seeds: Vec::new(),
        rack: String::new(),
        journal: JournalOptions { file_bytes: 16 << 20, files_max: 4, files_hard_max: 8, ..JournalOptions::default() },
        segments: SegmentOptions::default(),
        proposal_bytes_max: 16 << 20,
        tail_bytes_max: 16 << 20,
        produce: ProduceLimits { decompressed_bytes_max: 1 << 20, records_per_batch_max: 1_000 },
        retention_interval: Duration::from_secs(3_600),
    }
}

/// A node on its own, ready. Nobody connects to it, so it does not listen.
pub(crate) async fn alone(data_dir: &Path, surroundings: Surroundings) -> Broker {
    let options = options(1, data_dir, "127.0.0.1:17300");
    let member = match Home::find(&options, &surroundings).unwrap() {
        Home::Member(member) => member,
        Home::Newcomer(newcomer) => newcomer.join(&CancellationToken::new()).await.unwrap(),
    };
    let broker = Broker::open(options, member, surroundings).await.unwrap();
    broker.wait_ready().await.unwrap();
    broker
}
