//! How many connections the system allows: each takes a file descriptor, and storage must never be without one.

use rustix::process::{Resource, getrlimit};

use crate::config::Auto;

/// Of the gRPC port, where nothing is configured and the system allows as many.
const CLIENTS_DEFAULT: u64 = 10_000;
/// Kept for other nodes when clients take all they may.
const PEERS_MAX: u64 = 256;
/// Of the HTTP port: probes and scrapes.
const HTTP_MAX: u64 = 64;

/// The connections that a node may have open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Of clients, on the gRPC port.
    pub clients: usize,
    /// Of other nodes, besides.
    pub peers: usize,
    /// On the HTTP port.
    pub http: usize,
}

impl ConnectionLimits {
    /// What is configured, as far as this process may open files.
    pub fn new(connections_max: Auto<u32>) -> Self {
        let files_max = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let limits = Self::within(connections_max, files_max);
        if let Auto::Given(wanted) = connections_max
            && limits.clients < wanted as usize
        {
            let allowed = limits.clients;
            tracing::warn!(
                wanted,
                allowed,
                files_max,
                "fewer connections than configured: raise the limit of open files (ulimit -n)"
            );
        }
        limits
    }

    /// Half of the descriptors are storage's.
    fn within(connections_max: Auto<u32>, files_max: u64) -> Self {
        let (peers, http) = (PEERS_MAX.min(files_max / 16), HTTP_MAX.min(files_max / 32));
        let wanted = match connections_max {
            Auto::Auto => CLIENTS_DEFAULT,
            Auto::Given(connections) => u64::from(connections),
        };
        let clients = wanted.min(files_max / 2 - peers - http).max(1);
        let count = |connections: u64| usize::try_from(connections).unwrap_or(usize::MAX);
        Self { clients: count(clients), peers: count(peers), http: count(http) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_descriptors_stay_with_storage() {
        for (wanted, files_max, clients) in [
            (Auto::Auto, 1 << 20, 10_000),
            (Auto::Auto, 1_024, 512 - 64 - 32),
            (Auto::Given(20_000), 1 << 20, 20_000),
            (Auto::Given(20_000), 4_096, 2_048 - 256 - 64),
            (Auto::Given(5), 4_096, 5),
            (Auto::Auto, 0, 1),
        ] {
            let limits = ConnectionLimits::within(wanted, files_max);
            assert_eq!(limits.clients, clients, "{wanted:?} of {files_max}");
            assert!((limits.clients + limits.peers + limits.http) as u64 <= (files_max / 2).max(1) || clients == 5);
        }
    }
}
