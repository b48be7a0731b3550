//! Faults: who is hit, how, and how it is undone.

mod victims;

use std::io;

use clap::ValueEnum;
use serde::Serialize;

use crate::cluster::{Cluster, Node};
use crate::history::Micros;
pub use victims::{Leaders, choose};

/// What is done to nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// kill -9 a random node, start it again
    Kill,
    /// kill -9 the node that leads the most partitions, start it again
    KillLeaderOfMost,
    /// SIGSTOP a random node, SIGCONT it: it comes back believing that it still leads
    Stop,
    /// kill -9 all nodes at once, start them again
    AllKill,
    /// SIGTERM the next node (a rolling restart), start it again
    Restart,
    /// Add a new node, then have the oldest one leave for good
    Replace,
}

/// A fault that happened.
#[derive(Debug, Clone, Serialize)]
pub struct Strike {
    /// What.
    pub fault: Fault,
    /// Whom it hit.
    pub nodes: Vec<u64>,
    /// When.
    pub at: Micros,
    /// When it was undone.
    pub healed_at: Option<Micros>,
    /// When the last of the nodes said that it is ready again.
    pub ready_at: Option<Micros>,
}

impl Fault {
    /// Does it to `nodes`.
    ///
    /// # Errors
    /// If one of them does not run, or not everything went as planned.
    pub async fn inject(self, cluster: &mut Cluster, nodes: &[u64]) -> io::Result<()> {
        for id in nodes {
            match self {
                Self::Kill | Self::KillLeaderOfMost | Self::AllKill => node(cluster, *id)?.kill()?,
                Self::Stop => node(cluster, *id)?.pause()?,
                Self::Restart => match node(cluster, *id)?.stop().await {
                    Some(unclean) => return Err(io::Error::other(unclean)),
                    None => continue,
                },
                Self::Replace => cluster.replace(*id).await?,
            }
        }
        if matches!(self, Self::Kill | Self::KillLeaderOfMost | Self::AllKill) {
            // Only now, so that several end at the same moment.
            for id in nodes {
                node(cluster, *id)?.reap().await?;
            }
        }
        Ok(())
    }

    /// Undoes it.
    ///
    /// # Errors
    /// If a process cannot be started, or has ended meanwhile.
    pub fn heal(self, cluster: &mut Cluster, nodes: &[u64]) -> io::Result<()> {
        for id in nodes {
            match self {
                Self::Kill | Self::KillLeaderOfMost | Self::AllKill | Self::Restart => node(cluster, *id)?.start()?,
                Self::Stop => node(cluster, *id)?.resume()?,
                // It has left for good.
                Self::Replace => {}
            }
        }
        Ok(())
    }
}

fn node(cluster: &mut Cluster, id: u64) -> io::Result<&mut Node> {
    cluster.node(id).ok_or_else(|| io::Error::other(format!("there is no node {id}")))
}
