//! How this node reaches others: one link for each pair of nodes, for all groups that they share.
//!
//! - `peers.rs` who there is and to whom there is a link · `dialer.rs` the seam to the network

mod client;
mod dialer;
mod peers;
mod service;
mod urgency;

pub(crate) use client::NoPeers;
pub use dialer::{Dialer, TcpDialer, endpoint};
pub use peers::{LinkState, Peers};
pub use service::PeerService;
pub(crate) use urgency::Urgency;
