//! Whole nodes in one process, one thread and one order: the real Raft host, machines, broker and links between nodes, over
//! a simulated network (turmoil), simulated disks that lose and tear what was not synced, and simulated time. Everything random
//! follows from a seed, so a run happens again, byte for byte, for whoever has its seed.
//!
//! - `isolation.rs` randomness and clocks of the thread · `network.rs` connections · `node.rs` a machine and its processes
//! - `faults.rs` what is done when · `world.rs` does it, step by step · `invariants.rs` what holds at every moment
//! - `clients.rs` who writes and reads · `operator.rs` who moves replicas · `finish.rs` what must come after healing · `run.rs` all of it, judged
//! - `trace.rs` what is said

pub mod clients;
pub mod faults;
mod finish;
pub mod invariants;
pub mod isolation;
pub mod network;
pub mod node;
mod operator;
pub mod run;
pub mod trace;
pub mod world;

pub use faults::Scenario;
pub use run::{Options, Outcome, Planted, run};
