//! From the configuration to what the broker is opened with.

use std::net::SocketAddr;

use flotilla_broker::{BrokerOptions, JournalOptions, ProduceLimits, SegmentOptions};

use crate::config::{Advertise, Config, JOURNAL_BYTES_MIN, PeerAdvertise, is_unspecified};

/// One journal file holds the largest batch that a topic can accept (16 MiB) with room to spare.
const JOURNAL_FILE_BYTES_MIN: u64 = 32 << 20;
const JOURNAL_FILE_BYTES_MAX: u64 = 256 << 20;
/// Fewer files leave the journal no room to recycle one while it writes another.
const JOURNAL_FILES_MIN: u64 = 4;
/// Files that the ring is cut into if it is large enough.
const JOURNAL_FILES: u64 = 8;

const _: () = assert!(JOURNAL_BYTES_MIN >= JOURNAL_FILE_BYTES_MIN * JOURNAL_FILES_MIN);

/// Puts the broker's options together. `listening` is where the node can be reached if nothing else is advertised.
pub fn broker(config: &Config, listening: SocketAddr) -> BrokerOptions {
    let advertised_address = match &config.advertise {
        Advertise::Listen => listening.to_string(),
        Advertise::At(address) => address.clone(),
    };
    let peer_address = match &config.peer_advertise {
        PeerAdvertise::Advertise => advertised_address.clone(),
        PeerAdvertise::At(address) => address.clone(),
    };
    // With other nodes it is refused: see `config/check.rs`.
    if is_unspecified(&advertised_address) {
        tracing::warn!(
            "clients are told to connect to {advertised_address}, which means themselves: set `advertise` to a HOST:PORT of this node"
        );
    }
    BrokerOptions {
        node_id: config.node_id,
        data_dir: config.data_dir.clone(),
        advertised_address,
        peer_address,
        seeds: config.seeds.0.clone(),
        rack: config.rack.clone(),
        journal: journal(config),
        segments: SegmentOptions { segment_bytes_max: config.segment_bytes.0, ..SegmentOptions::default() },
        proposal_bytes_max: config.proposal_bytes_max.as_usize(),
        tail_bytes_max: config.tail_bytes_max.0,
        produce: ProduceLimits {
            decompressed_bytes_max: config.decompressed_bytes_max.as_usize(),
            records_per_batch_max: config.records_per_batch_max,
        },
        retention_interval: config.retention_interval,
    }
}

fn journal(config: &Config) -> JournalOptions {
    const MIB: u64 = 1 << 20;
    let file_bytes = (config.journal_bytes.0 / JOURNAL_FILES).clamp(JOURNAL_FILE_BYTES_MIN, JOURNAL_FILE_BYTES_MAX) / MIB * MIB;
    let files_max = config.journal_bytes.0 / file_bytes;
    // What is admitted but not yet applied may have to be journaled again beside the full ring.
    let spare = config.proposal_bytes_max.0 / file_bytes + 2;
    let count = |files: u64| u32::try_from(files).unwrap_or(u32::MAX);
    JournalOptions {
        file_bytes,
        files_max: count(files_max),
        files_hard_max: count(files_max + spare),
        ..JournalOptions::default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;
    use crate::config::{Flags, load};

    fn options(journal_bytes: &str) -> BrokerOptions {
        let environment = |name: &str| (name == "FLOTILLA_JOURNAL_BYTES").then(|| journal_bytes.to_owned());
        let (config, _) = load(&Flags::default(), environment, None).unwrap();
        broker(&config, "127.0.0.1:1".parse().unwrap())
    }

    #[test]
    fn the_journal_is_as_large_as_configured_and_can_hold_what_is_admitted_besides() {
        for (text, bytes) in [("128MiB", 128 << 20), ("1GiB", 1 << 30), ("10GiB", 10 << 30), ("1000MB", 1_000_000_000)] {
            let options = options(text);
            let journal = &options.journal;
            let ring = journal.file_bytes * u64::from(journal.files_max);
            assert!(ring <= bytes && ring > bytes / 10 * 8, "{text}: {ring}");
            assert!(journal.files_max >= 4 && journal.file_bytes.is_multiple_of(4096));
            let spare = u64::from(journal.files_hard_max - journal.files_max) * journal.file_bytes;
            assert!(spare > options.proposal_bytes_max as u64, "{text}: {spare}");
        }
    }

    #[test]
    fn the_listening_address_is_advertised_unless_another_is_given() {
        assert_eq!(options("1GiB").advertised_address, "127.0.0.1:1");
    }
}
