//! Ports that are free, and stay it while a node is down between two starts.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the ports that systems give to outgoing connections (on Linux from 32768), so that no client takes one meanwhile.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;
/// How far the starting points of two processes lie apart.
const STRIDE: u32 = 37;

/// Hands out addresses on the loopback interface that nobody listens on, each once. Clones share what they hand out.
#[derive(Debug, Clone, Default)]
pub struct Ports {
    /// Looked at so far.
    taken: Arc<AtomicU16>,
}

impl Ports {
    /// The next free address; none if there is none any more.
    pub(super) fn next(&self) -> Option<SocketAddr> {
        let start = (std::process::id().wrapping_mul(STRIDE) % u32::from(COUNT)) as u16;
        // Whoever runs for days comes round: what was given up long ago is free again.
        let addresses = (0..COUNT).map(|_| {
            let taken = self.taken.fetch_add(1, Ordering::Relaxed);
            SocketAddr::from((Ipv4Addr::LOCALHOST, FIRST + start.wrapping_add(taken) % COUNT))
        });
        addresses.into_iter().find(|address| TcpListener::bind(address).is_ok())
    }
}
