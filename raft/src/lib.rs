//! Hosts many Raft groups over openraft. Knows nothing about messages: a machine (`machine.rs`) is given
//! opaque items and says which of them stay readable.

pub mod disk;
pub mod types;
