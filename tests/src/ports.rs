//! Ports that are free, and stay it while a server is down between two starts.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the ports that systems give to outgoing connections (on Linux from 32768), so that no client takes one meanwhile.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;
/// How far the starting points of two test processes lie apart.
const STRIDE: u32 = 37;

static TAKEN: AtomicU16 = AtomicU16::new(0);

/// An address on the loopback interface that nobody listens on.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn free() -> SocketAddr {
    let start = (std::process::id().wrapping_mul(STRIDE) % u32::from(COUNT)) as u16;
    for _ in 0..COUNT {
        let port = FIRST + (start + TAKEN.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no port from {FIRST} on is free");
}
