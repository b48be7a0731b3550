//! The ranges of settings, and which of them do not go together. Here, so that `config print` refuses what a server
//! would refuse.

use std::net::SocketAddr;
use std::time::Duration;

use super::value::{Auto, Size, Value};
use super::{Advertise, Config, ConfigError, Entry, PeerAdvertise};

/// Four files of 32 MiB: what the largest batch needs, and the fewest with which a ring turns.
pub const JOURNAL_BYTES_MIN: u64 = 128 << 20;
const SEGMENT_BYTES_MIN: u64 = 1 << 20;
const TAIL_BYTES_MIN: u64 = 1 << 20;
/// Room for a batch of some size and what surrounds it in a request.
const REQUEST_BYTES_MIN: u64 = 64 << 10;
const PUSH_BYTES_MIN: u64 = 4 << 10;
/// Each round looks at every partition.
const RETENTION_INTERVAL_MIN: Duration = Duration::from_millis(100);

/// Checks all settings. `entries` know where each came from.
pub fn check(config: &Config, entries: &[Entry]) -> Result<(), ConfigError> {
    let of = Origins { entries };
    of.at_least("node_id", config.node_id, 1)?;
    of.at_least("journal_bytes", config.journal_bytes, Size(JOURNAL_BYTES_MIN))?;
    of.at_least("segment_bytes", config.segment_bytes, Size(SEGMENT_BYTES_MIN))?;
    of.at_least("retention_interval", config.retention_interval, RETENTION_INTERVAL_MIN)?;
    of.at_least("tail_bytes_max", config.tail_bytes_max, Size(TAIL_BYTES_MIN))?;
    of.at_least("request_bytes_max", config.request_bytes_max, Size(REQUEST_BYTES_MIN))?;
    of.at_least("decompressed_bytes_max", config.decompressed_bytes_max, Size(REQUEST_BYTES_MIN))?;
    of.at_least("records_per_batch_max", config.records_per_batch_max, 1)?;
    of.at_least("stream_in_flight_max", config.stream_in_flight_max, 1)?;
    of.at_least("stream_in_flight_bytes_max", config.stream_in_flight_bytes_max, Size(REQUEST_BYTES_MIN))?;
    of.at_least("push_bytes_max", config.push_bytes_max, Size(PUSH_BYTES_MIN))?;
    if let Auto::Given(connections_max) = config.connections_max {
        of.at_least("connections_max", connections_max, 1)?;
    }
    for (name, bytes_max) in [
        ("proposal_bytes_max", config.proposal_bytes_max),
        ("receive_bytes_max", config.receive_bytes_max),
        ("send_bytes_max", config.send_bytes_max),
    ] {
        if bytes_max < config.request_bytes_max {
            let (value, min) = (bytes_max.show(), config.request_bytes_max.show());
            return Err(of.invalid(name, format!("{value} is too small: use at least {min}, which is request_bytes_max")));
        }
    }
    if collide(config.listen, config.http) {
        let why = format!("{} is taken by listen ({}): the two need a port each", config.http, config.listen);
        return Err(of.invalid("http", why));
    }
    of.reachable(config)
}

/// Whether an address names every address of whoever connects to it, and so no other machine.
pub fn is_unspecified(address: &str) -> bool {
    address.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_unspecified())
}

/// Whether two sockets cannot listen at both addresses. The system chooses a port of its own for 0.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let same_host = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    same_host && one.port() == other.port() && one.port() != 0
}

struct Origins<'a> {
    entries: &'a [Entry],
}

impl Origins<'_> {
    /// Whoever is told 0.0.0.0 connects to itself: another node would take its own answers for this one's.
    fn reachable(&self, config: &Config) -> Result<(), ConfigError> {
        const ADVICE: &str = "which means whoever connects to it, not this node: use a HOST:PORT at which others reach it";
        let (clients, peers) = (&config.advertise, &config.peer_advertise);
        if let Advertise::At(address) = clients
            && is_unspecified(address)
        {
            return Err(self.invalid("advertise", format!("{address}, {ADVICE}")));
        }
        if let PeerAdvertise::At(address) = peers
            && is_unspecified(address)
        {
            return Err(self.invalid("peer_advertise", format!("{address}, {ADVICE}")));
        }
        let listening = config.listen.ip().is_unspecified() && matches!(clients, Advertise::Listen);
        if listening && !config.seeds.0.is_empty() {
            let why = format!("the other nodes would be told {}, {ADVICE}", config.listen);
            return Err(self.invalid("advertise", why));
        }
        Ok(())
    }

    fn at_least<T: Value + PartialOrd>(&self, name: &'static str, value: T, min: T) -> Result<(), ConfigError> {
        if value >= min {
            return Ok(());
        }
        Err(self.invalid(name, format!("{} is too small: use at least {}", value.show(), min.show())))
    }

    fn invalid(&self, name: &'static str, why: String) -> ConfigError {
        let origin = self.entries.iter().find(|entry| entry.setting.name == name).map(|entry| entry.origin.clone());
        ConfigError::Invalid { name, why, origin: origin.unwrap_or(super::Origin::Default) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use crate::config::{Flags, load};

    fn refused(settings: &[(&str, &str)]) -> String {
        let find = |name: &str| settings.iter().find(|(setting, _)| name == *setting).map(|(_, value)| (*value).to_owned());
        load(&Flags::default(), find, None).unwrap_err().to_string()
    }

    #[test]
    fn what_is_too_small_is_named_with_its_origin_and_the_least_that_works() {
        for (setting, value, min) in [
            ("NODE_ID", "0", "1"),
            ("CONNECTIONS_MAX", "0", "1"),
            ("JOURNAL_BYTES", "127MiB", "128MiB"),
            ("SEGMENT_BYTES", "1KiB", "1MiB"),
            ("RETENTION_INTERVAL", "0", "100ms"),
            ("TAIL_BYTES_MAX", "0", "1MiB"),
            ("REQUEST_BYTES_MAX", "1000", "64KiB"),
            ("DECOMPRESSED_BYTES_MAX", "0", "64KiB"),
            ("RECORDS_PER_BATCH_MAX", "0", "1"),
            ("STREAM_IN_FLIGHT_MAX", "0", "1"),
            ("STREAM_IN_FLIGHT_BYTES_MAX", "0", "64KiB"),
            ("PUSH_BYTES_MAX", "0", "4KiB"),
            ("PROPOSAL_BYTES_MAX", "1MiB", "32MiB, which is request_bytes_max"),
            ("RECEIVE_BYTES_MAX", "1MiB", "32MiB, which is request_bytes_max"),
            ("SEND_BYTES_MAX", "1MiB", "32MiB, which is request_bytes_max"),
        ] {
            let variable = format!("FLOTILLA_{setting}");
            let name = setting.to_lowercase();
            let expected = format!("{name} (environment {variable}): {value} is too small: use at least {min}");
            assert_eq!(refused(&[(&variable, value)]), expected);
        }
    }

    #[test]
    fn the_two_ports_differ() {
        for (listen, http) in [("127.0.0.1:7070", "127.0.0.1:7070"), ("0.0.0.0:7", "127.0.0.1:7"), ("127.0.0.1:7", "[::]:7")] {
            let error = refused(&[("FLOTILLA_LISTEN", listen), ("FLOTILLA_HTTP", http)]);
            assert!(error.starts_with(&format!("http (environment FLOTILLA_HTTP): {http} is taken by listen")), "{error}");
        }
        for (listen, http) in [("127.0.0.1:0", "127.0.0.1:0"), ("127.0.0.1:7", "127.0.0.2:7")] {
            let find = |name: &str| match name {
                "FLOTILLA_LISTEN" => Some(listen.to_owned()),
                "FLOTILLA_HTTP" => Some(http.to_owned()),
                _ => None,
            };
            load(&Flags::default(), find, None).unwrap();
        }
    }
}
