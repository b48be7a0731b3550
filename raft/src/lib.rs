//! Hosts many Raft groups over openraft. Knows nothing about messages: a machine (`machine.rs`) is given
//! opaque items and says which of them stay readable.
//!
//! A [`Registry`](registry::Registry) holds one node's groups over one [journal], one [state] and one flusher;
//! a [`Group`](group::Group) proposes and reads. openraft appears in `group.rs`, `log/`, `network/` and `snapshot/` only.

mod admission;
mod barrier;
pub mod data_dir;
pub mod disk;
pub mod driver;
pub mod failure;
pub mod figures;
mod flusher;
pub mod group;
mod heard;
mod holders;
pub mod inspect;
mod joining;
pub mod journal;
mod lease;
mod log;
pub mod machine;
pub mod network;
pub mod planted;
pub mod proposals;
mod quorum;
pub mod registry;
pub mod replicas;
pub mod roster;
mod scrub;
pub mod segments;
pub mod snapshot;
pub mod standing;
pub mod state;
mod tail_budget;
pub mod tripwire;
pub mod troubles;
pub mod types;
