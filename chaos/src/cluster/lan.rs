//! A network of this run's own: each node in a network namespace, all of them and this process's clients on one bridge, which
//! has a namespace of its own, so that the machine's filters do not see it. Every direction between two of them can be cut.
//!
//! A cut is a neighbour that nobody is: whoever sends gets no error, and nothing arrives. Needs root and `ip`. Namespaces
//! are named after this process; those of a process that was killed are deleted by the next.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// Names of namespaces begin so.
const PREFIX: &str = "flotilla-chaos";
/// The range for measurements of networks (RFC 2544): nobody else's.
const NETWORK: [u8; 2] = [198, 18];
const CLIENTS_HOST: u8 = 254;
/// The hardware address of nobody.
const NOBODY: &str = "02:00:00:00:00:01";
/// Each node has an address of its own, so all have the same ports.
const GRPC_PORT: u16 = 7070;
const HTTP_PORT: u16 = 7071;

/// Somebody on the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// A node.
    Node(u64),
    /// All clients.
    Clients,
}

/// See the module. Dropping it deletes all of it.
#[derive(Debug)]
pub struct Lan {
    process: u32,
    cuts: Mutex<BTreeSet<(End, End)>>,
}

impl Lan {
    /// Makes the bridge, and puts clients on it.
    ///
    /// # Errors
    /// What this machine lacks or refuses.
    pub fn make() -> Result<Self, String> {
        clean()?;
        let lan = Self { process: std::process::id(), cuts: Mutex::default() };
        let (bridge, own) = (lan.name("lan"), lan.own_link());
        ip(&["netns", "add", &bridge])?;
        ip(&["-n", &bridge, "link", "add", "lan", "type", "bridge"])?;
        ip(&["-n", &bridge, "link", "set", "lan", "up"])?;
        ip(&["link", "add", &own, "type", "veth", "peer", "name", "clients", "netns", &bridge])?;
        ip(&["-n", &bridge, "link", "set", "clients", "master", "lan", "up"])?;
        ip(&["addr", "add", &format!("{}/24", lan.address(End::Clients)), "dev", &own])?;
        ip(&["link", "set", &own, "up"])?;
        Ok(lan)
    }

    /// Puts a node on it. Where it is to listen, for gRPC and for HTTP.
    ///
    /// # Errors
    /// What the system refuses.
    pub fn join(&self, id: u64) -> Result<(SocketAddr, SocketAddr), String> {
        let (bridge, node, port) = (self.name("lan"), self.namespace(id), format!("n{id}"));
        ip(&["netns", "add", &node])?;
        ip(&["-n", &node, "link", "set", "lo", "up"])?;
        ip(&["-n", &bridge, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &node])?;
        ip(&["-n", &bridge, "link", "set", &port, "master", "lan", "up"])?;
        let address = self.address(End::Node(id));
        ip(&["-n", &node, "addr", "add", &format!("{address}/24"), "dev", "eth0"])?;
        ip(&["-n", &node, "link", "set", "eth0", "up"])?;
        Ok((SocketAddr::from((address, GRPC_PORT)), SocketAddr::from((address, HTTP_PORT))))
    }

    /// What a program's command line begins with, so that it runs where the node is.
    #[must_use]
    pub fn inside(&self, id: u64) -> Vec<String> {
        ["ip".to_owned(), "netns".to_owned(), "exec".to_owned(), self.namespace(id)].to_vec()
    }

    /// From now on nothing that `from` sends arrives at `to`.
    ///
    /// # Errors
    /// What the system refuses.
    pub fn cut(&self, from: End, to: End) -> Result<(), String> {
        let to_address = self.address(to).to_string();
        self.at(from, &["neigh", "replace", &to_address, "lladdr", NOBODY, "nud", "permanent"])?;
        self.cuts.lock().unwrap_or_else(PoisonError::into_inner).insert((from, to));
        Ok(())
    }

    /// Everything arrives again.
    ///
    /// # Errors
    /// What the system refuses.
    pub fn mend(&self) -> Result<(), String> {
        let cuts = std::mem::take(&mut *self.cuts.lock().unwrap_or_else(PoisonError::into_inner));
        for (from, to) in cuts {
            self.at(from, &["neigh", "del", &self.address(to).to_string()])?;
        }
        Ok(())
    }

    /// Runs `ip` where somebody is, for its link to the bridge.
    fn at(&self, end: End, what: &[&str]) -> Result<(), String> {
        let (namespace, link) = match end {
            End::Node(id) => (Some(self.namespace(id)), "eth0".to_owned()),
            End::Clients => (None, self.own_link()),
        };
        let place: Vec<&str> = namespace.iter().flat_map(|namespace| ["-n", namespace.as_str()]).collect();
        ip(&[&place, what, &["dev", &link]].concat()).map(drop)
    }

    fn name(&self, of: &str) -> String {
        format!("{PREFIX}-{}-{of}", self.process)
    }

    fn namespace(&self, id: u64) -> String {
        self.name(&id.to_string())
    }

    /// This side's link to the bridge. Names of links are short.
    fn own_link(&self) -> String {
        format!("fc{}", self.process)
    }

    fn address(&self, end: End) -> Ipv4Addr {
        let host = match end {
            End::Node(id) => id as u8,
            End::Clients => CLIENTS_HOST,
        };
        // Two processes at a time rarely meet, and if they do, the second is told that the address is taken.
        Ipv4Addr::new(NETWORK[0], NETWORK[1], (self.process % 256) as u8, host)
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        if let Err(why) = delete(|process| process == self.process) {
            eprintln!("the network of this run is still there: {why}");
        }
    }
}

/// Deletes what processes left behind that are gone.
fn clean() -> Result<(), String> {
    delete(|process| !Path::new(&format!("/proc/{process}")).exists())
}

/// Deletes the namespaces of these processes; links between namespaces go with them.
fn delete(of: impl Fn(u32) -> bool) -> Result<(), String> {
    let all = ip(&["netns", "list"])?;
    for name in all.lines().filter_map(|line| line.split_whitespace().next()).filter(|name| owner(name).is_some_and(&of)) {
        ip(&["netns", "del", name])?;
    }
    Ok(())
}

/// The process after which a namespace is named.
fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.strip_prefix('-')?.split('-').next()?.parse().ok()
}

fn ip(args: &[&str]) -> Result<String, String> {
    let output = Command::new("ip").args(args).output().map_err(|error| format!("ip: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("ip {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_namespaces_of_runs_are_ones() {
        assert_eq!(owner("flotilla-chaos-12-lan"), Some(12));
        assert_eq!(owner("flotilla-chaos-12-3"), Some(12));
        for other in ["flotilla-chaos", "flotilla-chaos-x-1", "flotilla-2-1", "other-12-lan"] {
            assert_eq!(owner(other), None, "{other}");
        }
    }
}
