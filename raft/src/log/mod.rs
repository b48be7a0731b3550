//! openraft's log store and state machine over journal, segments and state. Everything openraft stays in this
//! folder, `network/` and `group.rs`.

pub(crate) mod convert;
pub(crate) mod decisions;
pub(crate) mod group_log;
mod leftovers;
pub(crate) mod life_writer;
pub(crate) mod lives;
pub(crate) mod machine_store;
pub(crate) mod restore;
pub(crate) mod salvage;
pub(crate) mod store;
pub(crate) mod tail;
#[cfg(test)]
pub(crate) mod tests;
pub mod type_config;
