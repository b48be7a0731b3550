//! Ports that are free, and stay it while a node is down between two starts.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// Below the ports that systems give to outgoing connections (on Linux from 32768), so that no client takes one meanwhile.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;
/// How far the starting points of two processes lie apart.
const STRIDE: u32 = 37;

/// Hands out addresses on the loopback interface that nobody listens on, each once.
#[derive(Debug)]
pub(super) struct Ports {
    /// Looked at so far.
    taken: u16,
}

impl Ports {
    pub fn new() -> Self {
        Self { taken: 0 }
    }

    /// The next free address; none if there is none any more.
    pub fn next(&mut self) -> Option<SocketAddr> {
        let start = (std::process::id().wrapping_mul(STRIDE) % u32::from(COUNT)) as u16;
        while self.taken < COUNT {
            let port = FIRST + (start + self.taken) % COUNT;
            self.taken += 1;
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            if TcpListener::bind(address).is_ok() {
                return Some(address);
            }
        }
        None
    }
}
