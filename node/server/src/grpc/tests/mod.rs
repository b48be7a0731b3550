//! The services as a client sees them: a whole node in a temporary directory, called through generated clients.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod bounds;
mod clusters;
mod consume;
mod fleet;
mod forward;
mod forward_streams;
mod node;
mod produce;
mod recreated;
mod refusals;
mod shutdown;
