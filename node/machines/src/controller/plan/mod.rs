//! Plans: which nodes should have which replicas. Pure functions of the [image](super::Image) and of who is online; what
//! they give becomes commands, and the machine checks those again, because the image may have changed meanwhile.
//!
//! The controller's leader asks again and again, with what became of the last answers. Each answer brings the cluster
//! nearer to rest, and at rest they are empty: nothing is on a node that leaves, replicas stand in as many racks as they
//! can, and nodes differ by one replica at most, as far as racks allow and as single moves lead there.

mod moves;
mod nodes;
mod place;

pub use moves::{futile_moves, moves};
pub use place::place;

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Each copy needs a node of its own.
    #[error("{replication_factor} copies need as many active nodes, there are {active}: ask for fewer copies, or add nodes")]
    TooFewNodes {
        /// Copies asked for.
        replication_factor: u32,
        /// Active nodes.
        active: usize,
    },
}
