//! Faults: who is hit, how, and how it is undone.

mod links;
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
    /// Cut a random node off from all others; clients reach it (as all cuts: needs root and `ip`)
    Alone,
    /// Cut the nodes into a minority and a majority
    Halves,
    /// Cut links until each node reaches its two neighbours only
    Ring,
    /// Nothing that a random node sends to others arrives; it hears them
    OneWay,
    /// Cut a random node off from clients; nodes reach it
    ClientsOnly,
    /// Cut the power of a random node: what was not synced is gone (needs root and loop devices)
    PowerCut,
    /// Cut the power of a majority at once
    PowerCutMajority,
    /// Cut the power of all nodes at once
    PowerCutAll,
    /// Another one of the above each time, as far as this machine can do them
    Mix,
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
    /// What [`Mix`](Self::Mix) is made of. Not what takes minutes.
    pub const MIXED: [Self; 13] = [
        Self::Kill,
        Self::KillLeaderOfMost,
        Self::Stop,
        Self::AllKill,
        Self::Restart,
        Self::Alone,
        Self::Halves,
        Self::Ring,
        Self::OneWay,
        Self::ClientsOnly,
        Self::PowerCut,
        Self::PowerCutMajority,
        Self::PowerCutAll,
    ];

    /// Whether it is done to the network.
    #[must_use]
    pub fn cuts(self) -> bool {
        matches!(self, Self::Alone | Self::Halves | Self::Ring | Self::OneWay | Self::ClientsOnly)
    }

    /// Whether it needs disks whose power can be cut.
    #[must_use]
    pub fn cuts_power(self) -> bool {
        matches!(self, Self::PowerCut | Self::PowerCutMajority | Self::PowerCutAll)
    }

    /// Does it to `nodes`.
    ///
    /// # Errors
    /// If one of them does not run, or not everything went as planned.
    pub async fn inject(self, cluster: &mut Cluster, nodes: &[u64]) -> io::Result<()> {
        if self.cuts() {
            let all: Vec<u64> = cluster.nodes().iter().map(Node::id).collect();
            return cluster.cut(&links::cut(self, nodes, &all));
        }
        if self.cuts_power() {
            return cluster.cut_power(nodes).await;
        }
        for id in nodes {
            match self {
                Self::Kill | Self::KillLeaderOfMost | Self::AllKill => node(cluster, *id)?.kill()?,
                Self::Stop => node(cluster, *id)?.pause()?,
                Self::Restart => match node(cluster, *id)?.stop().await {
                    Some(unclean) => return Err(io::Error::other(unclean)),
                    None => continue,
                },
                Self::Replace => cluster.replace(*id).await?,
                _ => return Err(io::Error::other("it is not done to single nodes")),
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
        if self.cuts() {
            return cluster.mend();
        }
        for id in nodes {
            match self {
                Self::Stop => node(cluster, *id)?.resume()?,
                // It has left for good.
                Self::Replace => {}
                _ => node(cluster, *id)?.start()?,
            }
        }
        Ok(())
    }
}

fn node(cluster: &mut Cluster, id: u64) -> io::Result<&mut Node> {
    cluster.node(id).ok_or_else(|| io::Error::other(format!("there is no node {id}")))
}
