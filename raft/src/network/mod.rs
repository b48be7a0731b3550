//! How this node's groups reach their replicas on others: one link for each pair of nodes, for all groups that they
//! share. Of two nodes, the one with the higher id dials; once the link is up, both ends are alike. It carries frames,
//! many in one message, each for one group: appends in streams, heartbeats, votes, and what the layer above casts.
//! Snapshots go over connections of their own, so that they hold up nobody.
//!
//! - `peers.rs` who there is and to whom there is a link · `dialer.rs` the seam to the network · `service.rs` what others call
//! - `connect.rs` opening and running a link · `link.rs` what is asked over it · `outbox.rs` what waits for it
//! - `inbound.rs` what comes in · `recipient.rs` whether it is for whom lives here · `wire.rs` frames and openraft's messages
//! - `client.rs` openraft's view · `appends.rs` a stream of appends · `sending.rs`, `receiving.rs` snapshots
//! - `urgency.rs` who waits for heartbeats

mod appends;
mod client;
mod connect;
mod dialer;
mod inbound;
mod link;
mod outbox;
mod peers;
mod receiving;
mod recipient;
mod sending;
mod service;
#[cfg(test)]
mod tests;
mod urgency;
mod wire;

pub(crate) use client::Network;
pub use dialer::{Dialer, TcpDialer, endpoint};
pub use peers::{LinkState, Peers};
pub(crate) use sending::Transfers;
pub use service::PeerService;
pub(crate) use urgency::Urgency;
