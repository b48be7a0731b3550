//! Several nodes in one process, over real sockets and real disks: see `cluster.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod admission;
mod cluster;
mod failover;
mod healing;
mod hostile;
mod identity;
mod line;
mod links;
mod members;
mod replication;
mod snapshots;
mod tripwire;
