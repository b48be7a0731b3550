//! Whole nodes in one process, one thread and one order: the real Raft host, machines, broker and links between nodes, over
//! a simulated network (turmoil), simulated disks that lose and tear what was not synced, and simulated time. Everything random
//! follows from a seed, so a run happens again, byte for byte, for whoever has its seed.
//!
//! - `plan/` what is done when, as data · `shrink.rs` less of it that still breaks a promise
//! - `isolation.rs` randomness and clocks of the thread · `network.rs` connections · `node.rs` a machine and its processes
//! - `disk/` what its files do · `rows.rs` what its rows do
//! - `world.rs` goes on step by step, `acts.rs` does what is due · `invariants.rs` what holds at every moment · `health.rs` what nodes
//!   say about it
//! - `clients.rs` who writes and reads · `operator.rs` who moves replicas · `finish.rs` what must come after healing · `run.rs` all of it, judged
//! - `trace.rs` what is said

mod acts;
pub mod clients;
pub mod disk;
mod finish;
pub mod health;
pub mod invariants;
pub mod isolation;
pub mod network;
pub mod node;
mod operator;
pub mod plan;
pub mod rows;
pub mod run;
pub mod shrink;
pub mod trace;
pub mod world;

pub use plan::{Given, Plan, Scenario};
pub use run::{Outcome, Planted, Ran, run};
