//! What the journal's integration tests share.

pub mod model;
pub mod world;
