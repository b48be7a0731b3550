//! Provokes faults in a cluster while it is written to and read, records everything that clients were told, and checks
//! that every promise held.
//!
//! `flotilla-chaos run` drives real processes: [`cluster`] starts and ends nodes, [`fault`] decides who is hit and how,
//! [`workload`] writes and reads meanwhile, [`run`] puts them together and [`report`] says what came of it.
//! `flotilla-chaos sweep` makes one error, or a kill, at each system call of a node ([`sweep`], by means of [`trap`]).
//! `flotilla-chaos sim` runs whole nodes in a simulation ([`sim`]) that a seed repeats exactly. What is independent of how
//! nodes are run: the [`history`] and its [`checkers`], one file each.

pub mod checkers;
pub mod cluster;
pub mod fault;
pub mod history;
pub mod mounts;
pub mod random;
pub mod report;
pub mod run;
pub mod sim;
pub mod sweep;
pub mod trap;
pub mod workload;
