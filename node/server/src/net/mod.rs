//! The node's ports: how many connections there may be, who gives way to whom, how long a client may take to begin, and
//! what it may send before it is read.

mod accept;
mod limits;
mod preface;
mod slots;
mod windows;

use std::sync::Arc;

pub use accept::accept;
pub use limits::ConnectionLimits;
pub use preface::greet;
pub use slots::{Full, OpenCall, Slot, Slots};
pub use windows::{Window, Windows};

/// What the connections of the gRPC port may take. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Capacity {
    /// How many there may be.
    pub slots: Arc<Slots>,
    /// What they may send before it is read.
    pub windows: Arc<Windows>,
}

impl Capacity {
    /// As many connections as `limits` says, which share `window_bytes`.
    pub fn new(limits: &ConnectionLimits, window_bytes: u64) -> Self {
        let slots = Arc::new(Slots::new(limits.clients, limits.peers));
        Self { slots, windows: Arc::new(Windows::new(window_bytes)) }
    }
}
