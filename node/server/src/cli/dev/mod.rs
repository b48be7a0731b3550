//! `flotilla dev`: a throw-away cluster on this machine, every node a process of its own.
//!
//! A node that ends stays down: to kill one by hand and see what happens is what such a cluster is for.

mod child;
mod view;

use std::path::{Path, PathBuf};
use std::time::Duration;

use flotilla_client::{Client, ClientOptions, Error, api};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::exit::CliError;
use super::global::Global;
use super::output::{Output, note, print};
use child::{Child, ChildOptions};
use view::DevView;

/// From one node's ports to the next one's.
const PORT_STEP: u16 = 10;
const READY_TIMEOUT: Duration = Duration::from_secs(60);
const READY_POLL_INTERVAL: Duration = Duration::from_millis(100);
/// An answer that takes longer is asked for again.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// Arguments of `flotilla dev`.
#[derive(Debug, clap::Args)]
pub struct DevArgs {
    /// Nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=9), value_name = "N")]
    nodes: u16,
    /// Where to keep data and logs; a directory of an earlier run goes on [default: a temporary one, removed at the end]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Node i serves gRPC on this port + 10·(i−1), HTTP one above; 0: on ports that are free
    #[arg(long, default_value_t = 7070, value_name = "PORT")]
    base_port: u16,
}

/// Runs until Ctrl-C.
///
/// # Errors
/// If the cluster does not come up, or all its nodes have ended.
pub async fn run(args: DevArgs, global: &Global) -> Result<(), CliError> {
    let watch = |kind| signal(kind).map_err(CliError::io("cannot watch for signals"));
    let mut stop = Stop { interrupt: watch(SignalKind::interrupt())?, terminate: watch(SignalKind::terminate())? };
    let temporary = match &args.dir {
        Some(_) => None,
        None => Some(tempfile::Builder::new().prefix("flotilla-dev-").tempdir().map_err(CliError::io("temporary directory"))?),
    };
    let dir = match (&args.dir, &temporary) {
        (Some(dir), _) => dir.as_path(),
        (None, Some(dir)) => dir.path(),
        (None, None) => Path::new("."),
    };
    std::fs::create_dir_all(dir).map_err(CliError::io(dir.display().to_string()))?;
    let mut dev = Dev::start(&args, dir)?;
    let ran = tokio::select! {
        ran = dev.serve(global.output) => ran,
        () = stop.asked() => Ok(()),
    };
    if dev.any_alive() {
        note("stopping the nodes (once more to kill them)");
    }
    tokio::select! {
        () = dev.stop() => {}
        () = stop.asked() => dev.kill().await,
    }
    ran
}

struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// The cluster. Dropping it kills the nodes.
struct Dev {
    view: DevView,
    children: Vec<Child>,
}

impl Dev {
    fn start(args: &DevArgs, dir: &Path) -> Result<Self, CliError> {
        let binary = std::env::current_exe().map_err(CliError::io("this program's own path"))?;
        let ports = match args.base_port {
            0 => free_ports(args.nodes)
                .ok_or_else(|| CliError::Failed("no range of ports is free: name a --base-port".to_owned()))?,
            base => ports(base, args.nodes)
                .ok_or_else(|| CliError::Usage(format!("--base-port {base}: too high for so many nodes")))?,
        };
        let seeds: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let mut children = Vec::new();
        for (node_id, port) in (1..).zip(ports) {
            let options = ChildOptions { binary: &binary, dir, node_id, port, seeds: &seeds };
            children.push(Child::start(&options)?);
        }
        let view = DevView { dir: dir.to_owned(), nodes: children.iter().map(|child| child.view().clone()).collect() };
        Ok(Self { view, children })
    }

    /// Says who is there and when they serve, then watches them. Returns only if there is nothing left to watch.
    async fn serve(&mut self, output: Output) -> Result<(), CliError> {
        // A program reads one document, when it can go on; people see at once what is started.
        let for_people = matches!(output, Output::Text | Output::Wide);
        if for_people {
            print(output, &self.view, DevView::text)?;
        }
        self.wait_ready().await?;
        if for_people {
            print(output, &self.view, DevView::ready)?;
        } else {
            print(output, &self.view, DevView::text)?;
        }
        self.watch().await
    }

    async fn wait_ready(&mut self) -> Result<(), CliError> {
        let addresses = self.view.addresses();
        let mut last = String::new();
        let ready = async {
            loop {
                match missing(&addresses).await {
                    Ok(None) => return,
                    Ok(Some(what)) => last = what,
                    Err(error) => last = error.to_string(),
                }
                tokio::time::sleep(READY_POLL_INTERVAL).await;
            }
        };
        let died = tokio::select! {
            () = ready => return Ok(()),
            died = ended(&mut self.children) => Some(died),
            () = tokio::time::sleep(READY_TIMEOUT) => None,
        };
        match died {
            Some(died) => Err(CliError::Failed(format!("the cluster did not come up: {died}"))),
            None => {
                let logs: String = self.children.iter().map(Child::log_tail).collect();
                Err(CliError::Failed(format!("the cluster did not come up within {READY_TIMEOUT:?}: {last}\n{logs}")))
            }
        }
    }

    async fn watch(&mut self) -> Result<(), CliError> {
        while self.any_alive() {
            let died = ended(&mut self.children).await;
            note(died);
        }
        Err(CliError::Failed("no node runs any more".to_owned()))
    }

    fn any_alive(&self) -> bool {
        self.children.iter().any(Child::is_alive)
    }

    async fn stop(&mut self) {
        self.children.iter().for_each(Child::terminate);
        self.all_ended().await;
    }

    async fn kill(&mut self) {
        self.children.iter_mut().for_each(Child::kill);
        self.all_ended().await;
    }

    async fn all_ended(&mut self) {
        while self.any_alive() {
            ended(&mut self.children).await;
        }
    }
}

/// The nodes' ports for gRPC.
fn ports(base: u16, nodes: u16) -> Option<Vec<u16>> {
    (0..nodes).map(|index| base.checked_add(index * PORT_STEP).filter(|port| *port < u16::MAX)).collect()
}

/// Ports on which nobody listens, nor above any of them. They lie below those that Linux gives to outgoing connections (from
/// 32768 on), so that no client takes one before its node does.
fn free_ports(nodes: u16) -> Option<Vec<u16>> {
    const RANGE: std::ops::Range<u16> = 20_000..32_000;
    let step = nodes * PORT_STEP;
    let bases = RANGE.step_by(usize::from(step)).filter_map(|base| ports(base, nodes));
    let is_free = |port: u16| std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, port)).is_ok();
    let all_free = |ports: &Vec<u16>| ports.iter().all(|port| is_free(*port) && is_free(port + 1));
    // Two clusters that start at the same time begin to look at different places.
    let count = usize::from(RANGE.end - RANGE.start) / usize::from(step);
    bases.cycle().skip(std::process::id() as usize % count).take(count).find(all_free)
}

/// Waits until the next node ends; what there is to say about it.
async fn ended(children: &mut [Child]) -> String {
    let alive = children.iter_mut().filter(|child| child.is_alive());
    let endings: Vec<_> = alive.map(|child| Box::pin(child.ended())).collect();
    if endings.is_empty() {
        return std::future::pending().await;
    }
    futures::future::select_all(endings).await.0
}

/// What the cluster still lacks, in the eyes of each of its nodes.
async fn missing(addresses: &[String]) -> Result<Option<String>, Error> {
    let options = ClientOptions { connect_timeout: ANSWER_TIMEOUT, request_timeout: ANSWER_TIMEOUT, ..ClientOptions::default() };
    for address in addresses {
        let client = Client::connect([address], options.clone()).await?;
        let cluster = client.describe_cluster(api::DescribeClusterRequest {}).await?;
        let (known, all) = (cluster.nodes.len(), addresses.len());
        if known < all {
            return Ok(Some(format!("the node at {address} knows {known} of {all} nodes")));
        }
        if all > 1 && cluster.nodes.iter().any(|node| !node.online) {
            return Ok(Some(format!("the node at {address} does not reach all others")));
        }
        if cluster.controller_leader.is_none() {
            return Ok(Some(format!("the node at {address} knows no leader of the controller")));
        }
    }
    Ok(None)
}
